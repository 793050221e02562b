//! A bounded queue from many senders to one receiver.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};

use openraft::OptionalSend;
use openraft::rt::{Mpsc, MpscReceiver, MpscSender, MpscWeakSender, SendError, TryRecvError};

/// The bounded channel of the simulated runtime.
pub struct SimMpsc;

struct Queue<T> {
    items: VecDeque<T>,
    capacity: usize,
    receiver_gone: bool,
    senders_gone: bool,
    receiver: Option<Waker>,
    /// Senders that found the queue full. All are woken when room appears; those that lose the race wait again.
    senders: Vec<Waker>,
}

type Shared<T> = Arc<Mutex<Queue<T>>>;

fn lock<T>(shared: &Mutex<Queue<T>>) -> MutexGuard<'_, Queue<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exists as long as any sender does.
struct Alive<T>(Shared<T>);

impl<T> Drop for Alive<T> {
    fn drop(&mut self) {
        let waker = {
            let mut queue = lock(&self.0);
            queue.senders_gone = true;
            queue.receiver.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The sending half.
pub struct Sender<T>(Arc<Alive<T>>);

/// The receiving half.
pub struct Receiver<T>(Shared<T>);

/// A sender that does not keep the channel open.
pub struct WeakSender<T>(Weak<Alive<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Mpsc for SimMpsc {
    type Sender<T: OptionalSend> = Sender<T>;
    type Receiver<T: OptionalSend> = Receiver<T>;
    type WeakSender<T: OptionalSend> = WeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (Self::Sender<T>, Self::Receiver<T>) {
        let queue = Queue {
            items: VecDeque::new(),
            capacity: buffer.max(1),
            receiver_gone: false,
            senders_gone: false,
            receiver: None,
            senders: Vec::new(),
        };
        let shared = Arc::new(Mutex::new(queue));
        (Sender(Arc::new(Alive(shared.clone()))), Receiver(shared))
    }
}

impl<T: OptionalSend> MpscSender<SimMpsc, T> for Sender<T> {
    fn send(&self, message: T) -> impl Future<Output = Result<(), SendError<T>>> + OptionalSend {
        let shared = &self.0.0;
        let mut message = Some(message);
        async move {
            poll_fn(|context| {
                let mut queue = lock(shared);
                if queue.receiver_gone {
                    return Poll::Ready(
                        message.take().map_or(Ok(()), |message| Err(SendError(message))),
                    );
                }
                if queue.items.len() >= queue.capacity {
                    queue.senders.push(context.waker().clone());
                    return Poll::Pending;
                }
                queue.items.extend(message.take());
                let waker = queue.receiver.take();
                drop(queue);
                if let Some(waker) = waker {
                    waker.wake();
                }
                Poll::Ready(Ok(()))
            })
            .await
        }
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(Arc::downgrade(&self.0))
    }
}

impl<T: OptionalSend> MpscWeakSender<SimMpsc, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

impl<T: OptionalSend> MpscReceiver<T> for Receiver<T> {
    fn recv(&mut self) -> impl Future<Output = Option<T>> + OptionalSend {
        poll_fn(|context| match self.try_recv() {
            Ok(item) => Poll::Ready(Some(item)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                lock(&self.0).receiver = Some(context.waker().clone());
                Poll::Pending
            }
        })
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let (item, wakers) = {
            let mut queue = lock(&self.0);
            match queue.items.pop_front() {
                Some(item) => (item, std::mem::take(&mut queue.senders)),
                None if queue.senders_gone => return Err(TryRecvError::Disconnected),
                None => return Err(TryRecvError::Empty),
            }
        };
        wakers.into_iter().for_each(Waker::wake);
        Ok(item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (items, wakers) = {
            let mut queue = lock(&self.0);
            queue.receiver_gone = true;
            (std::mem::take(&mut queue.items), std::mem::take(&mut queue.senders))
        };
        drop(items);
        wakers.into_iter().for_each(Waker::wake);
    }
}
