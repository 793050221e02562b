//! The pod's node: answers a session with what its own containers say.

use futures::StreamExt as _;
use podium_api::Status;
use podium_api::streams::{ExecSession, PodStreams, Reader, TerminalSize, Writer};
use podium_peer::frame::{self, FrameError};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::mpsc;

use super::wire::{Answer, Ask, Down, End, FRAME_BYTES, PART_BYTES, PATIENCE, Pod, Up};

/// Parts that wait to be written: a slow client slows the program down, and holds no memory.
const PARTS_WAITING: usize = 4;

/// Serves one session to its end. The asker's key has been checked.
pub(crate) async fn serve<S>(mut stream: S, streams: &dyn PodStreams) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let opened = match frame::hear(&mut stream, FRAME_BYTES, PATIENCE).await? {
        Ask::Logs { pod, options } => {
            let log = match streams.logs(&object(&pod), options.into()).await {
                Ok(log) => log,
                Err(status) => return refuse(&mut stream, status).await,
            };
            frame::say(&mut stream, &Answer::Open, PATIENCE).await?;
            return send_log(stream, log).await;
        }
        Ask::Exec { pod, program } => streams.exec(&object(&pod), program.into()).await,
        Ask::Attach { pod, program } => streams.attach(&object(&pod), program.into()).await,
    };
    match opened {
        Ok(session) => {
            frame::say(&mut stream, &Answer::Open, PATIENCE).await?;
            converse(stream, session).await
        }
        Err(status) => refuse(&mut stream, status).await,
    }
}

/// As much of the object as the agent looks at.
fn object(pod: &Pod) -> Value {
    json!({"metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}})
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, status: Status) -> Result<(), FrameError> {
    frame::say(stream, &Answer::from(status), PATIENCE).await
}

async fn send_log<S, L>(stream: S, mut log: L) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    L: futures::Stream<Item = std::io::Result<bytes::Bytes>> + Unpin,
{
    let (mut incoming, mut outgoing) = split(stream);
    let send = async {
        while let Some(part) = log.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    let end = Down::Ended(End::Failed(error.to_string()));
                    return frame::say(&mut outgoing, &end, PATIENCE).await;
                }
            };
            for chunk in part.chunks(PART_BYTES) {
                frame::say(&mut outgoing, &Down::Output(chunk.to_vec()), PATIENCE).await?;
            }
        }
        frame::say(&mut outgoing, &Down::Ended(End::Complete), PATIENCE).await
    };
    tokio::select! {
        sent = send => sent,
        // Who asked says nothing more; that it is gone is heard at once, even while the log is quiet.
        _ = incoming.read_u8() => Err(FrameError::Closed),
    }
}

async fn converse<S>(stream: S, session: ExecSession) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut incoming, mut outgoing) = split(stream);
    let (parts, mut waiting) = mpsc::channel::<Down>(PARTS_WAITING);
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let say = async {
        while let Some(part) = waiting.recv().await {
            frame::say(&mut outgoing, &part, PATIENCE).await?;
            if matches!(part, Down::Ended(_)) {
                return Ok(());
            }
        }
        Err(FrameError::Closed)
    };
    let follow = async {
        tokio::join!(
            forward(stdout, parts.clone(), Down::Output),
            forward(stderr, parts.clone(), Down::Errors),
        );
        let end = Down::Ended(exit.await.into());
        // Who does not listen any more has ended the session already.
        let _ = parts.send(end).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        said = say => said,
        error = hear(&mut incoming, stdin, resize) => Err(error),
        () = follow => Ok(()),
    }
}

/// Passes a program's output on until it ends.
async fn forward(from: Option<Reader>, parts: mpsc::Sender<Down>, part: fn(Vec<u8>) -> Down) {
    let Some(mut from) = from else { return };
    loop {
        let mut bytes = Vec::with_capacity(PART_BYTES);
        match (&mut from).take(PART_BYTES as u64).read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) if parts.send(part(bytes)).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Takes input and sizes until the asker is gone.
async fn hear(
    incoming: &mut (impl AsyncRead + Unpin),
    mut stdin: Option<Writer>,
    resize: Option<mpsc::UnboundedSender<TerminalSize>>,
) -> FrameError {
    loop {
        // No time limit: people think before they type.
        let said = match frame::read(incoming, FRAME_BYTES).await {
            Ok(bytes) => postcard::from_bytes(&bytes),
            Err(error) => return error,
        };
        match said {
            Ok(Up::Input(bytes)) => {
                let Some(writer) = &mut stdin else { continue };
                // A program that reads no more takes no input; it goes on without.
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    stdin = None;
                }
            }
            Ok(Up::InputEnd) => {
                if let Some(mut writer) = stdin.take() {
                    let _ = writer.shutdown().await;
                }
            }
            Ok(Up::Size { columns, rows }) => {
                if let Some(resize) = &resize {
                    let _ = resize.send(TerminalSize { columns, rows });
                }
            }
            Err(error) => return error.into(),
        }
    }
}
