//! An asynchronous client of a pod's shim.
//!
//! Every request gets a connection of its own: they are local and cheap, and no answer waits behind another's. What
//! the protocol says, and what a connection is for after `Subscribe` and `Exec`, stands in `podium-shim-protocol`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_shim_protocol::frame::{self, Decoder, FrameError};
use podium_shim_protocol::{
    ContainerConfig, Event, ExecConfig, ExecExit, Failure, FailureKind, PodStatus, Reply, Request,
    TerminalSize, paths,
};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A shim answers from memory or after a few system calls; a container's creation is some tens of milliseconds, a
/// second under emulation. Longer than this means that it hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Why a shim did not do what it was asked.
#[derive(Debug, Error)]
pub(crate) enum ShimError {
    /// Its socket fails: it is dead or not there yet.
    #[error("the pod's shim cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// It does not answer.
    #[error("the pod's shim does not answer")]
    Silent,
    /// It speaks something else.
    #[error("the pod's shim cannot be understood")]
    Frame(#[from] FrameError),
    /// It refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// It answered another question.
    #[error("the pod's shim answered something else")]
    Unexpected,
}

impl ShimError {
    /// The class of a refusal.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Refused(failure) => Some(failure.kind),
            Self::Unreachable(_) | Self::Silent | Self::Frame(_) | Self::Unexpected => None,
        }
    }
}

/// Where a pod's shim listens.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    socket: PathBuf,
}

