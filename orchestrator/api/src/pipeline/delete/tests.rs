use jiff::Timestamp;
use podium_types::kind::resources;
use serde_json::{Value, json};

use super::{DeleteOptions, Propagation, Step, is_finished, plan};
use crate::registry::{self, Resource};

fn pods() -> &'static Resource {
    registry::find(&resources::PODS).expect("served")
}

fn running() -> Value {
    json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 10}, "status": {"phase": "Running"}})
}

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().expect("a time")
}

fn grace(seconds: i64) -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
}

fn marked(step: Step) -> Value {
    match step {
        Step::Mark(object) => object,
        Step::Remove => panic!("removed"),
        Step::Nothing => panic!("nothing to do"),
    }
}

#[test]
fn a_running_pod_gets_the_time_it_asks_for() {
    let pod = marked(plan(pods(), &running(), &DeleteOptions::default(), now()));
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-11-21T10:00:10Z");
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 10);
    assert_eq!(pod["metadata"]["generation"], 2);
    assert!(!is_finished(pods(), &pod));
    let again = plan(pods(), &pod, &DeleteOptions::default(), now());
    assert!(matches!(again, Step::Nothing));
    assert!(matches!(plan(pods(), &pod, &grace(60), now()), Step::Nothing));
}

#[test]
fn a_second_deletion_can_only_be_sooner() {
    let pod = marked(plan(pods(), &running(), &grace(60), now()));
    let later = now() + jiff::SignedDuration::from_secs(20);
    let sooner = marked(plan(pods(), &pod, &grace(5), later));
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "2026-11-21T10:00:05Z");
    assert!(matches!(plan(pods(), &sooner, &grace(0), later), Step::Remove));
}

#[test]
fn a_pod_that_does_not_run_goes_at_once() {
    let mut pending = running();
    pending["spec"].as_object_mut().expect("a spec").remove("nodeName");
    let mut ended = running();
    ended["status"]["phase"] = json!("Succeeded");
    for pod in [pending, ended] {
        assert!(matches!(plan(pods(), &pod, &grace(30), now()), Step::Remove));
    }
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let configs = registry::find(&resources::CONFIG_MAPS).expect("served");
    let object = json!({"metadata": {"name": "c", "finalizers": ["a/b"]}});
    let mut going = marked(plan(configs, &object, &DeleteOptions::default(), now()));
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(!is_finished(configs, &going));
    assert!(matches!(plan(configs, &going, &DeleteOptions::default(), now()), Step::Nothing));
    going["metadata"]["finalizers"] = json!([]);
    assert!(is_finished(configs, &going));
}

#[test]
fn propagation_is_a_finalizer() {
    let deployments = registry::find(&resources::DEPLOYMENTS).expect("served");
    let object = json!({"metadata": {"name": "d", "finalizers": ["orphan"]}});
    let with = |propagation| DeleteOptions { propagation, ..DeleteOptions::default() };
    let foreground =
        marked(plan(deployments, &object, &with(Some(Propagation::Foreground)), now()));
    assert_eq!(foreground["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let kept = marked(plan(deployments, &object, &with(None), now()));
    assert_eq!(kept["metadata"]["finalizers"], json!(["orphan"]));
    let background = plan(deployments, &object, &with(Some(Propagation::Background)), now());
    assert!(matches!(background, Step::Remove));
}

#[test]
fn a_namespace_is_emptied_before_it_goes() {
    let namespaces = registry::find(&resources::NAMESPACES).expect("served");
    let object = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let mut going = marked(plan(namespaces, &object, &DeleteOptions::default(), now()));
    assert_eq!(going["status"]["phase"], "Terminating");
    assert!(!is_finished(namespaces, &going));
    going["spec"]["finalizers"] = json!([]);
    assert!(is_finished(namespaces, &going));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |options: Value| DeleteOptions::from_object(&options).expect_err("refused").code;
    assert_eq!(refused(json!({"propagationPolicy": "Sideways"})), 422);
    assert_eq!(refused(json!({"propagationPolicy": "Orphan", "orphanDependents": true})), 422);
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground", "dryRun": ["All"]});
    let options = DeleteOptions::from_object(&options).expect("understood");
    assert_eq!((options.grace_period_seconds, options.dry_run), (Some(0), true));
    assert_eq!(options.uid.as_deref(), Some("u"));
    assert_eq!(options.propagation, Some(Propagation::Foreground));
    assert!(DeleteOptions::from_object(&Value::Null).is_ok());
}
