//! Waits for this machine's place in the cluster: see `podium_form::Applicant`. A machine that had its place before need not ask
//! anybody, so its pods' network is there before a quorum is.

use std::time::Duration;

use podium_form::client::SharedClient;
use podium_form::{Applicant, NoPlace};
use podium_link::Cidr;
use podium_store::View;
use tokio::sync::watch;

/// While there is no leader.
const RETRY: Duration = Duration::from_millis(200);
/// While another machine has the name: somebody has to act.
const TAKEN: Duration = Duration::from_secs(5);

/// The machine's pod addresses. Waits until the cluster has given them; `trouble` says why it has not.
pub(crate) async fn take(
    applicant: &Applicant,
    client: &SharedClient,
    local: impl Fn() -> View,
    trouble: &watch::Sender<Option<String>>,
) -> Cidr {
    loop {
        if let Some(range) = applicant.settled(&local()).and_then(|range| range.parse().ok()) {
            return range;
        }
        let wait = match attempt(applicant, client).await {
            Ok(range) => {
                trouble.send_if_modified(|known| known.take().is_some());
                return range;
            }
            Err(NoPlace::Refused(refusal)) if refusal.may_pass() => {
                tracing::debug!(%refusal, "no place in the cluster yet");
                RETRY
            }
            Err(error) => {
                tracing::error!("{error}");
                trouble.send_replace(Some(error.to_string()));
                TAKEN
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn attempt(applicant: &Applicant, client: &SharedClient) -> Result<Cidr, NoPlace> {
    let range = applicant.attempt(client).await?;
    range.parse().map_err(|_| NoPlace::NoAddresses(applicant.name.clone()))
}
