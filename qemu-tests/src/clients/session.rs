//! Many requests over one connection, for clients that ask all the time.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::node_api::{ANSWER_BYTES_MAX, Answer, Https, parse};

/// What became of a request that was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server never got it.
    NotSent(anyhow::Error),
    /// The server may have done it.
    Unknown(anyhow::Error),
}

impl Failure {
    /// The cause.
    pub(super) fn into_error(self) -> anyhow::Error {
        let (Self::NotSent(error) | Self::Unknown(error)) = self;
        error
    }
}

/// A server, and a connection to it as long as it lasts.
#[derive(Debug)]
pub(super) struct Session {
    server: Https,
    limit: Duration,
    stream: Option<StreamOwned<ClientConnection, TcpStream>>,
}

impl Session {
    /// A session with `server`, which has `limit` for each answer.
    pub(super) fn new(server: Https, limit: Duration) -> Self {
        Self { server, limit, stream: None }
    }

    /// Sends a request, over a new connection if there is none, and waits for its answer.
    ///
    /// # Errors
    /// See [`Failure`]. An answer that refuses the request is an answer.
    pub(super) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + self.limit;
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().map_err(Failure::NotSent)?,
        };
        let answer = exchange(&mut stream, &self.server, (method, path), body, deadline)
            .map_err(Failure::Unknown)?;
        self.stream = Some(stream);
        Ok(answer)
    }

    fn connect(&self) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut socket = TcpStream::connect_timeout(&self.server.address, self.limit)?;
        socket.set_read_timeout(Some(self.limit))?;
        socket.set_write_timeout(Some(self.limit))?;
        socket.set_nodelay(true)?;
        let config = Arc::clone(&self.server.config);
        let mut connection = ClientConnection::new(config, self.server.name.clone())?;
        // Whole, so that what fails here has sent nothing.
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }
}

fn exchange(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    server: &Https,
    (method, path): (&str, &str),
    body: Option<&Value>,
    deadline: Instant,
) -> anyhow::Result<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        server.address,
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    while !is_whole(&bytes) {
        ensure!(Instant::now() < deadline, "no whole answer in time");
        ensure!((bytes.len() as u64) < ANSWER_BYTES_MAX, "the answer is too long");
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the server has closed the connection");
        bytes.extend_from_slice(buffer.get(..read).context("a read longer than its buffer")?);
    }
    parse(&bytes)
}

/// Whether an HTTP/1.1 answer (RFC 9112, 6) has come to its end: by its length, or by its last chunk.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(split) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { return false };
    let (head, body) = bytes.split_at(split);
    let body = body.get(4..).unwrap_or_default();
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (header("content-length:"), header("transfer-encoding:")) {
        (_, Some(_)) => body.ends_with(b"0\r\n\r\n") && parse(bytes).is_ok(),
        (Some(length), _) => length.parse().is_ok_and(|length: usize| body.len() >= length),
        // 204 and such have none.
        (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_or_its_last_chunk_says_so() {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n0\r\n\r\n0\r\n\r\n";
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.1 204 No Content\r\n\r\n",
            chunked,
        ] {
            assert!(is_whole(whole.as_bytes()), "{whole}");
            for end in 0..whole.len() {
                let cut = &whole.as_bytes()[..end];
                assert!(!is_whole(cut), "{:?}", String::from_utf8_lossy(cut));
            }
        }
    }
}
