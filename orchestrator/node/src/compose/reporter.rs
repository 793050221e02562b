//! What the console says of the node.

use std::net::IpAddr;
use std::time::Instant;

use podium_init::protocol::NodeReport;
use tokio::sync::watch;

use super::API_PORT;
use crate::machine;

/// Tells PID 1, and so the console, whether the node serves, and if not what is waited for.
pub(super) struct Reporter {
    pub(super) name: String,
    pub(super) addresses: watch::Receiver<Vec<IpAddr>>,
    /// Lines on what is not well, the most telling first.
    pub(super) troubles: [watch::Receiver<Option<String>>; 3],
    pub(super) is_registered: watch::Receiver<bool>,
    pub(super) started: Instant,
}

impl Reporter {
    /// Reports every change; returns when there is nobody left whose word would change.
    pub(super) async fn run(mut self) {
        let mut was_ready = false;
        loop {
            let mut trouble = None;
            for said in &mut self.troubles {
                let said = said.borrow_and_update().clone();
                trouble = trouble.or(said);
            }
            let registered = *self.is_registered.borrow_and_update();
            let ready = registered && trouble.is_none();
            if ready && !was_ready {
                tracing::info!(milliseconds = self.started.elapsed().as_millis(), "ready");
                was_ready = true;
            }
            let address = self.addresses.borrow().first().copied();
            let url = address.map(|address| format!("https://{address}:{API_PORT}"));
            let message = trouble.or(url.filter(|_| ready));
            if let Some(message) = message {
                machine::report(NodeReport { ready, name: self.name.clone(), message }).await;
            }
            let [one, two, three] = &mut self.troubles;
            tokio::select! {
                Ok(()) = one.changed() => {}
                Ok(()) = two.changed() => {}
                Ok(()) = three.changed() => {}
                Ok(()) = self.is_registered.changed() => {}
                else => return,
            }
        }
    }
}
