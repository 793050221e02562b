//! When a container's probes run, and what their results add up to.
//!
//! A probe runs every period, one run at a time, first after its initial delay. Results count by runs of the same
//! answer: `failureThreshold` failures in a row make it failed, `successThreshold` successes make it passed, and
//! anything less keeps what was. Until the startup probe passed the other two do not run. Running the probe, and its
//! time-out, is the agent's work.

use std::time::Duration;

use podium_types::k8s::api::core::v1 as core;

use super::interface::{ProbeKind, ProbeOutcome};

/// One probe of a running container.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pub(super) kind: ProbeKind,
    period: Duration,
    success_threshold: u32,
    failure_threshold: u32,
    next_at: Duration,
    in_flight: bool,
    /// What the last runs agreed on; `None` before the first answer that counts.
    verdict: Option<bool>,
    streak: (bool, u32),
}

impl Probe {
    fn new(kind: ProbeKind, spec: &core::Probe, started_at: Duration) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(
                value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default),
            )
        };
        let threshold = |value: Option<i32>, default: u32| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value > 0)
                .unwrap_or(default)
        };
        Self {
            kind,
            period: seconds(spec.period_seconds, 10).max(Duration::from_secs(1)),
            success_threshold: threshold(spec.success_threshold, 1),
            failure_threshold: threshold(spec.failure_threshold, 3),
            next_at: started_at.saturating_add(seconds(spec.initial_delay_seconds, 0)),
            in_flight: false,
            verdict: None,
            streak: (false, 0),
        }
    }

    /// Counts one answer; true if the verdict is new.
    fn count(&mut self, success: bool) -> bool {
        if self.streak.0 == success {
            self.streak.1 = self.streak.1.saturating_add(1);
        } else {
            self.streak = (success, 1);
        }
        let enough = if success { self.success_threshold } else { self.failure_threshold };
        if self.streak.1 < enough {
            return false;
        }
        let news = self.verdict != Some(success);
        self.verdict = Some(success);
        news
    }
}

/// What a probe's answer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing, or only the status.
    None,
    /// The container is to be restarted.
    Restart(ProbeKind),
}

/// The probes of one instance.
#[derive(Debug, Clone)]
pub(super) struct Probes {
    startup: Option<Probe>,
    others: Vec<Probe>,
}

impl Probes {
    /// The probes of an instance whose process started at `started_at` (monotonic).
    pub(super) fn new(container: &core::Container, started_at: Duration) -> Self {
        let startup = container
            .startup_probe
            .as_ref()
            .map(|spec| Probe::new(ProbeKind::Startup, spec, started_at));
        let liveness = container
            .liveness_probe
            .as_ref()
            .map(|spec| Probe::new(ProbeKind::Liveness, spec, started_at));
        let readiness = container
            .readiness_probe
            .as_ref()
            .map(|spec| Probe::new(ProbeKind::Readiness, spec, started_at));
        Self { startup, others: liveness.into_iter().chain(readiness).collect() }
    }

    /// Takes over what the status said of an adopted instance, so that a restart of the node program takes no ready
    /// pod out of its Services.
    pub(super) fn inherit(&mut self, started: bool, ready: bool) {
        if let Some(startup) = self.startup.as_mut().filter(|_| started) {
            startup.verdict = Some(true);
        }
        for probe in &mut self.others {
            if probe.kind == ProbeKind::Readiness && ready {
                probe.verdict = Some(true);
            }
        }
    }

    /// The startup probe passed, or there is none.
    pub(super) fn started(&self) -> bool {
        self.startup.as_ref().is_none_or(|probe| probe.verdict == Some(true))
    }

    /// The container is ready as far as its probes say.
    pub(super) fn ready(&self) -> bool {
        self.started()
            && self
                .others
                .iter()
                .filter(|probe| probe.kind == ProbeKind::Readiness)
                .all(|probe| probe.verdict == Some(true))
    }

    /// The probes to run now; each is noted as running.
    pub(super) fn due(&mut self, now: Duration) -> Vec<ProbeKind> {
        let mut due = Vec::new();
        for probe in self.eligible() {
            if !probe.in_flight && probe.next_at <= now {
                probe.in_flight = true;
                probe.next_at = now.saturating_add(probe.period);
                due.push(probe.kind);
            }
        }
        due
    }

