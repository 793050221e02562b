//! Whole runs: that they are repeatable, and that seeds which once failed do not fail again.

use podium_sim::cluster::Load;
use podium_sim::{Mistakes, Options, Report, run};

fn options(seed: u64, steps: u64, load: Load) -> Options {
    Options { seed, steps, nodes: None, mistakes: Mistakes::none(), load: Some(load) }
}

#[track_caller]
fn holds(options: Options) -> Report {
    let report = run(options);
    if let Some(violation) = &report.violation {
        panic!("{violation}\nto repeat it: {options}");
    }
    report
}

#[test]
fn one_seed_twice_gives_one_trace_and_another_seed_another() {
    for load in [Load::Store, Load::Orchestrator, Load::Forming] {
        let first = run(options(3, 250, load));
        let second = run(options(3, 250, load));
        assert_eq!(first.trace_hash, second.trace_hash, "{load:?}");
        assert_eq!(first.revisions, second.revisions, "{load:?}");
        assert_ne!(first.trace_hash, run(options(4, 250, load)).trace_hash, "{load:?}");
    }
}

#[test]
fn usual_run_lasts_more_than_ten_virtual_minutes() {
    let report = holds(options(1, podium_sim::USUAL_STEPS, Load::Store));
    assert!(report.virtual_time.as_secs() >= 600, "{:?}", report.virtual_time);
    assert!(report.revisions > 500, "{} transactions", report.revisions);
    assert!(report.terms > 1, "{} terms", report.terms);
}

#[test]
fn cluster_with_workers_lives_on_for_as_long_as_any() {
    let options = options(2, podium_sim::USUAL_STEPS, Load::Forming);
    let report = holds(Options { nodes: Some(5), ..options });
    assert!(report.virtual_time >= podium_sim::USUAL_TIME, "{:?}", report.virtual_time);
    assert!(report.revisions > 200, "{} transactions", report.revisions);
    assert!(!report.is_short());
    let cut_short = Report { virtual_time: std::time::Duration::from_secs(36), ..report };
    assert!(cut_short.is_short());
}

/// A leader that lost its unsynced tail in a power cut went on leading in the same term, and gave indices of its log to
/// other entries.
#[test]
fn interrupted_leader_does_not_lead_on_in_its_term() {
    for seed in [21, 22, 25, 26] {
        holds(options(seed, 600, Load::Store));
    }
}

/// A member with a damaged snapshot no longer knew the other members and took itself for alone.
#[test]
fn damaged_snapshot_is_repaired_from_the_others() {
    for seed in [29, 36, 40] {
        holds(options(seed, 1_000, Load::Store));
    }
}

#[test]
fn blank_machines_form_one_cluster_or_say_why_not() {
    for seed in 1..9 {
        holds(options(seed, 0, Load::Forming));
    }
}

#[test]
fn orchestrator_comes_to_rest_after_faults() {
    for seed in 1..4 {
        holds(options(seed, 400, Load::Orchestrator));
    }
}
