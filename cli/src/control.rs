//! How `podium up`, `down` and `status` talk to the process that owns a rig.
//!
//! One JSON value per line on a unix socket: the client sends one [`Request`], the supervisor answers with [`Event`]s and
//! closes. The cluster's folder holds a link to the socket, which itself has a short path (unix(7) allows 107 bytes).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use podium_qemu_tests::fault::Fault;
use podium_qemu_tests::links::End;
use serde::{Deserialize, Serialize};

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Request {
    /// Tell the progress until the cluster is ready. If this client goes away before, the cluster is taken down.
    Follow,
    /// What there is.
    Status,
    /// Do something to machines or links.
    Fault(Fault),
    /// Capture what passes between `between`, or between all.
    Capture {
        /// Machines and the host.
        between: Vec<End>,
    },
    /// End a capture and write it.
    EndCapture {
        /// Which.
        id: u64,
        /// The file, by its absolute path.
        out: PathBuf,
    },
    /// Take everything down, by power button or by cutting the power, and end.
    Down {
        /// Cut the power.
        force: bool,
    },
}

/// What the supervisor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Event {
    /// Something happened, so many seconds after the start.
    Progress {
        /// Since the supervisor's start.
        seconds: f64,
        /// For the operator.
        text: String,
    },
    /// All nodes are ready.
    Ready {
        /// Since the supervisor's start.
        seconds: f64,
        /// Where the administrator's kubeconfig is.
        kubeconfig: PathBuf,
        /// What each machine's boot took.
        phases: String,
    },
    /// The answer to [`Request::Status`].
    Status(RigStatus),
    /// The answer to [`Request::Fault`].
    Done,
    /// The answer to [`Request::Capture`].
    Capturing {
        /// To end it by.
        id: u64,
    },
    /// The answer to [`Request::EndCapture`].
    Captured {
        /// How many frames are in the file.
        frames: usize,
        /// How many there was no room for.
        missed: u64,
    },
    /// The answer to [`Request::Down`]: the supervisor ends now.
    Down,
    /// What was asked did not work.
    Failed(String),
}

/// A rig.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RigStatus {
    /// Its machines.
    pub(crate) machines: Vec<MachineStatus>,
    /// The links that are not good, in words.
    pub(crate) links: Vec<String>,
    /// The cluster's API on the host, at whichever machine answers.
    pub(crate) api: std::net::SocketAddr,
}

/// One machine of a rig.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MachineStatus {
    /// Its name: n1, n2…
    pub(crate) name: String,
    /// Whether it runs.
    pub(crate) on: bool,
    /// Whether it is on and paused.
    pub(crate) paused: bool,
    /// On the rig's LAN.
    pub(crate) address: std::net::Ipv4Addr,
    /// Its API, from the host.
    pub(crate) api: std::net::SocketAddr,
    /// QEMU's process.
    pub(crate) process: Option<u32>,
    /// What its node said last on the console.
    pub(crate) report: Option<String>,
}

/// The link to a cluster's control socket.
pub(crate) fn link(cluster: &Path) -> PathBuf {
    cluster.join("control")
}

/// A connection to the process that owns a cluster.
#[derive(Debug)]
pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects to the owner of the cluster in `cluster`; `None` if nothing runs.
    pub(crate) fn open(cluster: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(socket) = std::fs::read_link(link(cluster)) else { return Ok(None) };
        match UnixStream::connect(&socket) {
            Ok(stream) => Ok(Some(Self::new(stream))),
            // Its owner was killed: the link is all that is left.
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("connect to {}", socket.display())),
        }
    }

    /// A connection over an accepted stream.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends one value.
    pub(crate) fn send(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(value)?;
        line.push('\n');
        Ok(self.0.get_mut().write_all(line.as_bytes())?)
    }

    /// The next value, or `None` when the other side has ended.
    pub(crate) fn receive<T: for<'a> Deserialize<'a>>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }

    /// The next event; the other side's failure, or its sudden end, is an error.
    pub(crate) fn event(&mut self) -> anyhow::Result<Event> {
        match self.receive()? {
            Some(Event::Failed(why)) => bail!(why),
            Some(event) => Ok(event),
            None => bail!(
                "the cluster's supervisor has ended; see supervisor.log in the cluster's folder"
            ),
        }
    }

    /// The stream, to wait on.
    pub(crate) fn stream(&self) -> &UnixStream {
        self.0.get_ref()
    }
}
