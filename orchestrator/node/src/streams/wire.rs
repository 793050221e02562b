//! What is said on a `podium-streams/1` session: one [`Ask`], one [`Answer`], then [`Up`] and [`Down`] until it ended.
//!
//! Postcard in frames. A session is one log or one program; who asks has been checked by its key before.

use std::time::Duration;

use jiff::Timestamp;
use podium_api::Status;
use podium_api::streams::{ExecExit, ExecRequest, LogOptions, TerminalSize};
use serde::{Deserialize, Serialize};

/// A frame holds at most one part of a stream; the rest is names and arguments.
pub(super) const FRAME_BYTES: usize = 256 * 1024;
/// What is read of a stream at once.
pub(super) const PART_BYTES: usize = 32 * 1024;
/// How long the other end may take for a frame that it owes, and to take one.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What a session is for. The order of variants and fields is the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    Logs { pod: Pod, options: Logs },
    Exec { pod: Pod, program: Program },
    Attach { pod: Pod, program: Program },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Logs {
    container: String,
    follow: bool,
    previous: bool,
    /// Nanoseconds since 1970.
    since: Option<i128>,
    tail_lines: Option<u64>,
    timestamps: bool,
    limit_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    container: String,
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

/// Whether the session goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Open,
    Refused { code: u16, message: String },
}

/// From who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Up {
    Input(Vec<u8>),
    InputEnd,
    Size { columns: u16, rows: u16 },
}

/// From the pod's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Down {
    Output(Vec<u8>),
    Errors(Vec<u8>),
    /// Nothing comes after it.
    Ended(End),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// Of a log.
    Complete,
    Code(i32),
    Failed(String),
}

impl From<LogOptions> for Logs {
    fn from(options: LogOptions) -> Self {
        let LogOptions { container, follow, previous, since, tail_lines, timestamps, limit_bytes } =
            options;
        let since = since.map(Timestamp::as_nanosecond);
        Self { container, follow, previous, since, tail_lines, timestamps, limit_bytes }
    }
}

impl From<Logs> for LogOptions {
    fn from(logs: Logs) -> Self {
        let Logs { container, follow, previous, since, tail_lines, timestamps, limit_bytes } = logs;
        let since = since.and_then(|since| Timestamp::from_nanosecond(since).ok());
        Self { container, follow, previous, since, tail_lines, timestamps, limit_bytes }
    }
}

impl From<ExecRequest> for Program {
    fn from(request: ExecRequest) -> Self {
        let ExecRequest { container, command, stdin, stdout, stderr, tty } = request;
        Self { container, command, stdin, stdout, stderr, tty }
    }
}

impl From<Program> for ExecRequest {
    fn from(program: Program) -> Self {
        let Program { container, command, stdin, stdout, stderr, tty } = program;
        Self { container, command, stdin, stdout, stderr, tty }
    }
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Self::Refused { code: status.code, message: status.message }
    }
}

impl Answer {
    /// The refusal as the API gives it on.
    pub(super) fn accepted(self) -> Result<(), Status> {
        match self {
            Self::Open => Ok(()),
            Self::Refused { code: 400, message } => Err(Status::bad_request(message)),
            Self::Refused { code: 503, message } => Err(Status::service_unavailable(message)),
            Self::Refused { message, .. } => Err(Status::internal(message)),
        }
    }
}

impl From<ExecExit> for End {
    fn from(exit: ExecExit) -> Self {
        match exit {
            ExecExit::Code(code) => Self::Code(code),
            ExecExit::Failed(message) => Self::Failed(message),
        }
    }
}

impl From<End> for ExecExit {
    fn from(end: End) -> Self {
        match end {
            End::Code(code) => Self::Code(code),
            End::Failed(message) => Self::Failed(message),
            End::Complete => Self::Failed("the node answered about a log".to_owned()),
        }
    }
}

impl From<TerminalSize> for Up {
    fn from(size: TerminalSize) -> Self {
        Self::Size { columns: size.columns, rows: size.rows }
    }
}
