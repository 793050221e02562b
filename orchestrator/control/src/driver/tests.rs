//! The driver against controllers made for the purpose.

use std::time::Duration;

use podium_types::kind::resources;
use podium_types::{Now, ObjectKey};
use serde_json::json;

use super::{Action, CallResult, Driver, Input, RunId};
use crate::controller::Controller;
use crate::plan::{Plan, Step};
use crate::world::{Change, ObjectEvent, World};

/// Wants each node's annotation `count` one higher, as long as it is below 3. All nodes are one family.
struct Counter;

impl Controller for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn keys_for(&self, _: &World, change: &Change) -> Vec<ObjectKey> {
        vec![(*change.key).clone()]
    }

    fn plan(&self, world: &World, key: &ObjectKey, _: Now) -> Plan {
        let Some(object) = world.object(key) else { return Plan::nothing() };
        let patch = json!({"metadata": {"resourceVersion": object.revision.to_string()}});
        let done = object.revision >= 100;
        let step = Step::Patch { key: key.clone(), subresource: None, patch };
        Plan {
            steps: if done { Vec::new() } else { vec![step] },
            wake_after: done.then_some(Duration::from_secs(60)),
        }
    }

    fn family(&self, _: &World, _: &ObjectKey) -> ObjectKey {
        ObjectKey::new(resources::NODES, "", "all")
    }
}

fn now(millis: u64) -> Now {
    Now { monotonic: Duration::from_millis(millis), wall: jiff::Timestamp::UNIX_EPOCH }
}

