//! The cluster's name server and forwarder.
