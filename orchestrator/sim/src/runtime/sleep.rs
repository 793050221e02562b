//! Waiting in virtual time, measured by the calling node's clock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::SimInstant;
use crate::executor::{self, TimerKey};

/// Done when the deadline is reached.
#[derive(Debug)]
pub struct Sleep {
    /// In virtual time, not the node's.
    deadline: Duration,
    timer: Option<(u64, TimerKey)>,
}

impl Sleep {
    /// After `span` of the calling node's clock.
    #[must_use]
    pub fn after(span: Duration) -> Self {
        let deadline = executor::with(|core| {
            let span = core.clock(core.current().node, |clock| clock.virtual_span(span));
            core.now().saturating_add(span)
        });
        Self { deadline, timer: None }
    }

    /// When the calling node's clock reads `deadline`.
    #[must_use]
    pub fn until(deadline: SimInstant) -> Self {
        Self::after(deadline - <SimInstant as openraft::rt::Instant>::now())
    }

    fn clear(&mut self) {
        if let Some((simulation, key)) = self.timer.take() {
            executor::try_with(|core| {
                if core.id() == simulation {
                    core.clear_timer(key);
                }
            });
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        executor::with(|core| {
            if core.now() >= self.deadline {
                self.clear();
                return Poll::Ready(());
            }
            let waiting = self.timer.is_some_and(|(_, key)| core.renew_timer(key, context.waker()));
            if !waiting {
                self.timer =
                    Some((core.id(), core.set_timer(self.deadline, context.waker().clone())));
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The deadline passed first.
#[derive(Debug, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// A future with a deadline. The future is asked first.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F> Timeout<F> {
    pub(super) fn new(future: F, sleep: Sleep) -> Self {
        Self { future: Box::pin(future), sleep }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}