fn node(name: &str, revision: u64) -> ObjectEvent {
    let key = ObjectKey::new(resources::NODES, "", name);
    ObjectEvent::put(key, revision, format!(r#"{{"metadata":{{"name":"{name}"}}}}"#).as_bytes())
}

fn driver() -> Driver {
    Driver::new(vec![Box::new(Counter)], World::new())
}

fn observe(driver: &mut Driver, events: Vec<ObjectEvent>, through: u64) -> Vec<RunId> {
    runs(&driver.step(now(0), Input::Observed { events, through }))
}

fn runs(actions: &[Action]) -> Vec<RunId> {
    let run = |action: &Action| match action {
        Action::Run { run, .. } => Some(*run),
        Action::Report(_) | Action::Fence { .. } | Action::Unreadable { .. } => None,
    };
    actions.iter().filter_map(run).collect()
}

fn done(revision: u64) -> Vec<CallResult> {
    vec![CallResult::Done { revision }]
}

fn refused() -> Vec<CallResult> {
    vec![CallResult::Refused { message: "no".to_owned() }]
}

#[test]
fn key_is_not_planned_again_before_its_own_write_has_come_back() {
    let mut driver = driver();
    let run = observe(&mut driver, vec![node("a", 1)], 1)[0];
    // Asked for again while it runs, and the write is at 7.
    assert!(observe(&mut driver, vec![node("a", 3)], 3).is_empty());
    let actions = driver.step(now(0), Input::Finished { run, results: done(7) });
    assert_eq!(runs(&actions), [], "the world is at 3");
    assert!(observe(&mut driver, vec![node("b", 6)], 6).is_empty(), "b is of the same family");
    assert_eq!(observe(&mut driver, vec![node("a", 7)], 7).len(), 1);
}

#[test]
fn revision_counts_only_when_all_its_events_are_in() {
    let mut driver = driver();
    let run = observe(&mut driver, vec![node("a", 1)], 1)[0];
    driver.step(now(0), Input::Finished { run, results: done(7) });
    assert!(observe(&mut driver, vec![node("a", 7)], 6).is_empty(), "7 is not complete");
    assert_eq!(observe(&mut driver, Vec::new(), 7).len(), 1);
}

#[test]
fn family_is_planned_one_key_at_a_time_in_the_order_asked() {
    let mut driver = driver();
    let first = observe(&mut driver, vec![node("a", 1), node("b", 2), node("c", 3)], 3);
    assert_eq!(first.len(), 1);
    let actions = driver.step(now(0), Input::Finished { run: first[0], results: done(3) });
    let keys = actions.iter().filter_map(|action| match action {
        Action::Run { key, .. } => Some(key.name.as_str()),
        Action::Report(_) | Action::Fence { .. } | Action::Unreadable { .. } => None,
    });
    assert_eq!(keys.collect::<Vec<_>>(), ["b"]);
}

#[test]
fn refused_key_waits_longer_each_time_and_events_do_not_hurry_it() {
    let mut driver = driver();
    let mut run = observe(&mut driver, vec![node("a", 1)], 1)[0];
    let mut at = 0;
    for delay in [5, 10, 20, 40] {
        driver.step(now(at), Input::Finished { run, results: refused() });
        assert_eq!(driver.next_wake(), Some(Duration::from_millis(at + delay)));
        assert!(!driver.idle());
        let events = vec![node("a", 2 + at)];
        let early = driver.step(now(at), Input::Observed { events, through: 2 + at });
        assert_eq!(runs(&early), []);
        at += delay;
        run = runs(&driver.step(now(at), Input::Woken))[0];
    }
}

#[test]
fn delay_is_bounded_and_forgotten_after_success() {
    let mut driver = driver();
    let mut run = observe(&mut driver, vec![node("a", 1)], 1)[0];
    let mut at = 0;
    for _ in 0..40 {
        driver.step(now(at), Input::Finished { run, results: refused() });
        let wake = driver.next_wake().expect("a delay");
        assert!(wake <= Duration::from_millis(at) + Duration::from_secs(60));
        at = u64::try_from(wake.as_millis()).expect("milliseconds");
        run = runs(&driver.step(now(at), Input::Woken))[0];
    }
    driver.step(now(at), Input::Finished { run, results: done(2) });
    run = observe(&mut driver, vec![node("a", 2)], 2)[0];
    driver.step(now(at), Input::Finished { run, results: refused() });
    assert_eq!(driver.next_wake(), Some(Duration::from_millis(at + 5)));
}

#[test]
fn unknown_outcome_is_fenced_before_the_key_is_planned_again() {
    let mut driver = driver();
    let run = observe(&mut driver, vec![node("a", 1)], 1)[0];
    let results = vec![CallResult::Unknown];
    let actions = driver.step(now(0), Input::Finished { run, results });
    assert_eq!(actions, [Action::Fence { run }]);
    assert_eq!(runs(&driver.step(now(1000), Input::Woken)), []);
    driver.step(now(1000), Input::Fenced { run, revision: 9 });
    assert_eq!(runs(&driver.step(now(2000), Input::Woken)), [], "the world is at 1");
    let events = vec![node("a", 9)];
    assert_eq!(runs(&driver.step(now(2000), Input::Observed { events, through: 9 })).len(), 1);
}

#[test]
fn answer_to_nothing_changes_nothing() {
    let mut driver = driver();
    let results = done(5);
    assert_eq!(driver.step(now(0), Input::Finished { run: RunId(77), results }), []);
    assert_eq!(driver.step(now(0), Input::Fenced { run: RunId(77), revision: 5 }), []);
    assert!(driver.idle());
}

#[test]
fn key_is_planned_again_at_its_wake_time_without_any_event() {
    let mut driver = driver();
    assert!(observe(&mut driver, vec![node("a", 100)], 100).is_empty());
    assert!(driver.idle());
    assert_eq!(driver.next_wake(), Some(Duration::from_secs(60)));
    driver.step(now(60_000), Input::Woken);
    assert_eq!(driver.next_wake(), Some(Duration::from_secs(120)));
}

#[test]
fn snapshot_counts_as_new() {
    let mut world = World::new();
    world.apply(&node("a", 4));
    world.complete(4);
    let mut driver = Driver::new(vec![Box::new(Counter)], world);
    assert_eq!(runs(&driver.step(now(0), Input::Woken)).len(), 1);
}

/// Creates a node `b` and tells of it.
struct Teller;

impl Controller for Teller {
    fn name(&self) -> &'static str {
        "teller"
    }

    fn keys_for(&self, _: &World, change: &Change) -> Vec<ObjectKey> {
        vec![(*change.key).clone()]
    }

    fn plan(&self, world: &World, key: &ObjectKey, _: Now) -> Plan {
        let Some(object) = world.object(key) else { return Plan::nothing() };
        let mut plan = Plan::nothing();
        let patch = json!({});
        let step = plan.push(Step::Patch { key: key.clone(), subresource: None, patch });
        plan.push(Step::Event(crate::plan::EventStep {
            regarding: object.regarding(),
            kind: crate::plan::EventKind::Normal,
            reason: "Told".to_owned(),
            message: String::new(),
            action: "",
            component: "teller",
            reports: Some(step),
        }));
        plan
    }
}

#[test]
fn event_is_reported_after_its_step_is_done_and_only_then() {
    for (results, reported) in [(done(1), 1), (refused(), 0)] {
        let mut driver = Driver::new(vec![Box::new(Teller)], World::new());
        let events = vec![node("a", 1)];
        let actions = driver.step(now(0), Input::Observed { events, through: 1 });
        let [Action::Run { run, calls, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(calls.len(), 1);
        let actions = driver.step(now(0), Input::Finished { run: *run, results });
        let reports = actions.iter().filter(|action| matches!(action, Action::Report(_)));
        assert_eq!(reports.count(), reported);
    }
}
