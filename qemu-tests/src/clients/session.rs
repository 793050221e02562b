//! Many requests over one connection, for clients that ask all the time and must know what became of each.

use std::time::Duration;

use serde_json::Value;

use crate::node_api::{self, Answer, Https};

/// What became of a request that was not answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server never got it.
    NotSent(anyhow::Error),
    /// The server may have done it.
    Unknown(anyhow::Error),
}

impl Failure {
    /// The cause.
    pub(super) fn into_error(self) -> anyhow::Error {
        let (Self::NotSent(error) | Self::Unknown(error)) = self;
        error
    }
}

/// A server, and a connection to it as long as it lasts.
pub(super) struct Session {
    server: Https,
    limit: Duration,
    connection: Option<node_api::Session>,
}

impl Session {
    /// A session with `server`, which has `limit` to go on with each answer.
    pub(super) fn new(server: Https, limit: Duration) -> Self {
        Self { server, limit, connection: None }
    }

    /// Sends a request, over a new connection if there is none, and waits for its answer.
    ///
    /// # Errors
    /// See [`Failure`]. An answer that refuses the request is an answer.
    pub(super) fn request(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Answer, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.server.session_within(self.limit).map_err(Failure::NotSent)?,
        };
        let answer = connection.request(method, path, body).map_err(Failure::Unknown)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}
