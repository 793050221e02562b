//! Running a container's lifecycle hook.

use std::time::Duration;

use podium_types::k8s::api::core::v1::LifecycleHandler;

use crate::exec;
use crate::http;
use crate::probes::Target;

/// An HTTP hook has no time-out of its own in the API; longer than this, its answer means nothing any more.
const HTTP_LIMIT: Duration = Duration::from_secs(60);

/// Runs a hook to its end. How long it may take is the pod machine's decision.
pub(crate) async fn run(handler: &LifecycleHandler, target: &Target<'_>) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let done = exec::capture(target.shim, &target.id, command)
            .await
            .map_err(|error| error.to_string())?;
        return match done.code {
            0 => Ok(()),
            code => Err(format!("command exited with {code}: {}", done.output)),
        };
    }
    if let Some(action) = &handler.http_get {
        let request = http::Request::from_action(action, target.container, target.address)?;
        return match http::get(&request, HTTP_LIMIT).await? {
            200..=399 => Ok(()),
            status => Err(format!("HTTP status {status}")),
        };
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
    }
    // A tcpSocket hook does nothing, as in kubelet: the API keeps the field for compatibility only.
    Ok(())
}