impl Shim {
    /// The shim of the pod whose folder this is.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { socket: paths::socket(dir) }
    }

    /// How the pod is.
    pub(crate) async fn status(&self) -> Result<PodStatus, ShimError> {
        match self.ask(&Request::Status).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// How the pod is, and every change from then on.
    pub(crate) async fn subscribe(&self) -> Result<(PodStatus, Subscription), ShimError> {
        let mut connection = Connection::open(&self.socket).await?;
        match limited(connection.call(&Request::Subscribe, &[])).await? {
            Reply::Status(status) => Ok((status, Subscription(connection))),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Makes a container.
    pub(crate) async fn create(&self, config: ContainerConfig) -> Result<(), ShimError> {
        match self.ask(&Request::Create(Box::new(config))).await? {
            Reply::Created { .. } => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Lets a created container run.
    pub(crate) async fn start(&self, id: &str) -> Result<(), ShimError> {
        self.done(&Request::Start { id: id.to_owned() }).await
    }

    /// Signals a container's first process, or kills all its processes.
    pub(crate) async fn signal(&self, id: &str, signal: i32, all: bool) -> Result<(), ShimError> {
        self.done(&Request::Signal { id: id.to_owned(), signal, all }).await
    }

    /// Forgets a container that ended.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), ShimError> {
        self.done(&Request::Remove { id: id.to_owned() }).await
    }

    /// Kills every process of every container.
    pub(crate) async fn stop_pod(&self) -> Result<(), ShimError> {
        self.done(&Request::StopPod).await
    }

    /// Ends the shim.
    pub(crate) async fn shutdown(&self) -> Result<(), ShimError> {
        self.done(&Request::Shutdown).await
    }

    /// Runs a process in a container, on the given standard streams or on a terminal whose master side comes back.
    pub(crate) async fn exec(
        &self,
        container: &str,
        args: Vec<String>,
        stdio: ExecStdio,
    ) -> Result<(Exec, Option<OwnedFd>), ShimError> {
        let (terminal, fds) = match stdio {
            ExecStdio::Streams(fds) => (None, Vec::from(fds)),
            ExecStdio::Terminal(size) => (Some(size), Vec::new()),
        };
        let config = ExecConfig { container: container.to_owned(), args, terminal };
        let mut connection = Connection::open(&self.socket).await?;
        let reply = limited(connection.call(&Request::Exec(config), &fds)).await?;
        let Reply::ExecStarted { .. } = reply else { return Err(ShimError::Unexpected) };
        let master = connection.decoder.take_fd();
        if terminal.is_some() && master.is_none() {
            return Err(ShimError::Unexpected);
        }
        Ok((Exec(connection), master))
    }

    /// Joins a container's standard streams until the value is dropped or the container ends.
    pub(crate) async fn attach(
        &self,
        id: &str,
        stdio: [OwnedFd; 3],
    ) -> Result<Attachment, ShimError> {
        let mut connection = Connection::open(&self.socket).await?;
        match limited(connection.call(&Request::Attach { id: id.to_owned() }, &stdio)).await? {
            Reply::Done => Ok(Attachment(connection)),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// Sets the size of a container's terminal.
    pub(crate) async fn resize(&self, id: &str, size: TerminalSize) -> Result<(), ShimError> {
        self.done(&Request::Resize { id: id.to_owned(), size }).await
    }

    async fn ask(&self, request: &Request) -> Result<Reply, ShimError> {
        let mut connection = Connection::open(&self.socket).await?;
        limited(connection.call(request, &[])).await
    }

    async fn done(&self, request: &Request) -> Result<(), ShimError> {
        match self.ask(request).await? {
            Reply::Done => Ok(()),
            _ => Err(ShimError::Unexpected),
        }
    }
}

/// The standard streams of a process that is run in a container.
pub(crate) enum ExecStdio {
    /// Standard input, output, error.
    Streams([OwnedFd; 3]),
    /// A terminal of this size.
    Terminal(TerminalSize),
}

/// A process that runs in a container; dropping it kills the process.
pub(crate) struct Exec(Connection);

impl Exec {
    /// Waits for its end.
    pub(crate) async fn wait(mut self) -> Result<ExecExit, ShimError> {
        match self.0.receive().await? {
            Reply::ExecExited(exit) => Ok(exit),
            _ => Err(ShimError::Unexpected),
        }
    }
}

/// Standard streams that are joined to a container's.
pub(crate) struct Attachment(Connection);

impl Attachment {
    /// Waits until the container has ended.
    pub(crate) async fn wait(mut self) {
        // Whatever ends the connection ends the attachment.
        let _end = self.0.receive().await;
    }
}

/// The changes of a pod.
pub(crate) struct Subscription(Connection);

impl Subscription {
    /// The next change; an error when the shim has ended.
    pub(crate) async fn next_event(&mut self) -> Result<Event, ShimError> {
        match self.0.receive().await? {
            Reply::Event(event) => Ok(event),
            _ => Err(ShimError::Unexpected),
        }
    }
}

struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    async fn open(socket: &Path) -> Result<Self, ShimError> {
        let stream = UnixStream::connect(socket).await.map_err(ShimError::Unreachable)?;
        Ok(Self { stream, decoder: Decoder::default() })
    }

    async fn call(&mut self, request: &Request, fds: &[OwnedFd]) -> Result<Reply, ShimError> {
        let bytes = frame::encode(request)?;
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.writable().await.map_err(ShimError::Unreachable)?;
            let fds: Vec<BorrowedFd<'_>> =
                if sent == 0 { fds.iter().map(AsFd::as_fd).collect() } else { Vec::new() };
            let rest = bytes.get(sent..).unwrap_or_default();
            match self
                .stream
                .try_io(Interest::WRITABLE, || frame::send(self.stream.as_fd(), rest, &fds))
            {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(ShimError::Unreachable(error)),
            }
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Result<Reply, ShimError> {
        loop {
            if let Some(reply) = self.decoder.next_message()? {
                return match reply {
                    Reply::Failed(failure) => Err(ShimError::Refused(failure)),
                    reply => Ok(reply),
                };
            }
            self.stream.readable().await.map_err(ShimError::Unreachable)?;
            let (stream, decoder) = (&self.stream, &mut self.decoder);
            match stream.try_io(Interest::READABLE, || decoder.receive(stream.as_fd())) {
                Ok(0) => return Err(ShimError::Unreachable(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(ShimError::Unreachable(error)),
            }
        }
    }
}

async fn limited<T>(answer: impl Future<Output = Result<T, ShimError>>) -> Result<T, ShimError> {
    tokio::time::timeout(ANSWER_LIMIT, answer).await.unwrap_or(Err(ShimError::Silent))
}
