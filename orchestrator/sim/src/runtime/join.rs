//! Spawning, and waiting for what was spawned.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot;

use crate::executor::{self, Life};

/// The task was dropped before it ended: its node crashed.
#[derive(Debug, thiserror::Error)]
#[error("the task's node crashed")]
pub struct JoinError;

/// The output of a spawned task. Dropping the handle lets the task run on.
#[derive(Debug)]
pub struct JoinHandle<T>(oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|_| JoinError)
    }
}

/// Starts `future` as a task of the calling task's life.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_in(executor::with(|core| core.current()), future)
}

/// Starts `future` as a task of `life`.
pub fn spawn_in<F>(life: Life, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let task = async move {
        let output = future.await;
        drop(sender.send(output));
    };
    executor::with(|core| core.spawn(life, Box::pin(task)));
    JoinHandle(receiver)
}

/// Runs `future` as a task of `life` and waits for its end, whichever way it comes.
pub async fn join_in<F>(life: Life, future: F)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    drop(spawn_in(life, future).await);
}
