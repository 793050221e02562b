//! Getting a container's image: look, pull by policy, back off.

use std::time::Duration;

use podium_types::Now;

use super::back_off::RESTART;
use super::container::State;
use super::interface::{ImageFacts, PodCommand, PullFailure};
use super::{Intent, PodMachine};

/// How long `ErrImagePull` is shown before `ImagePullBackOff`: long enough that a person who watches sees both.
const FAILURE_SHOWN: Duration = Duration::from_secs(2);

/// How long until an image that must not or cannot be pulled is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl PodMachine {
    /// Begins to get the image.
    pub(super) fn inspect_image(&mut self, index: usize, out: &mut Vec<PodCommand>) {
        let Some(image) = self.requested_image(index) else { return };
        let Some(container) = self.containers.get_mut(index) else { return };
        container.state = State::Inspecting;
        out.push(PodCommand::InspectImage { container: container.name.clone(), image });
    }

    pub(super) fn on_inspected(
        &mut self,
        container: &str,
        found: Option<ImageFacts>,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_in(container, |state| matches!(state, State::Inspecting))
        else {
            return;
        };
        let Some(image) = self.requested_image(index) else { return };
        let policy = self.pull_policy(index, &image);
        let Some(container) = self.containers.get_mut(index) else { return };
        match (policy, found) {
            (Policy::IfNotPresent | Policy::Never, Some(facts)) => {
                let text = format!(
                    "Container image \"{image}\" already present on machine and can be accessed by the pod"
                );
                out.push(container.normal("Pulled", text));
                container.fetched(facts);
            }
            (Policy::Never, None) => {
                let message =
                    format!("Container image \"{image}\" is not present with pull policy of Never");
                out.push(container.warning("ErrImageNeverPull", message.clone()));
                out.push(container.warning("Failed", "Error: ErrImageNeverPull".to_owned()));
                let until = now.monotonic.saturating_add(LOOK_AGAIN);
                container.state = State::PullFailed { reason: "ErrImageNeverPull", message, until };
            }
            (Policy::Always, _) | (Policy::IfNotPresent, None) => {
                out.push(container.normal("Pulling", format!("Pulling image \"{image}\"")));
                container.state = State::Pulling;
                out.push(PodCommand::PullImage { container: container.name.clone(), image });
            }
        }
    }

    pub(super) fn on_pulled(
        &mut self,
        container: &str,
        image: ImageFacts,
        took: Duration,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_in(container, |state| matches!(state, State::Pulling)) else {
            return;
        };
        let Some(container) = self.containers.get_mut(index) else { return };
        let took = print_seconds(took);
        out.push(container.normal(
            "Pulled",
            format!(
                "Successfully pulled image \"{}\" in {took} ({took} including waiting). Image size: {} bytes.",
                image.requested, image.size_bytes
            ),
        ));
        container.pull.reset();
        container.fetched(image);
    }

    pub(super) fn on_pull_failed(
        &mut self,
        container: &str,
        failure: PullFailure,
        message: String,
        now: Now,
        out: &mut Vec<PodCommand>,
    ) {
        let Some(index) = self.index_in(container, |state| matches!(state, State::Pulling)) else {
            return;
        };
        let image = self.requested_image(index).unwrap_or_default();
        let Some(container) = self.containers.get_mut(index) else { return };
        let reason = match failure {
            PullFailure::InvalidName => "InvalidImageName",
            PullFailure::Failed => "ErrImagePull",
        };
        out.push(
            container.warning("Failed", format!("Failed to pull image \"{image}\": {message}")),
        );
        out.push(container.warning("Failed", format!("Error: {reason}")));
        let shown = match failure {
            PullFailure::InvalidName => LOOK_AGAIN,
            PullFailure::Failed => {
                container.pull.raise(now.monotonic, now.monotonic);
                FAILURE_SHOWN
            }
        };
        container.state =
            State::PullFailed { reason, message, until: now.monotonic.saturating_add(shown) };
    }

    /// Moves a container on whose image could not be had, when the time has come.
    pub(super) fn tend_fetch(&mut self, index: usize, now: Now, out: &mut Vec<PodCommand>) {
        let image = self.requested_image(index).unwrap_or_default();
        let Some(container) = self.containers.get_mut(index) else { return };
        if let State::PullFailed { reason: "ErrImagePull", message, until } = &container.state
            && *until <= now.monotonic
        {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {message}");
            let (delay, since) = container.pull.current().unwrap_or((RESTART.first, now.monotonic));
            out.push(container.normal("BackOff", format!("Back-off pulling image \"{image}\"")));
            out.push(container.warning("Failed", "Error: ImagePullBackOff".to_owned()));
            container.state = State::PullBackOff { message, retry_at: since.saturating_add(delay) };
        } else if let State::PullFailed { until: at, .. } | State::PullBackOff { retry_at: at, .. } =
            &container.state
            && *at <= now.monotonic
        {
            container.state = State::Waiting;
        }
    }

    fn requested_image(&self, index: usize) -> Option<String> {
        Some(self.container_spec(index)?.image.clone().unwrap_or_default())
    }

    fn pull_policy(&self, index: usize, image: &str) -> Policy {
        let policy = self.container_spec(index).and_then(|spec| spec.image_pull_policy.as_deref());
        match policy {
            Some("Always") => Policy::Always,
            Some("Never") => Policy::Never,
            Some("IfNotPresent") => Policy::IfNotPresent,
            Some(_) | None => Policy::default_of(image),
        }
    }

    /// The container of that name if it is in such a state and wanted; its image does not depend on the sandbox.
    fn index_in(&self, container: &str, state: impl Fn(&State) -> bool) -> Option<usize> {
        let index = self.index_of(container)?;
        self.containers
            .get(index)
            .filter(|known| self.intent == Intent::Run && state(&known.state))
            .map(|_| index)
    }
}

impl super::Container {
    fn fetched(&mut self, image: ImageFacts) {
        self.image = Some(image);
        self.state = State::Fetched;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    /// What the API sets when nothing is given: a reference that may move is looked up each time.
    fn default_of(image: &str) -> Self {
        let name = image.rsplit('/').next().unwrap_or(image);
        if image.contains('@') {
            return Self::IfNotPresent;
        }
        match name.split_once(':') {
            None | Some((_, "latest")) => Self::Always,
            Some(_) => Self::IfNotPresent,
        }
    }
}

/// Prints a time as Go prints durations below a minute, to the millisecond: `312ms`, `1.204s`.
fn print_seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        millis => {
            let text = format!("{}.{:03}", millis / 1000, millis % 1000);
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Policy, print_seconds};
    use std::time::Duration;

    #[test]
    fn only_a_reference_that_may_move_is_pulled_each_time_by_default() {
        assert_eq!(Policy::default_of("busybox"), Policy::Always);
        assert_eq!(Policy::default_of("host:5000/busybox"), Policy::Always);
        assert_eq!(Policy::default_of("busybox:latest"), Policy::Always);
        assert_eq!(Policy::default_of("k8s.gcr.io/redis:e2e"), Policy::IfNotPresent);
        assert_eq!(Policy::default_of("busybox@sha256:00"), Policy::IfNotPresent);
    }

    #[test]
    fn pull_times_print_as_go_durations() {
        assert_eq!(print_seconds(Duration::from_millis(312)), "312ms");
        assert_eq!(print_seconds(Duration::from_millis(1200)), "1.2s");
        assert_eq!(print_seconds(Duration::from_millis(62_004)), "62.004s");
    }
}
