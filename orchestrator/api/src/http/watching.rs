//! A watch on the wire: one line of JSON per event, for as long as the client wants.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use podium_types::Kind;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::reply::{self, Reply};
use super::shape::View;
use crate::pipeline::{WatchEvent, Watcher};
use crate::seams::Clock;
use crate::status::Status;

/// How often a client that takes bookmarks gets one. Kubernetes sends one a minute; a client that comes back after a cut
/// has at most this much to see again.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a time of its own ends after this, so that clients spread over servers again. Kubernetes: 30 to 60 minutes.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// What a watch needs on its way.
struct Watching {
    watcher: Watcher,
    view: View,
    kind: Kind,
    clock: std::sync::Arc<dyn Clock>,
    first: bool,
    /// For clients that take them.
    next_bookmark: Option<Instant>,
    deadline: Instant,
    closing: watch::Receiver<bool>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Running,
    Ended,
}

/// What a watch is to look like.
pub(super) struct Wanted {
    pub(super) view: View,
    pub(super) kind: Kind,
    pub(super) bookmarks: bool,
    pub(super) timeout: Duration,
}

/// The answer that goes on.
pub(super) fn reply(
    watcher: Watcher,
    wanted: Wanted,
    clock: std::sync::Arc<dyn Clock>,
    closing: watch::Receiver<bool>,
) -> Reply {
    let now = Instant::now();
    let watching = Watching {
        watcher,
        view: wanted.view,
        kind: wanted.kind,
        clock,
        first: true,
        next_bookmark: wanted.bookmarks.then(|| now + BOOKMARK_EVERY),
        deadline: now + wanted.timeout,
        closing,
        state: State::Running,
    };
    reply::json_stream(lines(watching))
}

fn lines(watching: Watching) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((line, watching))
    })
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        if self.state == State::Ended {
            return None;
        }
        loop {
            if Instant::now() >= self.deadline {
                return self.last();
            }
            // Events first: a bookmark must not overtake one.
            tokio::select! {
                biased;
                event = self.watcher.next() => return Some(match event {
                    Ok(event) => self.line(&event),
                    Err(status) => self.error(&status),
                }),
                () = closed(&mut self.closing) => {
                    self.state = State::Ended;
                    return None;
                }
                () = sleep_until(self.deadline) => return self.last(),
                () = at(self.next_bookmark) => {
                    self.next_bookmark = Some(Instant::now() + BOOKMARK_EVERY);
                    if let Some(bookmark) = self.watcher.bookmark() {
                        return Some(self.line(&bookmark));
                    }
                }
            }
        }
    }

    /// The time is over: a client that takes bookmarks learns how far it has come.
    fn last(&mut self) -> Option<Bytes> {
        self.state = State::Ended;
        let bookmark = self.next_bookmark.and_then(|_| self.watcher.bookmark())?;
        Some(self.line(&bookmark))
    }

    fn line(&mut self, event: &WatchEvent) -> Bytes {
        self.view.now = self.clock.now().wall;
        let object = self.view.event_object(self.kind, &event.object, self.first);
        self.first = false;
        framed(event.kind.as_str(), &object)
    }

    fn error(&mut self, status: &Status) -> Bytes {
        self.state = State::Ended;
        framed("ERROR", status.to_json().to_string().as_bytes())
    }
}

fn framed(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 40);
    line.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

/// Waits until the server closes its streams.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which closes its streams too.
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
