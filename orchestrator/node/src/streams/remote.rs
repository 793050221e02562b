//! The API's side: a session with the pod's node, as the streams that the API knows.

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use podium_api::Status;
use podium_api::streams::{ExecExit, ExecRequest, ExecSession, LogOptions, TerminalSize};
use podium_peer::frame::{self, FrameError};
use podium_types::object;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::{mpsc, oneshot};

use super::wire::{Answer, Ask, Down, End, FRAME_BYTES, PART_BYTES, PATIENCE, Pod, Up};
use crate::worker::Session;

/// A log of a pod on the node behind `session`.
pub(crate) async fn logs(
    session: impl Session,
    pod: &Value,
    options: LogOptions,
) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Status> {
    let session = open(session, Ask::Logs { pod: name(pod), options: options.into() }).await?;
    let parts = stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        // No time limit: a log that is followed may be quiet for days.
        let part = frame::read(&mut session, FRAME_BYTES).await.and_then(decode);
        match part {
            Ok(Down::Output(bytes) | Down::Errors(bytes)) => {
                Some((Ok(Bytes::from(bytes)), Some(session)))
            }
            Ok(Down::Ended(End::Complete)) => None,
            Ok(Down::Ended(End::Failed(reason))) => {
                Some((Err(std::io::Error::other(reason)), None))
            }
            Ok(Down::Ended(End::Code(_))) => {
                Some((Err(std::io::Error::other("the node answered about a program")), None))
            }
            Err(error) => Some((Err(std::io::Error::other(error)), None)),
        }
    });
    Ok(parts.boxed())
}

/// Runs a program in a pod on the node behind `session`.
pub(crate) async fn exec(
    session: impl Session,
    pod: &Value,
    request: ExecRequest,
) -> Result<ExecSession, Status> {
    let ask = Ask::Exec { pod: name(pod), program: request.clone().into() };
    Ok(carried(open(session, ask).await?, &request))
}

/// Joins the streams of a pod's own program on the node behind `session`.
pub(crate) async fn attach(
    session: impl Session,
    pod: &Value,
    request: ExecRequest,
) -> Result<ExecSession, Status> {
    let ask = Ask::Attach { pod: name(pod), program: request.clone().into() };
    Ok(carried(open(session, ask).await?, &request))
}

fn name(pod: &Value) -> Pod {
    Pod {
        namespace: object::namespace(pod).to_owned(),
        name: object::name(pod).to_owned(),
        uid: object::uid(pod).to_owned(),
    }
}

async fn open<S: Session>(mut session: S, ask: Ask) -> Result<S, Status> {
    let asked = async {
        frame::say(&mut session, &ask, PATIENCE).await?;
        frame::hear::<Answer>(&mut session, FRAME_BYTES, PATIENCE).await
    };
    let answer = asked.await.map_err(|error| {
        Status::service_unavailable(format!("the pod's node does not answer: {error}"))
    })?;
    answer.accepted().map(|()| session)
}

fn decode(bytes: Vec<u8>) -> Result<Down, FrameError> {
    Ok(postcard::from_bytes(&bytes)?)
}

/// The ends that the carrying task holds.
struct Ends {
    input: Option<DuplexStream>,
    output: Option<DuplexStream>,
    errors: Option<DuplexStream>,
    sizes: mpsc::UnboundedReceiver<TerminalSize>,
    exit: oneshot::Sender<ExecExit>,
}

/// The session as streams; a task carries between the two, and ends with either.
fn carried(session: impl Session, request: &ExecRequest) -> ExecSession {
    let pipe = |wanted: bool| wanted.then(|| duplex(PART_BYTES)).unzip();
    let (stdin, input) = pipe(request.stdin);
    let (stdout, output) = pipe(request.stdout);
    let (stderr, errors) = pipe(request.stderr && !request.tty);
    let (resize, sizes) = mpsc::unbounded_channel();
    let (exit, exited) = oneshot::channel();
    tokio::spawn(carry(session, Ends { input, output, errors, sizes, exit }));
    ExecSession {
        stdin: stdin.map(|stdin| Box::pin(stdin) as _),
        stdout: stdout.map(|stdout| Box::pin(stdout) as _),
        stderr: stderr.map(|stderr| Box::pin(stderr) as _),
        resize: request.tty.then_some(resize),
        exit: Box::pin(async move {
            let lost = || ExecExit::Failed("the connection to the pod's node broke".to_owned());
            exited.await.unwrap_or_else(|_| lost())
        }),
    }
}

async fn carry(session: impl Session, ends: Ends) {
    let Ends { input, mut output, mut errors, sizes, mut exit } = ends;
    let (mut incoming, mut outgoing) = split(session);
    let hear = async {
        loop {
            match frame::read(&mut incoming, FRAME_BYTES).await.and_then(decode)? {
                Down::Output(bytes) => pass(&mut output, &bytes).await,
                Down::Errors(bytes) => pass(&mut errors, &bytes).await,
                Down::Ended(end) => return Ok::<End, FrameError>(end),
            }
        }
    };
    let heard = tokio::select! {
        heard = hear => heard,
        error = say(&mut outgoing, input, sizes) => Err(error),
        // The client is gone.
        () = exit.closed() => return,
    };
    // All output stands in the pipes; their ends are closed before the exit is told.
    drop((output, errors));
    let told = heard.map_or_else(
        |error| ExecExit::Failed(format!("the connection to the pod's node broke: {error}")),
        ExecExit::from,
    );
    let _ = exit.send(told);
}

/// Hands a part to the client; one that does not want it any more does without.
async fn pass(to: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(pipe) = to
        && pipe.write_all(bytes).await.is_err()
    {
        *to = None;
    }
}

/// Sends input and sizes; returns only when the connection is broken.
async fn say(
    outgoing: &mut (impl AsyncWrite + Unpin),
    mut input: Option<DuplexStream>,
    mut sizes: mpsc::UnboundedReceiver<TerminalSize>,
) -> FrameError {
    let mut sized = true;
    loop {
        let up = tokio::select! {
            size = sizes.recv(), if sized => match size {
                Some(size) => Up::from(size),
                None => {
                    sized = false;
                    continue;
                }
            },
            bytes = next(&mut input), if input.is_some() => match bytes {
                Some(bytes) => Up::Input(bytes),
                None => {
                    input = None;
                    Up::InputEnd
                }
            },
            else => return std::future::pending().await,
        };
        if let Err(error) = frame::say(outgoing, &up, PATIENCE).await {
            return error;
        }
    }
}

async fn next(input: &mut Option<DuplexStream>) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PART_BYTES);
    let read = input.as_mut()?.read_buf(&mut bytes).await;
    read.is_ok_and(|count| count > 0).then_some(bytes)
}

#[cfg(test)]
mod tests;
