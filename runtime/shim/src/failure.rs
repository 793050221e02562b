//! Turns errors into what the agent is told.

use std::error::Error;

use podium_shim_protocol::{Failure, FailureKind};

use crate::workload::CANNOT_EXECUTE;

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors print their cause themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}

pub(crate) fn of(kind: FailureKind, error: &dyn Error) -> Failure {
    Failure { kind, message: chain(error) }
}

pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// What libcontainer reports is sorted by the text that our own code inside the container put into it, and cut to it.
pub(crate) fn of_runtime(error: &dyn Error) -> Failure {
    // libcontainer's own cleaning up may be too early for the kernel; ours comes after it, and again until it works.
    const CLEANUP: &str = ". error during cleanup";
    let text = chain(error);
    let message = text.split(CLEANUP).next().unwrap_or(&text);
    match message.find(CANNOT_EXECUTE) {
        Some(start) => new(FailureKind::CannotExecute, &message[start..]),
        None => new(FailureKind::System, message),
    }
}
