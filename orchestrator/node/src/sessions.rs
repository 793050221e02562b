//! Sessions of other machines: known by their keys, and given to the part that they are for, if they may have it.
//!
//! | protocol | who | as whom |
//! |---|---|---|
//! | `podium-beat/1` | every node | itself; only a voter is believed about others |
//! | `podium-node/1` | every node, of a voter | itself: `system:node:<name>` |
//! | `podium-streams/1` | voters | the cluster: whoever may ask was asked by the voter's API |
//!
//! A node is who has the key in its Machine, which no node can change; a voter is who has a voter's key ([`Voters`]). A
//! session ends when that is no longer so.

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_api::streams::PodStreams;
use podium_peer::{Protocol, Session};
use tokio::sync::watch;

use crate::directory::Directory;
use crate::form::NodeSessions;
use crate::heartbeat::{self, Board};
use crate::streams;
use crate::voters::Voters;
use crate::worker::{self, Desk, Visitor};

/// What a node serves to other nodes.
pub(crate) struct Sessions {
    /// Whose key is whose.
    pub(crate) directory: watch::Receiver<Directory>,
    /// Whom to take for a voter.
    pub(crate) voters: Voters,
    /// For the calls of nodes without a replica; none on such a node.
    pub(crate) desk: Option<Desk>,
    /// For their beats.
    pub(crate) board: Arc<Board>,
    /// The containers of this node.
    pub(crate) streams: Arc<dyn PodStreams>,
}

/// What a session is let in for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// Beats of the node of this name.
    Beats { node: String, votes: bool },
    /// What the node of this name asks of a voter.
    Calls { node: String },
    /// Streams of pods here, for a voter.
    Streams,
}

/// Why a session is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("it is no node of this cluster")]
    Stranger,
    #[error("it asks for the streams of pods here, and does not vote")]
    NoVoter,
    #[error("this protocol is not for nodes")]
    Another,
}

/// Decides what the machine with this key may speak.
fn purpose(
    protocol: Protocol,
    key: &[u8],
    directory: &Directory,
    voters: &Voters,
) -> Result<Purpose, Refused> {
    let node = || {
        let known = directory.iter().find(|(_, entry)| !key.is_empty() && entry.key == key);
        known.map(|(name, _)| name.clone()).ok_or(Refused::Stranger)
    };
    match protocol {
        Protocol::Beat => Ok(Purpose::Beats { node: node()?, votes: voters.has(key) }),
        Protocol::Node => Ok(Purpose::Calls { node: node()? }),
        // It may come before this node knows the Machines.
        Protocol::Streams if voters.has(key) => Ok(Purpose::Streams),
        Protocol::Streams => Err(Refused::NoVoter),
        // The peers' own.
        Protocol::Meet | Protocol::Store => Err(Refused::Another),
    }
}

impl Sessions {
    fn purpose(&self, protocol: Protocol, key: &[u8]) -> Result<Purpose, Refused> {
        purpose(protocol, key, &self.directory.borrow(), &self.voters)
    }

    async fn serve_for(&self, purpose: Purpose, session: Session) -> Result<(), String> {
        match purpose {
            Purpose::Beats { node, votes } => {
                let served = heartbeat::serve(session.stream, &node, votes, &self.board).await;
                served.map_err(|error| error.to_string())
            }
            Purpose::Calls { node } => {
                let Some(desk) = &self.desk else { return Err("this node is no voter".to_owned()) };
                let address = Some(session.remote.ip().to_canonical());
                let visitor = Visitor { node, key: session.key, address };
                let served = worker::serve(session.stream, desk, &visitor).await;
                served.map_err(|error| error.to_string())
            }
            Purpose::Streams => {
                let served = streams::serve::serve(session.stream, &*self.streams).await;
                served.map_err(|error| error.to_string())
            }
        }
    }

    /// Returns when the machine may no longer have what it was let in for.
    async fn revoked(&self, protocol: Protocol, key: &[u8], given: &Purpose) {
        let (mut directory, mut voters) = (self.directory.clone(), self.voters.subscribe());
        while self.purpose(protocol, key).as_ref() == Ok(given) {
            tokio::select! {
                Ok(()) = directory.changed() => {}
                Ok(()) = voters.changed() => {}
                // Nothing changes any more: this node ends.
                else => return,
            }
        }
    }
}

impl NodeSessions for Sessions {
    fn knows(&self, key: &[u8]) -> bool {
        self.voters.has(key) || self.purpose(Protocol::Node, key).is_ok()
    }

    fn serve(&self, protocol: Protocol, session: Session) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (key, remote) = (session.key.clone(), session.remote);
            let fingerprint = session.fingerprint;
            let purpose = match self.purpose(protocol, &key) {
                Ok(purpose) => purpose,
                Err(reason) => {
                    return tracing::warn!(%remote, key = %fingerprint, "a machine is refused: {reason}");
                }
            };
            let ended = tokio::select! {
                ended = self.serve_for(purpose.clone(), session) => ended,
                () = self.revoked(protocol, &key, &purpose) => Err("it may not speak any more".to_owned()),
            };
            if let Err(error) = ended {
                tracing::debug!(%remote, key = %fingerprint, ?protocol, %error, "a session of another node ended");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Entry;

    /// n1 (key 1) votes; n4 (key 4) does not, and says that it does; n5 has no key yet.
    fn known() -> (Directory, Voters) {
        let entry = |key: &[u8], voter| Entry { key: key.to_vec(), voter, ..Entry::default() };
        let directory = Directory::from([
            ("n1".to_owned(), entry(&[1], true)),
            ("n4".to_owned(), entry(&[4], true)),
            ("n5".to_owned(), entry(&[], false)),
        ]);
        (directory, Voters::new([vec![1], vec![9]]))
    }

    fn asks(protocol: Protocol, key: &[u8]) -> Result<Purpose, Refused> {
        let (directory, voters) = known();
        purpose(protocol, key, &directory, &voters)
    }

    #[test]
    fn only_voters_get_the_streams_of_pods() {
        assert_eq!(asks(Protocol::Streams, &[1]), Ok(Purpose::Streams));
        assert_eq!(asks(Protocol::Streams, &[9]), Ok(Purpose::Streams), "its Machine comes later");
        for key in [[4].as_slice(), &[7], &[]] {
            assert_eq!(asks(Protocol::Streams, key), Err(Refused::NoVoter), "{key:?}");
        }
    }

    #[test]
    fn a_node_speaks_for_itself() {
        let node = || "n4".to_owned();
        assert_eq!(asks(Protocol::Node, &[4]), Ok(Purpose::Calls { node: node() }));
        let beats = Purpose::Beats { node: node(), votes: false };
        assert_eq!(asks(Protocol::Beat, &[4]), Ok(beats));
        let beats = Purpose::Beats { node: "n1".to_owned(), votes: true };
        assert_eq!(asks(Protocol::Beat, &[1]), Ok(beats));
    }

    #[test]
    fn who_is_no_machine_of_the_cluster_speaks_for_nobody() {
        for protocol in [Protocol::Node, Protocol::Beat] {
            for key in [[7].as_slice(), &[]] {
                assert_eq!(asks(protocol, key), Err(Refused::Stranger), "{key:?}");
            }
        }
        for protocol in [Protocol::Meet, Protocol::Store] {
            assert_eq!(asks(protocol, &[1]), Err(Refused::Another));
        }
    }
}
