//! A connection that is kept: many requests one after the other, or a watch.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::{ANSWER_DEADLINE, Answer, Https};

/// A connection that is kept open between requests.
pub struct Session {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    host: String,
}

/// Ends a [`Session`] from another thread: what waits for an answer gets an error.
#[derive(Debug)]
pub struct Breaker(TcpStream);

/// The events of a watch.
pub struct Events {
    session: Session,
    chunk_bytes: usize,
}

impl Https {
    /// Opens a connection.
    ///
    /// # Errors
    /// The server is not there or is not trusted.
    pub fn session(&self) -> anyhow::Result<Session> {
        let socket = TcpStream::connect_timeout(&self.address, ANSWER_DEADLINE)?;
        socket.set_nodelay(true)?;
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        let stream = BufReader::new(StreamOwned::new(connection, socket));
        Ok(Session { stream, host: self.address.to_string() })
    }

    /// Opens a connection on which nothing is waited for longer than `limit`. Whole, with its handshake: what fails here has
    /// sent no request.
    ///
    /// # Errors
    /// As [`Https::session`].
    pub fn session_within(&self, limit: Duration) -> anyhow::Result<Session> {
        let mut session = self.session()?;
        let StreamOwned { conn, sock } = session.stream.get_mut();
        sock.set_read_timeout(Some(limit))?;
        sock.set_write_timeout(Some(limit))?;
        while conn.is_handshaking() {
            conn.complete_io(sock)?;
        }
        Ok(session)
    }
}

impl Breaker {
    /// Ends the session.
    pub fn end(self) {
        // What has ended already is not connected any more.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Session {
    /// What ends this session from another thread. Without it an answer is waited for without end.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn breaker(&self) -> anyhow::Result<Breaker> {
        Ok(Breaker(self.stream.get_ref().sock.try_clone()?))
    }

    /// Sends one request with a JSON body and waits for its answer.
    ///
    /// # Errors
    /// The connection ended before the answer did: the request may have been carried out or not.
    pub fn request(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, path, &body)?;
        let (status, framing) = self.head()?;
        let mut bytes = vec![0; framing.unwrap_or_default()];
        self.stream.read_exact(&mut bytes)?;
        if framing.is_none() {
            while let length @ 1.. = self.chunk_length()? {
                let start = bytes.len();
                bytes.resize(start + length, 0);
                self.stream.read_exact(&mut bytes[start..])?;
                self.line()?;
            }
            self.line()?;
        }
        Ok(Answer { status, body: bytes })
    }

    /// Starts a watch. An answer other than 200 is the inner error.
    ///
    /// # Errors
    /// The connection ended before the answer began.
    pub fn watch(mut self, path: &str) -> anyhow::Result<Result<Events, u16>> {
        self.send("GET", path, "")?;
        let (status, framing) = self.head()?;
        if status != 200 {
            return Ok(Err(status));
        }
        ensure!(framing.is_none(), "the watch has a length");
        Ok(Ok(Events { session: self, chunk_bytes: 0 }))
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<()> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(request.as_bytes())?;
        Ok(stream.flush()?)
    }

    /// The status, and the body's length unless it comes in chunks (RFC 9112, 6.3).
    fn head(&mut self) -> anyhow::Result<(u16, Option<usize>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).context("no status line")?.parse()?;
        let mut framing = Some(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            let Some((name, value)) = line.split_once(':') else { return Ok((status, framing)) };
            match (name, value.trim()) {
                ("content-length", length) => framing = Some(length.parse()?),
                ("transfer-encoding", "chunked") => framing = None,
                _ => {}
            }
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the connection has ended");
        Ok(line.trim_end().to_owned())
    }

    fn chunk_length(&mut self) -> anyhow::Result<usize> {
        let line = self.line()?;
        Ok(usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16)?)
    }
}

impl Events {
    /// What ends this watch from another thread.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn breaker(&self) -> anyhow::Result<Breaker> {
        self.session.breaker()
    }

    /// Waits for the next event; `None`: the server ended the watch.
    ///
    /// # Errors
    /// The connection ended, or what comes is no event.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Value>> {
        let mut line = Vec::new();
        loop {
            if self.chunk_bytes == 0 {
                self.chunk_bytes = self.session.chunk_length()?;
                if self.chunk_bytes == 0 {
                    return Ok(None);
                }
            }
            let limit = u64::try_from(self.chunk_bytes)?;
            let read = self.session.stream.by_ref().take(limit).read_until(b'\n', &mut line)?;
            ensure!(read > 0, "the connection has ended");
            self.chunk_bytes -= read;
            if self.chunk_bytes == 0 {
                self.session.line()?;
            }
            if line.ends_with(b"\n") {
                return Ok(Some(serde_json::from_slice(&line)?));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::served;
    use serde_json::json;

    #[test]
    fn requests_share_a_connection_and_a_watch_is_read_event_by_event() {
        let https = served(&[
            "HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"b\r\n4\r\n\":2}\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{}\n{\r\n2\r\n}\n\r\n0\r\n\r\n",
        ]);
        let mut session = https.session().expect("connect");
        let created = session.request("POST", "/", &json!({})).expect("an answer");
        assert_eq!((created.status, created.json().expect("JSON")), (201, json!({"a": 1})));
        let read = session.request("GET", "/", &json!(null)).expect("an answer");
        assert_eq!(read.json().expect("JSON"), json!({"b": 2}));
        let mut events = session.watch("/").expect("an answer").expect("200");
        assert_eq!(events.next_event().expect("an event"), Some(json!({})));
        assert_eq!(events.next_event().expect("an event"), Some(json!({})));
        assert_eq!(events.next_event().expect("the end"), None);
    }
}
