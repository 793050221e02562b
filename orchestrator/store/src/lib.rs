//! The replicated store: Raft, log, snapshots, revisions, watch.
