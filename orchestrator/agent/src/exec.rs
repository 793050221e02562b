//! Running a command in a container and keeping the beginning of what it prints, for probes and hooks.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::shim::{ExecStdio, Shim, ShimError};

/// What of a command's output is kept for an event, as in kubelet.
const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Its exit code.
    pub(crate) code: i32,
    /// The beginning of what it wrote to both streams.
    pub(crate) output: String,
}

/// Why a command could not be run.
#[derive(Debug, Error)]
pub(crate) enum CaptureError {
    /// The node lacks descriptors.
    #[error("cannot make a pipe")]
    Pipe(#[from] io::Error),
    /// The shim did not run it.
    #[error(transparent)]
    Shim(#[from] ShimError),
}

/// Runs a command to its end. Dropping the future kills it.
pub(crate) async fn capture(
    shim: &Shim,
    id: &str,
    command: Vec<String>,
) -> Result<Captured, CaptureError> {
    let (output, stdio) = output_pipe()?;
    let (exec, _) = shim.exec(id, command, ExecStdio::Streams(stdio)).await?;
    let (exit, output) = tokio::join!(exec.wait(), read_start(output));
    Ok(Captured { code: exit?.code, output: String::from_utf8_lossy(&output).into_owned() })
}

/// Standard streams of which both outputs lead into one pipe.
fn output_pipe() -> io::Result<(pipe::Receiver, [OwnedFd; 3])> {
    let (reader, writer) = io::pipe()?;
    let second = writer.try_clone()?;
    let null: OwnedFd = File::open("/dev/null")?.into();
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, [null, writer.into(), second.into()]))
}

/// Reads to the end, and keeps the beginning.
async fn read_start(mut output: pipe::Receiver) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count) = output.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
    }
    kept
}