    /// When the next probe is due.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        let startup = self.startup.iter().filter(|_| !self.started());
        let others = self.others.iter().filter(|_| self.started());
        startup.chain(others).filter(|probe| !probe.in_flight).map(|probe| probe.next_at).min()
    }

    /// Counts an answer.
    pub(super) fn answer(
        &mut self,
        kind: ProbeKind,
        outcome: &ProbeOutcome,
        now: Duration,
    ) -> Finding {
        let Some(probe) =
            self.startup.iter_mut().chain(&mut self.others).find(|probe| probe.kind == kind)
        else {
            return Finding::None;
        };
        probe.in_flight = false;
        let success = match outcome {
            ProbeOutcome::Success => true,
            ProbeOutcome::Failure(_) => false,
            ProbeOutcome::Unknown(_) => return Finding::None,
        };
        let news = probe.count(success);
        match (kind, success) {
            (ProbeKind::Startup, true) => {
                if news {
                    self.run_others_at_once(now);
                }
                Finding::None
            }
            (ProbeKind::Startup | ProbeKind::Liveness, false) if news => Finding::Restart(kind),
            (ProbeKind::Startup | ProbeKind::Liveness | ProbeKind::Readiness, _) => Finding::None,
        }
    }

    /// Nobody should wait a period for the news that a container which took long to start is ready.
    fn run_others_at_once(&mut self, now: Duration) {
        for probe in &mut self.others {
            if probe.next_at > now && probe.kind == ProbeKind::Readiness {
                probe.next_at = now;
            }
        }
    }

    fn eligible(&mut self) -> impl Iterator<Item = &mut Probe> {
        let started = self.started();
        let startup = self.startup.iter_mut().filter(move |_| !started);
        startup.chain(self.others.iter_mut().filter(move |_| started))
    }
}

#[cfg(test)]
mod tests {
    use super::{Finding, Probes};
    use crate::pod::interface::{ProbeKind, ProbeOutcome};
    use podium_types::k8s::api::core::v1 as core;
    use std::time::Duration;

    fn probe(delay: i32, period: i32, success: i32, failure: i32) -> core::Probe {
        core::Probe {
            initial_delay_seconds: Some(delay),
            period_seconds: Some(period),
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..core::Probe::default()
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure() -> ProbeOutcome {
        ProbeOutcome::Failure("no".to_owned())
    }

    #[test]
    fn probe_waits_its_delay_then_runs_every_period_one_at_a_time() {
        let spec = core::Container {
            readiness_probe: Some(probe(5, 10, 1, 3)),
            ..core::Container::default()
        };
        let mut probes = Probes::new(&spec, at(100));
        assert_eq!(probes.next_wake(), Some(at(105)));
        assert!(probes.due(at(104)).is_empty());
        assert_eq!(probes.due(at(105)), [ProbeKind::Readiness]);
        assert!(probes.due(at(200)).is_empty(), "a second run started before the first ended");
        assert_eq!(
            probes.answer(ProbeKind::Readiness, &ProbeOutcome::Success, at(106)),
            Finding::None
        );
        assert_eq!(probes.next_wake(), Some(at(115)));
    }

    #[test]
    fn readiness_changes_only_after_its_thresholds() {
        let spec = core::Container {
            readiness_probe: Some(probe(0, 1, 2, 3)),
            ..core::Container::default()
        };
        let mut probes = Probes::new(&spec, at(0));
        let mut seen = Vec::new();
        for (second, success) in [true, true, false, false, true, false, false, false, true, true]
            .into_iter()
            .enumerate()
        {
            let now = at(second as u64);
            assert_eq!(probes.due(now).len(), 1);
            let outcome = if success { ProbeOutcome::Success } else { failure() };
            probes.answer(ProbeKind::Readiness, &outcome, now);
            seen.push(probes.ready());
        }
        assert_eq!(seen, [false, true, true, true, true, true, true, false, false, true]);
    }

    #[test]
    fn liveness_restarts_once_when_its_threshold_is_reached() {
        let spec = core::Container {
            liveness_probe: Some(probe(0, 1, 1, 2)),
            ..core::Container::default()
        };
        let mut probes = Probes::new(&spec, at(0));
        let answers: Vec<_> = (0..4)
            .map(|second| probes.answer(ProbeKind::Liveness, &failure(), at(second)))
            .collect();
        let restart = Finding::Restart(ProbeKind::Liveness);
        assert_eq!(answers, [Finding::None, restart, Finding::None, Finding::None]);
    }

    #[test]
    fn startup_probe_holds_back_the_others_until_it_passed() {
        let spec = core::Container {
            startup_probe: Some(probe(0, 1, 1, 3)),
            liveness_probe: Some(probe(0, 1, 1, 1)),
            readiness_probe: Some(probe(30, 10, 1, 1)),
            ..core::Container::default()
        };
        let mut probes = Probes::new(&spec, at(0));
        assert_eq!(probes.due(at(1)), [ProbeKind::Startup]);
        assert!(!probes.started());
        probes.answer(ProbeKind::Startup, &ProbeOutcome::Success, at(2));
        assert!(probes.started() && !probes.ready());
        assert_eq!(probes.due(at(2)), [ProbeKind::Liveness, ProbeKind::Readiness]);
    }

    #[test]
    fn a_probe_that_cannot_run_counts_neither_way() {
        let spec = core::Container {
            liveness_probe: Some(probe(0, 1, 1, 1)),
            ..core::Container::default()
        };
        let mut probes = Probes::new(&spec, at(0));
        let unknown = ProbeOutcome::Unknown("shim is busy".to_owned());
        assert_eq!(probes.answer(ProbeKind::Liveness, &unknown, at(1)), Finding::None);
        assert_eq!(
            probes.answer(ProbeKind::Liveness, &failure(), at(2)),
            Finding::Restart(ProbeKind::Liveness)
        );
    }
}
