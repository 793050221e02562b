//! Streams into containers: exec and attach, as the API serves them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use podium_shim_protocol as protocol;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use crate::seams::BoxFuture;
use crate::shim::{ExecStdio, Shim, ShimError};

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// What a client wants of an exec or attach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Feed its standard input.
    pub stdin: bool,
    /// Hear its standard output.
    pub stdout: bool,
    /// Hear its standard error; not with a terminal, which has only one output.
    pub stderr: bool,
    /// Give it a terminal. For an attach: the container has one.
    pub tty: bool,
}

/// How a command in a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecExit {
    /// The exit code; 128 plus the signal's number if a signal ended it.
    pub code: i32,
}

/// Why there is no stream.
#[derive(Debug, Error)]
pub enum StreamError {
    /// This node does not have the pod.
    #[error("pod not found on this node")]
    NoPod,
    /// The pod has no such container.
    #[error("container {0} is not valid for pod {1}")]
    NoContainer(String, String),
    /// The container does not run.
    #[error("container not found (\"{0}\")")]
    NotRunning(String),
    /// The program is not in the container or cannot be executed; clients see this as an exit with the code.
    #[error("{message}")]
    CannotExecute {
        /// 126 or 127.
        code: i32,
        /// For people.
        message: String,
    },
    /// The node lacks descriptors.
    #[error("cannot make a pipe")]
    Pipe(#[from] io::Error),
    /// The shim did not do it.
    #[error("{0}")]
    Shim(String),
}

impl From<ShimError> for StreamError {
    fn from(error: ShimError) -> Self {
        match error.kind() {
            Some(protocol::FailureKind::CannotExecute) => {
                let message = error.to_string();
                let code = if message.contains("ermission") { 126 } else { 127 };
                Self::CannotExecute { code, message }
            }
            _ => Self::Shim(crate::sandbox::describe(&error)),
        }
    }
}

/// The standard input of a process in a container; dropping it closes the input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
/// An output of a process in a container.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A process in a container and the client's ends of its streams. Dropping [`ExecSession::exit`] kills what was run by
/// exec, and ends an attachment.
pub struct ExecSession {
    /// Its standard input, if asked for.
    pub stdin: Option<Input>,
    /// Its standard output or terminal, if asked for.
    pub stdout: Option<Output>,
    /// Its standard error, if asked for.
    pub stderr: Option<Output>,
    /// Changes the size of its terminal.
    pub resizer: Option<Resizer>,
    /// Its end. An attachment ends with its container, and then says 0.
    pub exit: BoxFuture<'static, Result<ExecExit, StreamError>>,
}

/// Changes the size of a terminal.
#[derive(Clone)]
pub struct Resizer(Resize);

#[derive(Clone)]
enum Resize {
    Master(Arc<AsyncFd<OwnedFd>>),
    Container { shim: Shim, id: String },
}

impl Resizer {
    /// Sets the size; a terminal that is gone needs none.
    pub async fn resize(&self, size: TerminalSize) {
        match &self.0 {
            Resize::Master(master) => {
                let size = rustix::termios::Winsize {
                    ws_col: size.columns,
                    ws_row: size.rows,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                };
                let _gone = rustix::termios::tcsetwinsize(master.get_ref(), size);
            }
            Resize::Container { shim, id } => {
                let size = protocol::TerminalSize { columns: size.columns, rows: size.rows };
                let _gone = shim.resize(id, size).await;
            }
        }
    }
}

/// Runs a command in a container.
pub(crate) async fn exec(
    shim: &Shim,
    id: &str,
    command: Vec<String>,
    options: ExecOptions,
) -> Result<ExecSession, StreamError> {
    if options.tty {
        return exec_on_terminal(shim, id, command, options).await;
    }
    let (ends, stdio) = pipes(options)?;
    let (process, _) = shim.exec(id, command, ExecStdio::Streams(stdio)).await?;
    let exit = Box::pin(async move { Ok(ExecExit { code: process.wait().await?.code }) });
    Ok(ExecSession {
        stdin: ends.stdin,
        stdout: ends.stdout,
        stderr: ends.stderr,
        resizer: None,
        exit,
    })
}

/// Joins the standard streams of a container's first process.
pub(crate) async fn attach(
    shim: &Shim,
    id: &str,
    options: ExecOptions,
) -> Result<ExecSession, StreamError> {
    let (ends, stdio) = pipes(ExecOptions { stderr: options.stderr && !options.tty, ..options })?;
    let attachment = shim.attach(id, stdio).await?;
    let resizer =
        options.tty.then(|| Resizer(Resize::Container { shim: shim.clone(), id: id.to_owned() }));
    let exit = Box::pin(async move {
        attachment.wait().await;
        Ok(ExecExit { code: 0 })
    });
    Ok(ExecSession { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr, resizer, exit })
}

async fn exec_on_terminal(
    shim: &Shim,
    id: &str,
    command: Vec<String>,
    options: ExecOptions,
) -> Result<ExecSession, StreamError> {
    let size = protocol::TerminalSize { columns: 80, rows: 24 };
    let (process, master) = shim.exec(id, command, ExecStdio::Terminal(size)).await?;
    let master = master.ok_or(ShimError::Unexpected)?;
    rustix::io::ioctl_fionbio(&master, true).map_err(io::Error::from)?;
    let master = Arc::new(watched(master)?);
    let exit = Box::pin(async move { Ok(ExecExit { code: process.wait().await?.code }) });
    Ok(ExecSession {
        stdin: options.stdin.then(|| Box::pin(Terminal(Arc::clone(&master))) as Input),
        stdout: options.stdout.then(|| Box::pin(Terminal(Arc::clone(&master))) as Output),
        stderr: None,
        resizer: Some(Resizer(Resize::Master(master))),
        exit,
    })
}

/// A descriptor that the runtime watches.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that may close their descriptor early; this one owns it"
)]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

struct Ends {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
}

/// Pipes for the streams that are wanted, and `/dev/null` for the others.
fn pipes(options: ExecOptions) -> io::Result<(Ends, [OwnedFd; 3])> {
    let null = || -> io::Result<OwnedFd> {
        Ok(File::options().read(true).write(true).open("/dev/null")?.into())
    };
    let output = |wanted: bool| -> io::Result<(Option<Output>, OwnedFd)> {
        if !wanted {
            return Ok((None, null()?));
        }
        let (reader, writer) = io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok((Some(Box::pin(reader) as Output), writer.into()))
    };
    let (stdin, input) = if options.stdin {
        let (reader, writer) = io::pipe()?;
        let writer = pipe::Sender::from_owned_fd(writer.into())?;
        (Some(Box::pin(writer) as Input), reader.into())
    } else {
        (None, null()?)
    };
    let (stdout, out) = output(options.stdout)?;
    let (stderr, error) = output(options.stderr)?;
    Ok((Ends { stdin, stdout, stderr }, [input, out, error]))
}

/// The master side of a terminal.
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), &mut *unfilled)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The other side is closed by the last process that had it.
                Ok(Err(error))
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The end of a terminal's input is a character, which a client types.
    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
