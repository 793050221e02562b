//! Reading containers' logs: the files that shims write, for `kubectl logs`.
//!
//! A log is `<pod's log folder>/<container>/<attempt>.log` in the CRI's format, with older parts as `.1`, `.2` and so on.
//! Writing and rotating is the shim's work. A follower holds its file open, so a rotation under it loses nothing: when
//! the file is at its end and another one has its name, it goes on with the parts that came after.

pub(crate) mod entry;
mod files;
mod format;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, SeekFrom};
use tokio::sync::mpsc;

use files::Place;
use format::{Format, Progress};

/// How often a follower looks for more. A tenth of a second is below what a person at a terminal notices, and one
/// `read` that returns nothing is what it costs.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What of a log is wanted, and in which form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written later, until the container has ended.
    pub follow: bool,
    /// The log of the instance before the newest.
    pub previous: bool,
    /// Only entries of this time and later.
    pub since: Option<Timestamp>,
    /// Only this many entries from the end, and what follows.
    pub tail_lines: Option<u64>,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only what was written to this stream; both if not given.
    pub stream: Option<LogOrigin>,
}

/// Where an entry was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOrigin {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// This node does not have the pod.
    #[error("pod not found on this node")]
    NoPod,
    /// The pod has no such container.
    #[error("container {0} is not valid for pod {1}")]
    NoContainer(String, String),
    /// The container has not run yet; the text is its state's.
    #[error("container \"{0}\" in pod \"{1}\" is waiting to start: {2}")]
    NotStarted(String, String, String),
    /// There was no instance before, or its log is gone.
    #[error("previous terminated container \"{0}\" in pod \"{1}\" not found")]
    NoPrevious(String, String),
    /// The disk refused.
    #[error("cannot read the log {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// The bytes of a log as they become known. Dropping it ends the reading.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<Result<Bytes, LogError>>);

impl Stream for LogStream {
    type Item = Result<Bytes, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Opens a log; `ended` tells whether its container has ended, so that nothing more will be written.
pub(crate) fn open(
    log: PathBuf,
    options: LogOptions,
    ended: Arc<dyn Fn() -> bool + Send + Sync>,
) -> LogStream {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut reader =
            Reader { log, follow: options.follow, format: Format::new(&options), sender, ended };
        if let Err(error) = reader.run(options.tail_lines).await {
            // A reader that is gone needs no reason.
            let _gone = reader.sender.send(Err(error)).await;
        }
    });
    LogStream(receiver)
}

struct Reader {
    log: PathBuf,
    follow: bool,
    format: Format,
    sender: mpsc::Sender<Result<Bytes, LogError>>,
    ended: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Whether to go on.
enum Flow {
    On,
    Over,
}

impl Reader {
    async fn run(&mut self, tail: Option<u64>) -> Result<(), LogError> {
        let log = self.log.clone();
        let place = blocking(move || files::begin(&log, tail)).await.map_err(failed(&self.log))?;
        let Some(Place { mut path, mut offset }) = place else {
            return self.wait_for_the_first().await;
        };
        loop {
            let mut file = File::open(&path).await.map_err(failed(&path))?;
            file.seek(SeekFrom::Start(offset)).await.map_err(failed(&path))?;
            let identity = files::identity(&file.metadata().await.map_err(failed(&path))?);
            if let Flow::Over = self.copy(&mut file, identity).await? {
                return Ok(());
            }
            let log = self.log.clone();
            match blocking(move || files::after(&log, identity)).await.map_err(failed(&self.log))? {
                Some(next) => (path, offset) = (next, 0),
                None => return Ok(()),
            }
        }
    }

    /// The log has no file yet: a container without output, or one that is about to write.
    async fn wait_for_the_first(&mut self) -> Result<(), LogError> {
        while self.follow {
            if self.log.exists() {
                return Box::pin(self.run(None)).await;
            }
            if (self.ended)() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Copies a file to its end, and for a follower beyond, until another file has its name.
    async fn copy(&mut self, file: &mut File, identity: files::Identity) -> Result<Flow, LogError> {
        let mut buffer = vec![0; 64 << 10];
        let mut kept = Vec::new();
        loop {
            // Asked before the read: what was written before the end is read after the answer.
            let ended = (self.ended)();
            let replaced = files::is_replaced(&self.log, identity);
            let count = file.read(&mut buffer).await.map_err(failed(&self.log))?;
            if count > 0 {
                kept.extend_from_slice(buffer.get(..count).unwrap_or_default());
                if let Flow::Over = self.pass_on(&mut kept).await {
                    return Ok(Flow::Over);
                }
            } else if replaced {
                return Ok(Flow::On);
            } else if !self.follow || ended {
                return Ok(Flow::Over);
            } else {
                tokio::select! {
                    () = self.sender.closed() => return Ok(Flow::Over),
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        }
    }

    /// Sends the whole entries of what was read, and keeps the rest.
    async fn pass_on(&mut self, kept: &mut Vec<u8>) -> Flow {
        let Some(end) = kept.iter().rposition(|byte| *byte == b'\n') else { return Flow::On };
        let whole: Vec<u8> = kept.drain(..=end).collect();
        let mut out = Vec::with_capacity(whole.len());
        let progress = self.format.write(&whole, &mut out);
        if !out.is_empty() && self.sender.send(Ok(Bytes::from(out))).await.is_err() {
            return Flow::Over;
        }
        match progress {
            Progress::More => Flow::On,
            Progress::LimitReached => Flow::Over,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { path, source }
}

#[cfg(test)]
mod tests;
