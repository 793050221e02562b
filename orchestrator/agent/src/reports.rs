//! Carrying a pod's status to the API: always the newest, never too often, until the API has it.

use std::sync::Arc;
use std::time::Duration;

use podium_types::k8s::api::core::v1::PodStatus;
use tokio::sync::watch;

use crate::host::Host;
use crate::seams::{PodRef, SinkError};

/// The least time between two writes for one pod. The first change of a quiet pod goes out at once; a burst, such as a
/// start with all its small steps, becomes a few writes.
const BREATH: Duration = Duration::from_millis(100);

/// Between attempts while the API cannot be reached; a cluster without a leader comes back in seconds.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// What is to be told to the API.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wanted {
    status: Option<PodStatus>,
    /// The object is to be deleted after its last status; counts the requests.
    deletions: u64,
}

/// The sending end of one pod's reports.
pub(crate) struct Reporter {
    wanted: watch::Sender<Wanted>,
}

impl Reporter {
    /// Starts a pod's reporter; `gone` is called when the API turns out not to have the pod any more.
    pub(crate) fn start(
        host: Arc<Host>,
        pod: PodRef,
        gone: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = watch::channel(Wanted::default());
        tokio::spawn(run(host, pod, receiver, gone));
        Self { wanted: sender }
    }

    /// Reports this status in place of any that was not sent yet.
    pub(crate) fn report(&self, status: PodStatus) {
        self.wanted.send_modify(|wanted| wanted.status = Some(status));
    }

    /// Deletes the object after the last status.
    pub(crate) fn delete(&self) {
        self.wanted.send_modify(|wanted| wanted.deletions += 1);
    }
}

async fn run(host: Arc<Host>, pod: PodRef, mut wanted: watch::Receiver<Wanted>, gone: impl Fn()) {
    let mut sent = Wanted::default();
    let mut delay = RETRY_FIRST;
    loop {
        let next = wanted.borrow_and_update().clone();
        let result =
            if next == sent { None } else { Some(send(&host, &pod, &next, &mut sent).await) };
        match result {
            None => {
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Some(Ok(())) => delay = RETRY_FIRST,
            Some(Err(SinkError::Gone)) => {
                gone();
                return;
            }
            Some(Err(SinkError::Refused(message))) => {
                tracing::error!(pod = %pod, message, "the API refuses the pod's status");
                sent = next;
            }
            Some(Err(SinkError::Unavailable(message))) => {
                tracing::debug!(pod = %pod, message, "the pod's status waits for the API");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_LONGEST);
                continue;
            }
        }
        tokio::time::sleep(BREATH).await;
    }
}

async fn send(
    host: &Host,
    pod: &PodRef,
    next: &Wanted,
    sent: &mut Wanted,
) -> Result<(), SinkError> {
    let sink = &host.seams.statuses;
    if let Some(status) = next.status.as_ref().filter(|_| next.status != sent.status) {
        sink.write(pod, status).await?;
        sent.status.clone_from(&next.status);
    }
    if next.deletions != sent.deletions {
        sink.delete(pod).await?;
        sent.deletions = next.deletions;
    }
    Ok(())
}
