//! The node's side: keeps its mirror up to date from whichever voter answers.

use std::sync::Arc;

use podium_api::share::RETRY;
use podium_peer::frame;
use podium_store::{Intake, Mirror};

use super::wire::{Ask, FRAME_BYTES, News, PATIENCE};
use super::{Dial, Session};

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
    let mut intake = Intake::new(mirror.clone());
    loop {
        let news: News = match frame::hear(&mut session, FRAME_BYTES, PATIENCE).await {
            Ok(news) => news,
            Err(error) => return error.to_string(),
        };
        match news.of_share() {
            Ok(news) => {
                if let Err(error) = intake.take(news) {
                    return error.to_string();
                }
            }
            Err(keys) => voters(keys),
        }
    }
}
