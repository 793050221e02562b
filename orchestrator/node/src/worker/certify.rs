//! The node's side of its certificate: asks a voter for it.

use podium_peer::frame::{self, FrameError};

use super::Dial;
use super::wire::{Answer, Ask, FRAME_BYTES, PATIENCE};

/// Why a voter gave none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCertificate {
    #[error("no voter answers: {0}")]
    Unreachable(String),
    #[error("the voter does not answer")]
    Silent(#[from] FrameError),
    #[error("the voter refuses: {0}")]
    Refused(String),
    #[error("the voter answers to something else")]
    Unexpected,
}

/// A certificate, in PEM, for the key that has signed the request. Each time another voter's turn comes.
pub(crate) async fn certify(dial: &dyn Dial, request: Vec<u8>) -> Result<String, NoCertificate> {
    let mut session = dial.dial().await.map_err(NoCertificate::Unreachable)?;
    frame::say(&mut session, &Ask::Certify { request }, PATIENCE).await?;
    match frame::hear(&mut session, FRAME_BYTES, PATIENCE).await? {
        Answer::Certified(certificate) => Ok(certificate),
        Answer::Refused { message, .. } => Err(NoCertificate::Refused(message)),
        Answer::Object(_) | Answer::Done { .. } => Err(NoCertificate::Unexpected),
    }
}
