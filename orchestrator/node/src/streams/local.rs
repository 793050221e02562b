//! The API's view of containers' streams, as the agent has them.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt as _};
use podium_agent::{Agent, ExecOptions, LogError, StreamError};
use podium_api::Status;
use podium_api::streams::{
    ExecExit, ExecRequest, ExecSession, LogOptions, PodStreams, TerminalSize,
};
use podium_types::object;
use serde_json::Value;
use tokio::sync::mpsc;

/// The containers of this node.
pub(crate) struct Streams(pub(crate) Agent);

impl PodStreams for Streams {
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async move {
            let wanted = podium_agent::LogOptions {
                follow: options.follow,
                previous: options.previous,
                since: options.since,
                tail_lines: options.tail_lines,
                limit_bytes: options.limit_bytes,
                timestamps: options.timestamps,
                stream: None,
            };
            let (namespace, name) = (object::namespace(pod), object::name(pod));
            let opened = self.0.logs(namespace, name, &options.container, wanted).await;
            let stream = opened.map_err(|error| log_status(&error))?;
            Ok(stream.map(|part| part.map_err(std::io::Error::other)).boxed())
        })
    }

    fn exec<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            let (namespace, name, options) =
                (object::namespace(pod), object::name(pod), options(&request));
            let started =
                self.0.exec(namespace, name, &request.container, request.command, options).await;
            match started {
                Ok(session) => Ok(joined(session)),
                Err(StreamError::CannotExecute { code, message }) => Ok(failed(code, message)),
                Err(error) => Err(stream_status(&error)),
            }
        })
    }

    fn attach<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            let (namespace, name, options) =
                (object::namespace(pod), object::name(pod), options(&request));
            let joined_to = self.0.attach(namespace, name, &request.container, options).await;
            joined_to.map(joined).map_err(|error| stream_status(&error))
        })
    }
}

fn options(request: &ExecRequest) -> ExecOptions {
    ExecOptions {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        tty: request.tty,
    }
}

fn joined(session: podium_agent::ExecSession) -> ExecSession {
    let resize = session.resizer.map(|resizer| {
        let (sizes, mut wanted) = mpsc::unbounded_channel::<TerminalSize>();
        tokio::spawn(async move {
            while let Some(size) = wanted.recv().await {
                let size = podium_agent::TerminalSize { columns: size.columns, rows: size.rows };
                resizer.resize(size).await;
            }
        });
        sizes
    });
    let exit = session.exit;
    ExecSession {
        stdin: session.stdin,
        stdout: session.stdout,
        stderr: session.stderr,
        resize,
        exit: Box::pin(async move {
            match exit.await {
                Ok(exit) => ExecExit::Code(exit.code),
                Err(error) => ExecExit::Failed(error.to_string()),
            }
        }),
    }
}

/// A program that cannot be executed ends like one that says so: clients see its message and its code.
fn failed(code: i32, message: String) -> ExecSession {
    let said = std::io::Cursor::new(format!("{message}\n").into_bytes());
    ExecSession {
        stdin: None,
        stdout: None,
        stderr: Some(Box::pin(said)),
        resize: None,
        exit: Box::pin(std::future::ready(ExecExit::Code(code))),
    }
}

fn log_status(error: &LogError) -> Status {
    match error {
        LogError::NoPod
        | LogError::NoContainer(..)
        | LogError::NotStarted(..)
        | LogError::NoPrevious(..) => Status::bad_request(error.to_string()),
        LogError::Io { .. } => Status::internal(error),
    }
}

fn stream_status(error: &StreamError) -> Status {
    match error {
        StreamError::NoPod | StreamError::NoContainer(..) => Status::bad_request(error.to_string()),
        _ => Status::internal(error),
    }
}
