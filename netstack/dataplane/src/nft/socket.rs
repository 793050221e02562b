//! Sending a transaction and reading what the kernel holds.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::message::{Batch, received};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel answers with at most this much at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Why the kernel did not take a transaction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    #[error("talk to nf_tables")]
    Io(#[source] io::Error),
    #[error("nf_tables refuses message {message} of a transaction")]
    Refused {
        message: u32,
        #[source]
        source: io::Error,
    },
}

/// A connection to nf_tables of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct NftSocket(Socket);

impl NftSocket {
    pub(crate) fn open() -> Result<Self, NftError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NftError::Io)?;
        socket.bind_auto().map_err(NftError::Io)?;
        // A transaction is one datagram; thousands of services need more than the default buffer. Without the privilege the
        // default has to do, and a too large transaction says so by itself.
        let _ = nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::SndBufForce,
            &(32 << 20),
        );
        Ok(Self(socket))
    }

    /// Applies a transaction, whole or not at all.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), NftError> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, last) = batch.finish();
        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0).map_err(NftError::Io)?;
        let mut first_refusal = None;
        loop {
            let datagram = self.receive()?;
            for message in received(&datagram).filter(|message| message.kind == NLMSG_ERROR) {
                let code = message.payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                if code != 0 && first_refusal.is_none() {
                    let source = io::Error::from_raw_os_error(-code);
                    first_refusal = Some(NftError::Refused { message: message.sequence, source });
                }
                // 1 is the transaction as a whole; after that, nothing more comes.
                if message.sequence == last || (message.sequence == 1 && code != 0) {
                    return first_refusal.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// The payloads (after the nfgenmsg) of all messages of a dump. A thing that is not there is an empty dump.
    pub(crate) fn dump(&self, request: &[u8]) -> Result<Vec<Vec<u8>>, NftError> {
        self.0.send_to(request, &SocketAddr::new(0, 0), 0).map_err(NftError::Io)?;
        let mut all = Vec::new();
        loop {
            let datagram = self.receive()?;
            for message in received(&datagram) {
                match message.kind {
                    NLMSG_DONE => return Ok(all),
                    NLMSG_ERROR => {
                        let code =
                            message.payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
                        let error = io::Error::from_raw_os_error(-code);
                        return if error.kind() == io::ErrorKind::NotFound {
                            Ok(all)
                        } else {
                            Err(NftError::Io(error))
                        };
                    }
                    _ => all.push(message.payload.get(4..).unwrap_or_default().to_vec()),
                }
            }
        }
    }

    fn receive(&self) -> Result<Vec<u8>, NftError> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.0.recv(&mut buffer, 0).map_err(NftError::Io)?;
        Ok(buffer)
    }
}
