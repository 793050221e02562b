//! openraft's `AsyncRuntime` over the executor: how the store runs in virtual time.
//!
//! The trait's functions are static, so they act on the simulation of this thread and on the life of the task that calls
//! them: what a task spawns lives and dies with its node, and what it reads as time is its node's clock.
//!
//! The channels are ours. tokio's `watch` wakes its receivers in an order drawn from an unseeded generator.

mod instant;
mod join;
mod mpsc;
mod oneshot;
mod sleep;
mod watch;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::rt::AsyncRuntime;
use rand::TryRng;

use crate::executor::{self, Executor};

pub use instant::SimInstant;
pub use join::{JoinError, JoinHandle, join_in, spawn, spawn_in};
pub use mpsc::SimMpsc;
pub use oneshot::SimOneshot;
pub use sleep::{Elapsed, Sleep, Timeout};
pub use watch::SimWatch;

/// The simulated runtime. Its value is only needed by openraft's own test suite; the cluster uses the static side.
pub struct SimRuntime {
    executor: Executor,
}

impl std::fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimRuntime").finish_non_exhaustive()
    }
}

/// Draws from the simulation of this thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimRng;

impl TryRng for SimRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((executor::with(|core| core.random()) >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(executor::with(|core| core.random()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        executor::with(|core| core.fill(bytes));
        Ok(())
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SimRng;
    type Mpsc = SimMpsc;
    type Watch = SimWatch;
    type Oneshot = SimOneshot;
    type Mutex<T: OptionalSend + 'static> = SimMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        join::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Sleep::after(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout::new(future, Sleep::after(duration))
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Timeout::new(future, Sleep::until(deadline))
    }

    fn is_panic(_: &Self::JoinError) -> bool {
        // A panic in simulated code ends the run: it is a finding, not something to supervise.
        false
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRng
    }

    fn new(threads: usize) -> Self {
        Self { executor: Executor::new(threads as u64) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.executor.block_on(future)
    }

    async fn spawn_blocking<F, T>(f: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Ok(f())
    }
}

/// An async mutex; waiters are woken in order of arrival.
pub struct SimMutex<T>(futures::lock::Mutex<T>);

impl<T: OptionalSend + 'static> openraft::rt::Mutex<T> for SimMutex<T> {
    type Guard<'a> = futures::lock::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(futures::lock::Mutex::new(value))
    }

    fn lock(&self) -> impl Future<Output = Self::Guard<'_>> + OptionalSend {
        self.0.lock()
    }
}
