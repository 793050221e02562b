//! Every decision, as pure functions of state and time.
