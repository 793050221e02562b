//! What an operator asks of machines that are in no cluster yet.
//!
//! Whoever has the token may: it is what proves to a machine that another belongs to its cluster, and there is nobody yet who
//! could know an administrator. The operator's end has a key of its own for the occasion, which nobody remembers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use podium_control::forming::Fingerprint;
use tokio::time::timeout;

use crate::frame::{self, FrameError};
use crate::identity::{IdentityError, NodeKey};
use crate::meet::{FRAME_BYTES, Reply, ReplyV1, Request, RequestV1};
use crate::pace::Pace;
use crate::proof::{ProofError, Side, TokenKeys, exchange};
use crate::tls::{Protocol, Secured, Tls};

/// What the operator is called in the machines' logs.
const NAME: &str = "operator";

/// Why machines were not told.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is no randomness, mostly.
    #[error("make a key")]
    Key(#[from] IdentityError),
    /// TLS could not be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// Nobody listens there.
    #[error("{address} does not answer")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the kernel said; nothing if nobody said anything.
        #[source]
        source: Option<std::io::Error>,
    },
    /// It belongs to another cluster.
    #[error("{address} ({name}) has another token")]
    AnotherToken {
        /// Where.
        address: SocketAddr,
        /// What it is called, as it says.
        name: String,
    },
    /// The conversation broke off.
    #[error("{address} ended the conversation")]
    Broken {
        /// Where.
        address: SocketAddr,
        /// How.
        #[source]
        source: FrameError,
    },
    /// Two addresses lead to one machine.
    #[error("{first} and {second} are one machine ({name})")]
    Same {
        /// One.
        first: SocketAddr,
        /// The other.
        second: SocketAddr,
        /// What it is called.
        name: String,
    },
    /// A machine does not do it. Those before it were told, and wait for it until they are told otherwise.
    #[error("{name}: {reason}")]
    Refused {
        /// Which.
        name: String,
        /// Its words.
        reason: String,
    },
    /// It speaks another language.
    #[error("{address} answers something else")]
    Mismatch {
        /// Where.
        address: SocketAddr,
    },
}

struct Met {
    address: SocketAddr,
    name: String,
    session: Secured,
}

/// Has exactly the machines at these addresses form a cluster, though their config expects more; gives their names. The
/// cluster is not formed yet when this returns: the machines do that by themselves, if they see each other.
///
/// # Errors
/// The first thing that went wrong. Nobody is told anything before all have answered.
pub async fn form(
    token: &[u8],
    addresses: &[SocketAddr],
    pace: Pace,
) -> Result<Vec<String>, OperatorError> {
    let key = NodeKey::from_pkcs8(&NodeKey::generate()?)?;
    let tls = Tls::new(&key, pace.patience)?;
    let tokens = TokenKeys::new(token);
    let mut machines: BTreeMap<Fingerprint, Met> = BTreeMap::new();
    for address in addresses.iter().copied() {
        let mut session = connect(&tls, address, &pace).await?;
        let me = (key.fingerprint(), NAME);
        let proven = exchange(&mut session, Side::Client, &tokens, me, &pace).await;
        let name = proven.map_err(|error| match error {
            ProofError::AnotherToken { name } => OperatorError::AnotherToken { address, name },
            ProofError::Frame(source) => OperatorError::Broken { address, source },
        })?;
        let key = session.fingerprint;
        if let Some(first) = machines.insert(key, Met { address, name: name.clone(), session }) {
            return Err(OperatorError::Same { first: first.address, second: address, name });
        }
    }
    let only = machines.keys().copied().collect();
    let request = Request::V1(RequestV1::Narrow(only));
    for Met { address, name, session } in machines.values_mut() {
        let broken = |source| OperatorError::Broken { address: *address, source };
        frame::say(&mut session.stream, &request, pace.patience).await.map_err(broken)?;
        let answer = frame::hear(&mut session.stream, FRAME_BYTES, pace.patience).await;
        match answer.map_err(broken)? {
            Reply::V1(ReplyV1::Accepted) => {}
            Reply::V1(ReplyV1::Refused(reason)) => {
                return Err(OperatorError::Refused { name: name.clone(), reason });
            }
            Reply::V1(_) => return Err(OperatorError::Mismatch { address: *address }),
        }
    }
    Ok(machines.into_values().map(|met| met.name).collect())
}

async fn connect(tls: &Tls, address: SocketAddr, pace: &Pace) -> Result<Secured, OperatorError> {
    let silent = |source| OperatorError::Unreachable { address, source };
    let connected = timeout(pace.connect, tls.connect(address, Protocol::Meet)).await;
    connected.map_err(|_| silent(None))?.map_err(|error| silent(Some(error)))
}
