//! PID 1, and the protocol by which the other programs talk to it.

fn main() {}
