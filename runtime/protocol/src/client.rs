//! A blocking client of one shim.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use crate::frame::{self, Decoder, FrameError};
use crate::{ContainerConfig, Event, ExecConfig, ExecExit, Failure, PodStatus, Reply, Request};

/// Why a request got no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The socket failed. `NotFound` and `ConnectionRefused` from [`Client::connect`], `UnexpectedEof` from anything else, mean
    /// that the shim is dead: kill the pod's control group.
    #[error("the shim cannot be reached")]
    Socket(#[from] io::Error),
    /// What arrived is not this protocol.
    #[error("the shim's answer cannot be understood")]
    Frame(#[from] FrameError),
    /// The shim refused, or failed to do it.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// An answer to another question.
    #[error("the shim answered something else: {0:?}")]
    Unexpected(Box<Reply>),
}

/// A connection to one shim; see the crate's documentation for what it may be used for after which request.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if nobody listens at `path`.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Ok(Self { stream: UnixStream::connect(path)?, decoder: Decoder::default() })
    }

    /// Limits how long each later wait for an answer may take; `None` waits for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the limit is zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        Ok(self.stream.set_read_timeout(timeout)?)
    }

    /// Asks, and waits for the answer. [`Reply::Failed`] becomes [`ClientError::Refused`].
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn call(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let bytes = frame::encode(request)?;
        let mut sent = frame::send(&self.stream, &bytes, fds)?;
        while sent < bytes.len() {
            sent += frame::send(&self.stream, &bytes[sent..], &[])?;
        }
        self.receive()
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        loop {
            if let Some(reply) = self.decoder.next_message()? {
                return match reply {
                    Reply::Failed(failure) => Err(ClientError::Refused(failure)),
                    reply => Ok(reply),
                };
            }
            if self.decoder.receive(&self.stream)? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    fn done(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        match self.call(request, fds)? {
            Reply::Done => Ok(()),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// The pod as it is now.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; so for all that follow.
    pub fn status(&mut self) -> Result<PodStatus, ClientError> {
        match self.call(&Request::Status, &[])? {
            Reply::Status(status) => Ok(status),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// The pod as it is now, and every change from here on.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn subscribe(mut self) -> Result<(PodStatus, Subscription), ClientError> {
        match self.call(&Request::Subscribe, &[])? {
            Reply::Status(status) => Ok((status, Subscription(self))),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// Makes a container and returns its first process.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn create(&mut self, config: ContainerConfig) -> Result<i32, ClientError> {
        match self.call(&Request::Create(Box::new(config)), &[])? {
            Reply::Created { pid } => Ok(pid),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// Lets a created container run.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn start(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Start { id: id.to_owned() }, &[])
    }

    /// Signals a container's first process.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn signal(&mut self, id: &str, signal: i32) -> Result<(), ClientError> {
        self.done(&Request::Signal { id: id.to_owned(), signal, all: false }, &[])
    }

    /// Kills every process of a container.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn kill(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Signal { id: id.to_owned(), signal: 9, all: true }, &[])
    }

    /// Forgets an ended container.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn remove(&mut self, id: &str) -> Result<(), ClientError> {
        self.done(&Request::Remove { id: id.to_owned() }, &[])
    }

    /// Kills every process of every container.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn stop_pod(&mut self) -> Result<(), ClientError> {
        self.done(&Request::StopPod, &[])
    }

    /// Ends the shim.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn shutdown(mut self) -> Result<(), ClientError> {
        self.done(&Request::Shutdown, &[])
    }

    /// Runs a process in a container. `stdio` are its standard input, output and error; the shim's copies are closed once the
    /// process has them.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn exec(
        self,
        container: &str,
        args: Vec<String>,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Exec, ClientError> {
        let config = ExecConfig { container: container.to_owned(), args, terminal: None };
        let (exec, _) = self.start_exec(config, &stdio)?;
        Ok(exec)
    }

    /// Runs a process in a container on a terminal, and returns the terminal's master side: read its output, write its input, set
    /// its size on it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn exec_terminal(
        self,
        container: &str,
        args: Vec<String>,
        size: crate::TerminalSize,
    ) -> Result<(Exec, OwnedFd), ClientError> {
        let config = ExecConfig { container: container.to_owned(), args, terminal: Some(size) };
        let (mut exec, reply) = self.start_exec(config, &[])?;
        match exec.client.decoder.take_fd() {
            Some(master) => Ok((exec, master)),
            None => Err(ClientError::Unexpected(Box::new(reply))),
        }
    }

    fn start_exec(
        mut self,
        config: ExecConfig,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Exec, Reply), ClientError> {
        match self.call(&Request::Exec(config), fds)? {
            reply @ Reply::ExecStarted { pid } => Ok((Exec { client: self, pid }, reply)),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// Copies a container's output to the second and third descriptor and feeds its standard input from the first, until the value
    /// that this returns is dropped.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn attach(
        mut self,
        id: &str,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Attachment, ClientError> {
        self.done(&Request::Attach { id: id.to_owned() }, &stdio)?;
        Ok(Attachment(self))
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn resize(&mut self, id: &str, size: crate::TerminalSize) -> Result<(), ClientError> {
        self.done(&Request::Resize { id: id.to_owned(), size }, &[])
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Changes of a pod, in order and without a gap after the status that came first.
#[derive(Debug)]
pub struct Subscription(Client);

impl Subscription {
    /// Waits for the next change.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] with `UnexpectedEof` when the shim has ended.
    pub fn next_event(&mut self) -> Result<Event, ClientError> {
        match self.0.receive()? {
            Reply::Event(event) => Ok(event),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// Limits how long each wait may take.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the limit is zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.0.set_timeout(timeout)
    }
}

/// A process that runs in a container. Dropping this kills it, unless [`Exec::wait`] saw its end.
#[derive(Debug)]
pub struct Exec {
    client: Client,
    /// The process, as the node sees it.
    pub pid: i32,
}

impl Exec {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn wait(mut self) -> Result<ExecExit, ClientError> {
        match self.client.receive()? {
            Reply::ExecExited(exit) => Ok(exit),
            other => Err(ClientError::Unexpected(Box::new(other))),
        }
    }

    /// Limits how long `wait` may take.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`] if the limit is zero.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.client.set_timeout(timeout)
    }
}

/// An attachment to a container's standard streams; ends when dropped. Reading end-of-file on it means that the container ended.
#[derive(Debug)]
pub struct Attachment(Client);

impl Attachment {
    /// Waits until the shim ends the attachment, which it does when the container has ended and its output was copied.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn wait(mut self) -> Result<(), ClientError> {
        match self.0.receive() {
            Err(ClientError::Socket(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(reply) => Err(ClientError::Unexpected(Box::new(reply))),
        }
    }
}
