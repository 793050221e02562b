//! The node's side: keeps its mirror up to date from whichever voter answers.

use std::sync::Arc;
use std::time::Duration;

use podium_peer::frame;
use podium_store::{Mirror, MirrorChange, Record, Revision};

use super::wire::{Ask, FRAME_BYTES, News, PATIENCE};
use super::{Dial, Session};

/// Between a session that broke and the next: another voter is there at once, and none is soon.
const RETRY: Duration = Duration::from_millis(500);

/// Follows for ever. What the mirror holds stays while no voter answers: pods go on. `voters` is told who votes.
pub(crate) async fn follow(
    dial: Arc<dyn Dial>,
    mirror: Mirror,
    mut voters: impl FnMut(Vec<Vec<u8>>) + Send,
) -> ! {
    loop {
        let ended = match dial.dial().await {
            Ok(session) => session_of(session, &mirror, &mut voters).await,
            Err(reason) => reason,
        };
        tracing::warn!(reason = %ended, "this node does not follow the cluster; its pods go on");
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows one voter; returns why that ended.
async fn session_of(
    mut session: impl Session,
    mirror: &Mirror,
    voters: &mut (impl FnMut(Vec<Vec<u8>>) + Send),
) -> String {
    if let Err(error) = frame::say(&mut session, &Ask::Follow, PATIENCE).await {
        return error.to_string();
    }
    let mut parts: Vec<Record> = Vec::new();
    let mut whole = false;
    loop {
        let news = match frame::hear(&mut session, FRAME_BYTES, PATIENCE).await {
            Ok(news) => news,
            Err(error) => return error.to_string(),
        };
        let taken = match news {
            News::Part(records) if !whole => {
                parts.extend(records.into_iter().map(Record::from));
                true
            }
            News::Whole { revision } if !whole => {
                whole = true;
                let records = std::mem::take(&mut parts);
                tracing::info!(records = records.len(), revision, "this node follows the cluster");
                mirror.reset(Revision(revision), records)
            }
            News::Changes { revision, changes } if whole => {
                let changes: Vec<MirrorChange> = changes.into_iter().map(Into::into).collect();
                mirror.apply(Revision(revision), changes)
            }
            News::Voters(keys) => {
                voters(keys);
                true
            }
            News::Part(_) | News::Whole { .. } | News::Changes { .. } => {
                return "the voter speaks out of turn".to_owned();
            }
        };
        if !taken {
            return "the voter is behind what this node has seen".to_owned();
        }
    }
}
