//! One pod's supervisor: libcontainer, stdio, logs, exit codes.
