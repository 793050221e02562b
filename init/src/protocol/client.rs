//! The blocking client of PID 1's socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::frame::{self, FrameError, Inbox};
use super::{Ending, Event, NodeReport, Reply, Request, Status};
use crate::config::MachineConfig;

/// PID 1 answers from memory; when it takes longer than this, something else is wrong and the caller should know.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Why a conversation with PID 1 failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or it is not for us.
    #[error("connecting to init at {path}")]
    Connect {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("talking to init")]
    Io(#[source] io::Error),
    /// The bytes made no sense.
    #[error("talking to init")]
    Frame(#[from] FrameError),
    /// PID 1 closed the connection.
    #[error("init closed the connection")]
    Closed,
    /// PID 1 does not do that.
    #[error("init refused: {0}")]
    Refused(String),
    /// The answer belongs to another question.
    #[error("init answered something else than asked")]
    Unexpected,
}

/// A connection to PID 1 for requests.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    inbox: Inbox,
}

impl Client {
    /// Connects to [`super::SOCKET`], or to another path in tests.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.display().to_string(), source })?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).map_err(ClientError::Io)?;
        Ok(Self { stream, inbox: Inbox::default() })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// All but [`ClientError::Connect`]; a refusal is [`ClientError::Refused`].
    pub fn call(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.stream.write_all(&frame::encode(request)?).map_err(ClientError::Io)?;
        match receive(&mut self.stream, &mut self.inbox)? {
            Reply::Refused { reason } => Err(ClientError::Refused(reason)),
            reply @ (Reply::Status(_) | Reply::Config(_) | Reply::Accepted) => Ok(reply),
        }
    }

    /// What PID 1 knows.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        match self.call(&Request::GetStatus)? {
            Reply::Status(status) => Ok(*status),
            Reply::Config(_) | Reply::Accepted | Reply::Refused { .. } => {
                Err(ClientError::Unexpected)
            }
        }
    }

    /// The config in force.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn config(&mut self) -> Result<Option<MachineConfig>, ClientError> {
        match self.call(&Request::GetConfig)? {
            Reply::Config(config) => Ok(config.map(|config| *config)),
            Reply::Status(_) | Reply::Accepted | Reply::Refused { .. } => {
                Err(ClientError::Unexpected)
            }
        }
    }

    /// Tells PID 1, and so the console, how the node is.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn report(&mut self, report: NodeReport) -> Result<(), ClientError> {
        self.call(&Request::ReportNode(report)).map(|_| ())
    }

    /// Ends the machine after the pods.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn shutdown(
        &mut self,
        how: Ending,
        reason: &str,
        grace: Duration,
    ) -> Result<(), ClientError> {
        self.call(&Request::Shutdown { how, reason: reason.to_owned(), grace }).map(|_| ())
    }

    /// Turns the connection into a stream of events.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn subscribe(mut self) -> Result<Events, ClientError> {
        match self.call(&Request::Subscribe)? {
            Reply::Accepted => {}
            Reply::Status(_) | Reply::Config(_) | Reply::Refused { .. } => {
                return Err(ClientError::Unexpected);
            }
        }
        self.stream.set_read_timeout(None).map_err(ClientError::Io)?;
        Ok(Events { stream: self.stream, inbox: self.inbox })
    }
}

/// A connection to PID 1 for events.
#[derive(Debug)]
pub struct Events {
    stream: UnixStream,
    inbox: Inbox,
}

impl Events {
    /// Waits, without limit, for the next event.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when PID 1 hangs up, and the errors of reading.
    pub fn wait(&mut self) -> Result<Event, ClientError> {
        receive(&mut self.stream, &mut self.inbox)
    }
}

fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
    inbox: &mut Inbox,
) -> Result<T, ClientError> {
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(value) = inbox.next()? {
            return Ok(value);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ClientError::Closed),
            Ok(count) => inbox.push(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ClientError::Io(error)),
        }
    }
}
