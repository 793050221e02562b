//! The store's `Transport` on the simulated network.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use podium_store::{MemberId, Message, Transport, TransportError};

use super::{Lost, Network, Work};

/// What a node's store does with a message that arrives.
pub type Serve = Arc<dyn Fn(MemberId, Message) -> BoxFuture<'static, Message> + Send + Sync>;

/// Finds the store of a member, if it runs now.
pub type Stores = Arc<dyn Fn(MemberId) -> Option<Serve> + Send + Sync>;

/// The member id of a node with its first disk, or after so many new ones.
#[must_use]
pub fn member_of(node: u16, generation: u16) -> MemberId {
    MemberId(0x1000_0000_0000_0000 | u64::from(generation) << 16 | u64::from(node))
}

/// How many new disks the node of a member id had before it.
#[must_use]
pub fn generation_of(member: MemberId) -> u16 {
    u16::try_from(member.0 >> 16 & 0xffff).unwrap_or(0)
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
    member: MemberId,
    stores: Stores,
}

impl NodeTransport {
    /// The transport of a member.
    #[must_use]
    pub fn new(network: Network, member: MemberId, stores: Stores) -> Self {
        Self { network, member, stores }
    }
}

impl fmt::Debug for NodeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeTransport({})", self.member)
    }
}

impl Transport for NodeTransport {
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        let (network, from, stores) = (self.network.clone(), self.member, self.stores.clone());
        let work: Work<Option<Message>> = Arc::new(move || {
            let serve = stores(to);
            let message = message.clone();
            Box::pin(async move {
                match serve {
                    Some(serve) => Some(serve(from, message).await),
                    None => None,
                }
            })
        });
        Box::pin(async move {
            match network.exchange(node_of(from), node_of(to), work).await {
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
