//! The store's `Transport` on the simulated network.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use podium_store::{MemberId, Message, Transport, TransportError};

use super::{Lost, Network, Work};

/// What a node's store does with a message that arrives.
pub type Serve = Arc<dyn Fn(MemberId, Message) -> BoxFuture<'static, Message> + Send + Sync>;

/// Finds the store that runs on a node now.
pub type Stores = Arc<dyn Fn(u16) -> Option<Serve> + Send + Sync>;

/// The member id of a node.
#[must_use]
pub fn member_of(node: u16) -> MemberId {
    MemberId(0x1000_0000_0000_0000 | u64::from(node))
}

/// The node of a member id.
#[must_use]
pub fn node_of(member: MemberId) -> u16 {
    u16::try_from(member.0 & 0xffff).unwrap_or(0)
}

/// One node's way to the others.
#[derive(Clone)]
pub struct NodeTransport {
    network: Network,
    node: u16,
    stores: Stores,
}

impl NodeTransport {
    /// The transport of `node`.
    #[must_use]
    pub fn new(network: Network, node: u16, stores: Stores) -> Self {
        Self { network, node, stores }
    }
}

impl fmt::Debug for NodeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeTransport({})", self.node)
    }
}

impl Transport for NodeTransport {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        let (network, from, stores) = (self.network.clone(), self.node, self.stores.clone());
        let target = node_of(to);
        let work: Work<Option<Message>> = Arc::new(move || {
            let serve = stores(target);
            let message = message.clone();
            Box::pin(async move {
                match serve {
                    Some(serve) => Some(serve(member_of(from), message).await),
                    None => None,
                }
            })
        });
        Box::pin(async move {
            match network.exchange(from, target, work).await {
                Ok(Some(reply)) => Ok(reply),
                Ok(None) | Err(Lost::Refused) => {
                    Err(TransportError::Unreachable { to, reason: "connection refused".into() })
                }
                Err(Lost::Broken) => {
                    Err(TransportError::Broken { to, reason: "connection reset".into() })
                }
            }
        })
    }
}
