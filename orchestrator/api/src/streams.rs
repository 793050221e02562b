//! What goes on inside a pod: its logs, and programs run in it. The API asks, the node answers.
//!
//! The API has looked the pod up, asked the authorizer and chosen the container before it calls.

use std::pin::Pin;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::status::Status;

/// A place that bytes come from.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
/// A place that bytes go to. Shutting it down is the end of the container's input.
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

/// The containers of pods, as far as their streams go.
pub trait PodStreams: Send + Sync {
    /// The log of a container, from where `options` says. With `follow` the stream ends when the container is gone;
    /// dropping it ends the work. An error in the middle ends the answer.
    ///
    /// `pod` is the whole object.
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>>;

    /// Runs a program in a container. Dropping the session ends the connection, not necessarily the program.
    fn exec<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>>;

    /// Joins the streams of a container's own program; `request.command` is empty.
    fn attach<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>>;
}

/// Which part of a log, and in what form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; always set.
    pub container: String,
    /// Go on as lines come.
    pub follow: bool,
    /// The instance before the last restart.
    pub previous: bool,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only this many lines from the end (counted before `since`).
    pub tail_lines: Option<u64>,
    /// Put the time in front of each line: RFC 3339 with nanoseconds and a space.
    pub timestamps: bool,
    /// End after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// A program to run, and how it is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container; always set.
    pub container: String,
    /// The program and its arguments; at least one, except for attach.
    pub command: Vec<String>,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether it wants the output.
    pub stdout: bool,
    /// Whether it wants the errors apart; never with `tty`.
    pub stderr: bool,
    /// Whether to give it a terminal.
    pub tty: bool,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// In characters.
    pub columns: u16,
    /// In characters.
    pub rows: u16,
}

/// A running program. What was not asked for is `None`.
pub struct ExecSession {
    /// Its input.
    pub stdin: Option<Writer>,
    /// Its output; with a terminal, all of it.
    pub stdout: Option<Reader>,
    /// Its errors.
    pub stderr: Option<Reader>,
    /// Takes the sizes of the client's terminal.
    pub resize: Option<mpsc::UnboundedSender<TerminalSize>>,
    /// How it ended. Waited for until all output has been read.
    pub exit: BoxFuture<'static, ExecExit>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecExit {
    /// By itself (0 is success), or by a signal (128 + number).
    Code(i32),
    /// It could not be run, or was lost; for people.
    Failed(String),
}

/// A node without containers: says so to everybody.
#[derive(Debug, Default)]
pub struct NoPodStreams;

impl NoPodStreams {
    fn refuse<T: Send>() -> BoxFuture<'static, Result<T, Status>> {
        Box::pin(async { Err(Status::service_unavailable("this server runs no containers")) })
    }
}

impl PodStreams for NoPodStreams {
    fn logs<'a>(
        &'a self,
        _: &'a Value,
        _: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Self::refuse()
    }

    fn exec<'a>(
        &'a self,
        _: &'a Value,
        _: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Self::refuse()
    }

    fn attach<'a>(
        &'a self,
        _: &'a Value,
        _: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Self::refuse()
    }
}
