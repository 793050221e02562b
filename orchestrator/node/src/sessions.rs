//! Sessions of other nodes: known by their keys, and given to the part that they are for.

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_api::Pipeline;
use podium_api::streams::PodStreams;
use podium_peer::{Protocol, Session};
use tokio::sync::watch;

use crate::directory::Directory;
use crate::form::NodeSessions;
use crate::heartbeat::{self, Board};
use crate::streams;
use crate::worker;

/// What a node serves to other nodes.
pub(crate) struct Sessions {
    /// Whose key is whose.
    pub(crate) directory: watch::Receiver<Directory>,
    /// For the calls of nodes without a replica; none on such a node.
    pub(crate) pipeline: Option<Pipeline>,
    /// For their beats.
    pub(crate) board: Arc<Board>,
    /// The containers of this node.
    pub(crate) streams: Arc<dyn PodStreams>,
}

impl Sessions {
    fn name_of(&self, key: &[u8]) -> Option<String> {
        let directory = self.directory.borrow();
        directory.iter().find(|(_, entry)| entry.key == key).map(|(name, _)| name.clone())
    }
}

impl NodeSessions for Sessions {
    fn knows(&self, key: &[u8]) -> bool {
        !key.is_empty() && self.name_of(key).is_some()
    }

    fn serve(&self, protocol: Protocol, session: Session) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(node) = self.name_of(&session.key) else { return };
            let ended = match protocol {
                Protocol::Beat => heartbeat::serve(session.stream, &node, &self.board)
                    .await
                    .map_err(|error| error.to_string()),
                Protocol::Node => match &self.pipeline {
                    Some(pipeline) => worker::serve(session.stream, pipeline, &node)
                        .await
                        .map_err(|error| error.to_string()),
                    None => Err("this node is no voter".to_owned()),
                },
                Protocol::Streams => streams::serve::serve(session.stream, &*self.streams)
                    .await
                    .map_err(|error| error.to_string()),
                // These are the peers' own.
                Protocol::Meet | Protocol::Store => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%node, ?protocol, %error, "a session of another node ended");
            }
        })
    }
}
