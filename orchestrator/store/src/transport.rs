//! How members reach each other.
//!
//! The store makes and reads the bytes; a transport only carries them. It may lose, delay, repeat
//! and reorder what it carries: every message says all that is needed to judge it. It must not
//! alter them, and must know for certain who sent a message, because votes are counted by sender.
//!
//! On the receiving side the transport hands what arrives to [`crate::Store::serve`] and carries
//! the reply back.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::member::MemberId;

/// What a message is for. Transports may treat kinds differently (a snapshot should not delay a
/// heartbeat), and a simulator may lose one kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// Log records from a leader; without any it is a heartbeat.
    Append,
    /// A candidate asks for a vote, or whether it would get one.
    Vote,
    /// A part of a snapshot from a leader.
    Snapshot,
    /// A member asks the leader up to where it must have applied before it may answer a read.
    ReadIndex,
    /// A member passes a transaction, or a command of its own, on to the leader.
    Forward,
    /// A leader asks a member to take over.
    Transfer,
    /// The answer to any of them.
    Reply,
}

/// A message: its kind in the open, the rest as bytes that end with a checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: MessageKind,
    /// The whole message; the kind can be told from it, see [`Message::from_bytes`].
    pub bytes: Bytes,
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} ({} B)", self.kind, self.bytes.len())
    }
}

/// Why a message got no reply. Whether it arrived is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no way to the member at the moment; waiting a little before the next try is right.
    #[error("{to} cannot be reached: {reason}")]
    Unreachable {
        /// Who was meant.
        to: MemberId,
        /// What stood in the way.
        reason: String,
    },
    /// The way broke while the message was on it.
    #[error("the connection to {to} broke: {reason}")]
    Broken {
        /// Who was meant.
        to: MemberId,
        /// What happened.
        reason: String,
    },
}

/// Carries a message to a member and its reply back.
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Sends one message and waits for the reply. The store gives up on its own when it has waited
    /// long enough, by dropping the future.
    fn call(
        &self,
        to: MemberId,
        message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>>;
}

/// The transport of a member that has no others: nobody can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        to: MemberId,
        _message: Message,
    ) -> BoxFuture<'static, Result<Message, TransportError>> {
        Box::pin(async move {
            Err(TransportError::Unreachable { to, reason: "this member is alone".into() })
        })
    }
}
