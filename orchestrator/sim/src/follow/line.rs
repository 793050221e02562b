//! A connection in one direction: what is said is heard in the order in which it was said, or the connection breaks.
//!
//! The network below may lose, delay and cut; what is lost is sent again for a while, as TCP does. Few messages are under way at
//! a time: who is not heard has to wait. That the other end is gone is learnt when something is said, or never.

use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};

use crate::executor::{self, Life};
use crate::network::Network;
use crate::runtime::{Sleep, spawn_in};

/// How many messages wait at each end, beside one in the hand of each.
const WINDOW: usize = 2;
/// Before a lost message is sent again, and how often it is.
const AGAIN: Duration = Duration::from_millis(400);
const TRIES: usize = 20;
/// A connection that broke is quiet for those who listen: they find out by themselves.
const QUIET: Duration = Duration::from_secs(60);

/// The end that speaks.
pub(super) struct Talker<T>(mpsc::Sender<T>);

/// The end that listens.
pub(super) struct Listener<T>(mpsc::Receiver<T>);

struct Line<T> {
    network: Network,
    from: u16,
    to: u16,
    said: mpsc::Receiver<T>,
    heard: mpsc::Sender<T>,
}

/// A connection between two nodes.
pub(super) fn open<T: Send + 'static>(
    network: &Network,
    from: u16,
    to: u16,
) -> (Talker<T>, Listener<T>) {
    let (talker, said) = mpsc::channel(WINDOW);
    let (heard, listener) = mpsc::channel(WINDOW);
    let line = Line { network: network.clone(), from, to, said, heard };
    drop(spawn_in(Life::HARNESS, line.carry()));
    (Talker(talker), Listener(listener))
}

impl<T> Talker<T> {
    /// Waits until there is room; false if the connection broke.
    pub(super) async fn say(&mut self, message: T) -> bool {
        self.0.send(message).await.is_ok()
    }
}

impl<T> Listener<T> {
    /// The next message; `None` when the connection was closed.
    pub(super) async fn hear(&mut self) -> Option<T> {
        self.0.next().await
    }
}

impl<T: Send> Line<T> {
    async fn carry(mut self) {
        while let Some(message) = self.said.next().await {
            if !self.arrives().await {
                self.said.close();
                drop(self.said);
                return Sleep::after(QUIET).await;
            }
            if self.heard.send(message).await.is_err() {
                return;
            }
        }
        // A program that ends says so; a machine that loses power does not.
        if executor::with(|core| core.one_in(2)) || !self.arrives().await {
            Sleep::after(QUIET).await;
        }
    }

    async fn arrives(&self) -> bool {
        for _ in 0..TRIES {
            if self.network.carries(self.from, self.to).await {
                return true;
            }
            Sleep::after(AGAIN).await;
        }
        false
    }
}
