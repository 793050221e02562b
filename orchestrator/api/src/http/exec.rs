//! exec and attach: a program's streams as channels of a WebSocket.
//!
//! Each binary message begins with its channel: 0 input, 1 output, 2 errors, 3 how it ended (a Status), 4 the size of the
//! terminal; since v5 255 closes the channel that its second byte names. At the end comes channel 3, then a close.

use bytes::{BufMut as _, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::Request;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::reply::Reply;
use super::websocket::{self, Socket};
use super::{Context, Server};
use crate::status::Status;
use crate::streams::{ExecExit, ExecRequest, ExecSession, Reader, TerminalSize, Writer};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V1: &str = "channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Output goes out in pieces of at most this size.
const PIECE_BYTES: usize = 16 * 1024;

impl Server {
    pub(super) async fn run(
        &self,
        context: &Context<'_>,
        pod: &Value,
        container: String,
        attach: bool,
        request: Request<Incoming>,
    ) -> Result<Reply, Status> {
        let name = podium_types::object::name(pod);
        if podium_types::object::str_at(pod, &["spec", "nodeName"]).unwrap_or_default().is_empty() {
            return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let query = &context.query;
        let tty = query.flag("tty");
        let wanted = ExecRequest {
            container,
            command: query.all("command").map(str::to_owned).collect(),
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr") && !tty,
            tty,
        };
        if !attach && wanted.command.is_empty() {
            return Err(Status::bad_request(
                "you must specify at least 1 command for the container",
            ));
        }
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Status::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        let (reply, protocol, socket) = websocket::upgrade(request, &[V5, V4, V1])?;
        let session = if attach {
            self.streams.attach(pod, wanted).await
        } else {
            self.streams.exec(pod, wanted).await
        };
        // A refusal goes over the socket too: clients take any other answer for a server that cannot do WebSocket.
        let session = session.unwrap_or_else(refused);
        tokio::spawn(async move {
            match socket.await {
                Ok(socket) => carry(socket, session, protocol).await,
                Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
            }
        });
        Ok(reply)
    }
}

/// A session that is over before it began.
fn refused(status: Status) -> ExecSession {
    let exit = Box::pin(std::future::ready(ExecExit::Failed(status.message)));
    ExecSession { stdin: None, stdout: None, stderr: None, resize: None, exit }
}

/// Moves bytes both ways until the program has ended, or the client is gone.
async fn carry(socket: Socket, session: ExecSession, protocol: &'static str) {
    let (sink, stream) = socket.split();
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let output = async move {
        let mut sink = send_output(sink, stdout, stderr).await?;
        let ended = ending(exit.await, protocol);
        sink.send(message(ERROR, ended.as_bytes())).await.ok()?;
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(close))).await.ok()?;
        // The client closes too; what it still sends is of no interest.
        sink.close().await.ok()
    };
    tokio::select! {
        biased;
        _ = output => {}
        () = take_input(stream, stdin, resize) => {}
    }
}

/// Sends both outputs until they end; `None` if the client is gone.
async fn send_output(
    mut sink: SplitSink<Socket, Message>,
    mut stdout: Option<Reader>,
    mut stderr: Option<Reader>,
) -> Option<SplitSink<Socket, Message>> {
    let (mut out, mut err) = (BytesMut::new(), BytesMut::new());
    while stdout.is_some() || stderr.is_some() {
        let (channel, buffer, ended) = tokio::select! {
            ended = piece(&mut stdout, &mut out) => (STDOUT, &mut out, ended),
            ended = piece(&mut stderr, &mut err) => (STDERR, &mut err, ended),
        };
        if ended {
            *(if channel == STDOUT { &mut stdout } else { &mut stderr }) = None;
            continue;
        }
        let piece = message(channel, buffer);
        buffer.clear();
        sink.send(piece).await.ok()?;
    }
    Some(sink)
}

/// Reads the next piece into the empty buffer; true at the end. Never returns for a reader that is not there.
async fn piece(reader: &mut Option<Reader>, buffer: &mut BytesMut) -> bool {
    let Some(reader) = reader else { return std::future::pending().await };
    buffer.reserve(PIECE_BYTES);
    // A terminal whose program has ended gives an error instead of an end.
    reader.read_buf(&mut buffer.limit(PIECE_BYTES)).await.unwrap_or_default() == 0
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut framed = Vec::with_capacity(bytes.len() + 1);
    framed.push(channel);
    framed.extend_from_slice(bytes);
    Message::Binary(framed.into())
}

/// Passes on what the client sends, until it is gone. The end of its input does not end the program.
async fn take_input(
    mut stream: SplitStream<Socket>,
    mut stdin: Option<Writer>,
    resize: Option<mpsc::UnboundedSender<TerminalSize>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            // Pongs are sent by the library; text is not part of the protocol.
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match (bytes.first(), &bytes[bytes.len().min(1)..]) {
            (Some(&STDIN), data) => write(&mut stdin, data).await,
            (Some(&RESIZE), size) => {
                if let (Some(resize), Some(size)) = (&resize, size_of(size)) {
                    // Without a receiver the program has ended.
                    let _ = resize.send(size);
                }
            }
            (Some(&CLOSE), [STDIN, ..]) => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = stdin.shutdown().await;
                }
            }
            _ => {}
        }
    }
}

async fn write(stdin: &mut Option<Writer>, data: &[u8]) {
    if let Some(writer) = stdin {
        let written = async {
            writer.write_all(data).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            // The program does not read any more.
            *stdin = None;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

fn size_of(bytes: &[u8]) -> Option<TerminalSize> {
    let size: Size = serde_json::from_slice(bytes).ok()?;
    Some(TerminalSize { columns: size.width, rows: size.height })
}

/// What channel 3 says: a Status, or in the first version of the protocol a text if something went wrong.
fn ending(exit: ExecExit, protocol: &str) -> String {
    let failure = |message: String, reason: &str, details: Value| json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "details": details});
    let status = match exit {
        ExecExit::Code(0) => json!({"metadata": {}, "status": "Success"}),
        ExecExit::Code(code) => {
            let cause = json!({"reason": "ExitCode", "message": code.to_string()});
            let message = format!("command terminated with non-zero exit code: exit status {code}");
            failure(message, "NonZeroExitCode", json!({"causes": [cause]}))
        }
        ExecExit::Failed(why) => {
            let cause = json!({"message": why});
            let mut status = failure(why, "InternalError", json!({"causes": [cause]}));
            status["code"] = json!(500);
            status
        }
    };
    match (protocol, status.get("message").and_then(Value::as_str)) {
        (V1, message) => message.unwrap_or_default().to_owned(),
        _ => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ExecExit, TerminalSize, V1, V5, ending, size_of};

    #[test]
    fn exit_codes_are_told_as_kubectl_reads_them() {
        let status: Value = serde_json::from_str(&ending(ExecExit::Code(7), V5)).expect("JSON");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "7"}]));
        assert_eq!(ending(ExecExit::Code(0), V5), r#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(ending(ExecExit::Code(0), V1), "");
        assert!(ending(ExecExit::Failed("no such file".to_owned()), V5).contains("no such file"));
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_not() {
        let size = TerminalSize { columns: 80, rows: 24 };
        assert_eq!(size_of(br#"{"Width":80,"Height":24}"#), Some(size));
        assert_eq!(size_of(b"{}"), None);
        assert_eq!(size_of(br#"{"Width":80000,"Height":24}"#), None);
    }
}
