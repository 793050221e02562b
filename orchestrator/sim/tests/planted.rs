//! Every planted bug is found, each within a bounded number of seeds, and by the rule that it breaks.
//!
//! Needs the feature `planted-bugs`; run it in the release profile: `make planted`.

use podium_sim::cluster::Load;
use podium_sim::ledger::Violation;
use podium_sim::{Mistakes, Options, run};

/// Seeds that a bug may hide from.
const SEEDS: u64 = 40;
/// A run of machines that only form a cluster costs a tenth of another. What they live through after that is left out.
const SEEDS_OF_FORMING: u64 = 400;

/// What has to be run for a bug to show.
enum Story {
    Store,
    Orchestrator,
    /// Only until the cluster stands.
    Forming,
    /// With workers that follow the cluster.
    Living,
}

/// A run with this bug must end in a violation that `fits` says is the bug's.
#[track_caller]
fn found(name: &str, story: Story, fits: impl Fn(&Violation) -> bool) {
    let mistakes = Mistakes::named(name).unwrap_or_else(|error| panic!("{error}"));
    let usual = podium_sim::USUAL_STEPS;
    let (load, seeds, nodes, steps) = match story {
        Story::Store => (Load::Store, SEEDS, 3, usual),
        Story::Orchestrator => (Load::Orchestrator, SEEDS, 3, usual),
        Story::Forming => (Load::Forming, SEEDS_OF_FORMING, 5, 0),
        Story::Living => (Load::Forming, SEEDS, 5, usual),
    };
    for seed in 1..=seeds {
        let options = Options { seed, steps, nodes: Some(nodes), mistakes, load: Some(load) };
        if let Some(violation) = run(options).violation {
            println!("{name} found by seed {seed}: {violation}\nto repeat it: {options}");
            assert!(fits(&violation), "{name} was found as something else: {violation}");
            return;
        }
    }
    panic!("{name} was not found by {seeds} seeds");
}

/// A rule of the objects of the API whose report holds this.
fn rule(words: &'static str) -> impl Fn(&Violation) -> bool {
    move |violation| matches!(violation, Violation::Rule(what) if what.contains(words))
}

macro_rules! planted {
    ($($name:ident: $story:ident, $fits:expr;)*) => {
        $(#[test]
        fn $name() {
            found(stringify!($name), Story::$story, $fits);
        })*

        #[test]
        fn every_planted_bug_has_a_test() {
            let tested = [$(stringify!($name)),*];
            let mut untested = Mistakes::names();
            untested.retain(|name| !tested.contains(&name.as_str()));
            assert!(untested.is_empty(), "{untested:?}");
        }
    };
}

/// Something acknowledged is not in what somebody was told later.
fn lost(violation: &Violation) -> bool {
    matches!(
        violation,
        Violation::Stale { .. } | Violation::Contradiction { .. } | Violation::Missing { .. }
    )
}

/// Two accounts of one revision.
fn contradiction(violation: &Violation) -> bool {
    matches!(violation, Violation::Contradiction { .. })
}

planted! {
    acknowledge_before_sync: Store, lost;
    stale_read: Store, |violation| matches!(violation, Violation::Stale { .. });
    // A watcher without an event tells another history than the others.
    lost_watch_event: Store, |violation| {
        matches!(violation, Violation::BrokenWatch { .. } | Violation::Contradiction { .. })
    };
    // Two transactions at one revision: a watch goes back, or two tell of it differently, whoever is heard first.
    reused_revision: Store, |violation| matches!(violation, Violation::BrokenWatch { .. }) || contradiction(violation);
    forgotten_transaction_id: Store, |violation| matches!(violation, Violation::Repeated { .. });
    skip_guard: Store, contradiction;
    // What was written behind the torn record is not found again: the members that have such a log never become whole.
    torn_tail_kept: Store, |violation| lost(violation) || matches!(violation, Violation::Stuck(_));
    vote_not_synced: Store, |violation| {
        matches!(violation, Violation::TwoLeaders { .. })
            || matches!(violation, Violation::Rule(what) if what.contains("copies of the vote"))
    };
    snapshot_drops_key: Store, contradiction;
    address_reused: Orchestrator, rule(" is held by ");
    update_ignores_resource_version: Orchestrator, |violation| {
        rule("an update was lost")(violation)
            || rule("was marked for deletion and is no more")(violation)
            || rule("went back")(violation)
    };
    delete_ignores_uid: Orchestrator, rule("was deleted by a uid that is not its own");
    create_in_terminating_namespace: Orchestrator, rule("in a namespace that is being deleted");
    bind_overwrites: Orchestrator, rule("and then to");
    double_bind: Orchestrator, rule("and then to");
    exceed_surge: Orchestrator, rule("its Deployment has");
    adopt_foreign_pod: Orchestrator, rule(" was taken from ");
    forget_terminating_pods: Orchestrator, rule("m of CPU and its");
    release_unseen: Forming, rule(" had accepted ");
    // What was said and is not on the disk is taken back, or the disk cannot be read any more.
    accept_unsynced: Forming, |violation| {
        rule(" had accepted ")(violation)
            || rule(" belonged to cluster ")(violation)
            || rule("STATE has a store")(violation)
            || matches!(violation, Violation::Stuck(_))
    };
    propose_unchosen: Forming, rule("never said it would form it");
    feed_skips_revision: Living, rule("the mirror of node ");
}
