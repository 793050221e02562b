//! The API as a node without one uses it: calls to a voter.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use podium_control::Step;
use podium_peer::frame::{self, FrameError};
use podium_types::ObjectKey;
use serde_json::Value;

use super::wire::{Answer, Ask, FRAME_BYTES, PATIENCE};
use super::{Dial, Session};
use podium_form::client::{Client, Refusal};

/// Sessions that wait for the next call. A node's parts seldom call at the same time.
const IDLE_MAX: usize = 4;

/// See the module.
pub(crate) struct Remote {
    dial: Arc<dyn Dial>,
    idle: Mutex<Vec<Box<dyn Session>>>,
}

impl Remote {
    /// Calls whichever voter `dial` finds.
    pub(crate) fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, idle: Mutex::new(Vec::new()) }
    }

    /// A call may have been made although its answer was lost; what nodes call carries a revision or a uid, so that
    /// making it again is refused or changes nothing.
    async fn ask(&self, ask: &Ask) -> Result<Answer, Refusal> {
        while let Some(mut session) = self.pop() {
            // The voter may have gone while the session was idle: then another is opened.
            if let Ok(answer) = converse(&mut session, ask).await {
                self.push(session);
                return Ok(answer);
            }
        }
        let mut session = self.dial.dial().await.map_err(unavailable)?;
        let answer = converse(&mut session, ask).await.map_err(unavailable)?;
        self.push(session);
        Ok(answer)
    }

    fn pop(&self) -> Option<Box<dyn Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn push(&self, session: Box<dyn Session>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(session);
        }
    }
}

async fn converse(session: &mut Box<dyn Session>, ask: &Ask) -> Result<Answer, FrameError> {
    frame::say(session, ask, PATIENCE).await?;
    frame::hear(session, FRAME_BYTES, PATIENCE).await
}

fn unavailable(reason: impl std::fmt::Display) -> Refusal {
    let message = format!("no voter answers: {reason}");
    Refusal { code: 503, reason: "ServiceUnavailable".to_owned(), message }
}

fn unexpected() -> Refusal {
    let message = "the voter gave an answer to something else".to_owned();
    Refusal { code: 500, reason: "InternalError".to_owned(), message }
}

impl Client for Remote {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Value>, Refusal>> {
        Box::pin(async move {
            match self.ask(&Ask::Get { key: key.into() }).await? {
                Answer::Object(None) => Ok(None),
                Answer::Object(Some(json)) => {
                    serde_json::from_slice(&json).map(Some).map_err(|_| unexpected())
                }
                Answer::Refused { code, reason, message } => Err(Refusal { code, reason, message }),
                Answer::Done { .. } | Answer::Certified(_) => Err(unexpected()),
            }
        })
    }

    fn call(&self, step: Step) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(async move {
            let Some(ask) = Ask::call(step) else {
                let message = "nodes do not make this call".to_owned();
                return Err(Refusal { code: 400, reason: "BadRequest".to_owned(), message });
            };
            match self.ask(&ask).await? {
                Answer::Done { revision } => Ok(revision),
                Answer::Refused { code, reason, message } => Err(Refusal { code, reason, message }),
                Answer::Object(_) | Answer::Certified(_) => Err(unexpected()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
