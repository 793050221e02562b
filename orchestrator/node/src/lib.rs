//! The node daemon: it joins everything that a machine runs.
