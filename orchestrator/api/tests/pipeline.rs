//! The verbs on a store in memory.

use futures::executor::block_on;
use futures::future::join_all;
use podium_api::patch::Patch;
use podium_api::pipeline::{
    Config, DeleteOptions, FieldValidation, Input, ListOptions, Match, Propagation, ReadOptions,
    WatchOptions, WriteOptions,
};
use podium_api::{Status, Target, User};
use podium_store::{Revision, StoreHandle as _};
use podium_types::kind::resources;
use podium_types::{ObjectKey, object};
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "support/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod world;
use world::{World, row, told};

#[path = "pipeline/claims_tests.rs"]
mod claims_tests;

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "1"}})
}

fn config_key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::CONFIG_MAPS, "default", name)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::new(resources::PODS, "default", name)
}

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]}})
}

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"a": name}},
        "template": {"metadata": {"labels": {"a": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

/// Code, reason and message, for comparing.
fn told_of<T: std::fmt::Debug>(answer: Result<T, Status>) -> (u16, &'static str, String) {
    let status = answer.expect_err("refused");
    (status.code, status.reason, status.message)
}

#[test]
fn a_new_object_gets_what_the_server_gives() {
    block_on(async {
        let world = World::new().await;
        let mut asked = deployment("d");
        asked["metadata"]["uid"] = json!("mine");
        asked["status"] = json!({"replicas": 9});
        let written = world.create(resources::DEPLOYMENTS, asked).await.expect("created");
        let made = &written.object;
        assert_eq!(made["apiVersion"], "apps/v1");
        assert_eq!(made["kind"], "Deployment");
        assert_eq!(object::uid(made).len(), 36);
        assert_eq!(made["metadata"]["creationTimestamp"], "2026-11-21T10:00:00Z");
        assert_eq!(object::generation(made), 1);
        assert_eq!(made["status"], json!({}));
        assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate");
        assert_eq!(object::resource_version(made), Some(written.revision.to_string().as_str()));
        let key = ObjectKey::new(resources::DEPLOYMENTS, "default", "d");
        assert_eq!(world.get(&key).await.as_ref(), Ok(made));
    });
}

#[test]
fn generated_names_are_unique() {
    block_on(async {
        let world = World::new().await;
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let asked = json!({"metadata": {"generateName": "web-", "namespace": "default"}});
            let written = world.create(resources::CONFIG_MAPS, asked).await.expect("created");
            let name = object::name(&written.object).to_owned();
            assert!(name.starts_with("web-") && name.len() == 9, "{name}");
            assert!(names.insert(name));
        }
    });
}

#[test]
fn refusals_say_what_kubernetes_says() {
    block_on(async {
        let world = World::new().await;
        world.create(resources::CONFIG_MAPS, config_map("c")).await.expect("created");
        let conflict = (409, "AlreadyExists", "configmaps \"c\" already exists".to_owned());
        assert_eq!(told_of(world.create(resources::CONFIG_MAPS, config_map("c")).await), conflict);
        let nowhere = json!({"metadata": {"name": "c", "namespace": "nope"}});
        let missing = (404, "NotFound", "namespaces \"nope\" not found".to_owned());
        assert_eq!(told_of(world.create(resources::CONFIG_MAPS, nowhere).await), missing);
        let missing = (404, "NotFound", "deployments.apps \"x\" not found".to_owned());
        let key = ObjectKey::new(resources::DEPLOYMENTS, "default", "x");
        assert_eq!(told_of(world.get(&key).await), missing);
        assert_eq!(told_of(world.update(&key, deployment("x")).await), missing);

        let mut stale = config_map("c");
        stale["metadata"]["resourceVersion"] = json!("1");
        let message = "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your \
                       changes to the latest version and try again";
        let modified = (409, "Conflict", message.to_owned());
        assert_eq!(told_of(world.update(&config_key("c"), stale).await), modified);
        let other = "the name of the object (zz) does not match the name on the URL (c)";
        let renamed = (400, "BadRequest", other.to_owned());
        assert_eq!(told_of(world.update(&config_key("c"), config_map("zz")).await), renamed);
        let elsewhere = json!({"metadata": {"name": "c", "namespace": "kube-system"}});
        let message =
            "the namespace of the provided object does not match the namespace sent on the request";
        assert_eq!(
            told_of(world.update(&config_key("c"), elsewhere).await),
            (400, "BadRequest", message.to_owned())
        );
        let namespace = ObjectKey::new(resources::NAMESPACES, "", "default");
        let message = "namespaces \"default\" is forbidden: this namespace may not be deleted";
        assert_eq!(
            told_of(world.delete(&namespace, &DeleteOptions::default()).await),
            (403, "Forbidden", message.to_owned())
        );
        let bob = User::authenticated("bob", []);
        let all = Target::collection(row(&resources::CONFIG_MAPS), "default");
        let message = "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\"";
        let listed = world.pipeline.list(&bob, &all, &ListOptions::default()).await;
        assert_eq!(told_of(listed), (403, "Forbidden", message.to_owned()));
        let listed = world.pipeline.list(&User::anonymous(), &all, &ListOptions::default()).await;
        assert_eq!(told_of(listed), (401, "Unauthorized", "Unauthorized".to_owned()));
    });
}

#[test]
fn statuses_have_the_details_that_clients_read() {
    block_on(async {
        let world = World::new().await;
        let bad =
            json!({"metadata": {"name": "Bad_Name", "namespace": "default"}, "data": {"a/b": "x"}});
        let status =
            world.create(resources::CONFIG_MAPS, bad).await.expect_err("invalid").to_json();
        assert_eq!(status["code"], 422);
        assert_eq!(status["details"]["kind"], "ConfigMap");
        let fields: Vec<_> = status["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|cause| &cause["field"])
            .collect();
        assert_eq!(fields, ["metadata.name", "data[a/b]"]);
        assert!(
            status["message"].as_str().is_some_and(|text| text
                .starts_with("ConfigMap \"Bad_Name\" is invalid: [metadata.name: Invalid value")),
            "{status}"
        );
        let status = world.get(&pod_key("x")).await.expect_err("missing").to_json();
        let wanted = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "pods \"x\" not found", "details": {"name": "x", "kind": "pods"},
        });
        assert_eq!(status, wanted);
    });
}

#[test]
fn unknown_fields_are_refused_warned_of_or_ignored() {
    block_on(async {
        let world = World::new().await;
        let target = Target::collection(row(&resources::CONFIG_MAPS), "default");
        let body = |name: &str| {
            let text = format!(
                r#"{{"metadata": {{"name": "{name}", "foo": 1}}, "dta": {{}}, "data": {{"a": "1", "a": "2"}}}}"#
            );
            Input::Json(text.into())
        };
        let create = async |name: &str, field_validation| {
            let options = WriteOptions { field_validation, ..WriteOptions::default() };
            world.pipeline.create(&world.admin, &target, body(name), &options).await
        };
        let message = "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
                       unknown field \"metadata.foo\", unknown field \"dta\", duplicate field \"data.a\"";
        let strict = create("a", FieldValidation::Strict).await;
        assert_eq!(told_of(strict), (400, "BadRequest", message.to_owned()));
        let warned = create("b", FieldValidation::Warn).await.expect("created");
        assert_eq!(
            warned.warnings,
            [
                "unknown field \"metadata.foo\"",
                "unknown field \"dta\"",
                "duplicate field \"data.a\""
            ]
        );
        assert_eq!(warned.object["data"], json!({"a": "2"}));
        let ignored = create("c", FieldValidation::Ignore).await.expect("created");
        assert!(ignored.warnings.is_empty());
    });
}

#[test]
fn bodies_of_another_kind_are_refused() {
    block_on(async {
        let world = World::new().await;
        let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x", "namespace": "default"}});
        let message = "Secret in version \"v1\" cannot be handled as a ConfigMap: the kind in the data does not match the path";
        let refused = (400, "BadRequest", message.to_owned());
        assert_eq!(told_of(world.create(resources::CONFIG_MAPS, other).await), refused);
        let old = json!({"apiVersion": "apps/v1beta1", "metadata": {"name": "x", "namespace": "default"}});
        let message = "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)";
        let refused = (400, "BadRequest", message.to_owned());
        assert_eq!(told_of(world.create(resources::DEPLOYMENTS, old).await), refused);
    });
}

#[test]
fn spec_and_status_are_written_apart() {
    block_on(async {
        let world = World::new().await;
        world.create(resources::DEPLOYMENTS, deployment("d")).await.expect("created");
        let key = ObjectKey::new(resources::DEPLOYMENTS, "default", "d");
        let both = json!({"spec": {"replicas": 5}, "status": {"replicas": 4}});
        let main = world.merge(&key, "", both.clone()).await.expect("patched").object;
        assert_eq!((&main["spec"]["replicas"], &main["status"]), (&json!(5), &json!({})));
        assert_eq!(object::generation(&main), 2);
        let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 4}});
        let status = world.merge(&key, "status", both).await.expect("patched").object;
        assert_eq!(
            (&status["spec"]["replicas"], &status["status"]["replicas"]),
            (&json!(5), &json!(4))
        );
        assert_eq!(object::generation(&status), 2);
    });
}

#[test]
fn an_update_without_a_version_overwrites_unless_its_kind_needs_one() {
    block_on(async {
        let world = World::new().await;
        world.create(resources::CONFIG_MAPS, config_map("c")).await.expect("created");
        for version in [Value::Null, json!("0")] {
            let mut object = config_map("c");
            object["metadata"]["resourceVersion"] = version.clone();
            object["data"]["version"] = json!(version.to_string());
            world.update(&config_key("c"), object).await.expect("updated");
        }
        let lease = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {}});
        world.create(resources::LEASES, lease.clone()).await.expect("created");
        let key = ObjectKey::new(resources::LEASES, "default", "l");
        let message = "Lease.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update";
        assert_eq!(told_of(world.update(&key, lease).await), (422, "Invalid", message.to_owned()));
    });
}

#[test]
fn a_write_that_changes_nothing_is_not_written() {
    block_on(async {
        let world = World::new().await;
        let first = world.create(resources::CONFIG_MAPS, config_map("c")).await.expect("created");
        let again = world.update(&config_key("c"), first.object.clone()).await.expect("updated");
        assert_eq!(again.revision, first.revision);
        assert_eq!(again.object, first.object);
        let changed = world.merge(&config_key("c"), "", json!({"data": {"b": "2"}})).await;
        assert_eq!(changed.expect("patched").revision, first.revision + 1);
    });
}

#[test]
fn dry_runs_answer_and_leave_no_trace() {
    block_on(async {
        let world = World::new().await;
        let before = world.store.local().revision();
        let target = Target::collection(row(&resources::SERVICES), "default");
        let options = WriteOptions { dry_run: true, ..WriteOptions::default() };
        let made =
            world.pipeline.create(&world.admin, &target, service("s").into(), &options).await;
        let made = made.expect("would be created").object;
        assert_eq!(object::resource_version(&made), None);
        assert!(
            made["spec"]["clusterIP"].as_str().is_some_and(|address| address.starts_with("10.96."))
        );
        assert_eq!(world.store.local().revision(), before);
    });
}

#[test]
fn patches_meet_their_preconditions_or_change_nothing() {
    block_on(async {
        let world = World::new().await;
        let made =
            world.create(resources::CONFIG_MAPS, config_map("c")).await.expect("created").object;
        let key = config_key("c");
        let version = object::resource_version(&made).map(str::to_owned);
        let patch = json!({"metadata": {"uid": object::uid(&made), "resourceVersion": version}, "data": {"x": "1"}});
        world.merge(&key, "", patch.clone()).await.expect("patched");
        assert_eq!(told_of(world.merge(&key, "", patch).await).1, "Conflict");
        let other = json!({"metadata": {"uid": "another"}, "data": {"x": "2"}});
        let message = format!(
            "Operation cannot be fulfilled on configmaps \"c\": Precondition failed: UID in precondition: another, UID in object meta: {}",
            object::uid(&made)
        );
        assert_eq!(told_of(world.merge(&key, "", other).await), (409, "Conflict", message));
        let test = json!([{"op": "test", "path": "/data/x", "value": "9"}]);
        let target = Target::object(&key).expect("served");
        let patch = Patch::json(test).expect("a patch");
        let options = WriteOptions::default();
        let refused = world.pipeline.patch(&world.admin, &target, &patch, &options).await;
        let message = "the server rejected our request due to an error in our request";
        assert_eq!(told_of(refused), (422, "Invalid", message.to_owned()));
    });
}

#[test]
fn scale_is_a_view_of_the_replicas() {
    block_on(async {
        let world = World::new().await;
        world.create(resources::DEPLOYMENTS, deployment("d")).await.expect("created");
        let key = ObjectKey::new(resources::DEPLOYMENTS, "default", "d");
        let target = Target::object(&key).and_then(|target| target.part("scale")).expect("served");
        let scale = world.pipeline.get(&world.admin, &target, &ReadOptions::default()).await;
        let mut scale = scale.expect("found").value();
        assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
        assert_eq!(scale["status"]["selector"], "a=d");
        scale["spec"]["replicas"] = json!(7);
        let options = WriteOptions::default();
        let update =
            world.pipeline.update(&world.admin, &target, scale.clone().into(), &options).await;
        assert_eq!(update.expect("updated").object["spec"]["replicas"], 7);
        assert_eq!(world.get(&key).await.expect("found")["spec"]["replicas"], 7);
        let stale = world.pipeline.update(&world.admin, &target, scale.into(), &options).await;
        assert_eq!(told_of(stale).1, "Conflict");
        let negative = world.merge(&key, "scale", json!({"spec": {"replicas": -1}})).await;
        assert_eq!(told_of(negative).0, 422);
    });
}

#[test]
fn pages_are_of_one_revision_until_it_is_forgotten() {
    block_on(async {
        let world = World::new().await;
        for name in ["a", "b", "c", "d", "e"] {
            world.create(resources::CONFIG_MAPS, config_map(name)).await.expect("created");
        }
        let page = |token: Option<String>| ListOptions {
            limit: Some(2),
            continue_token: token,
            ..ListOptions::default()
        };
        let (names, first) =
            world.list(resources::CONFIG_MAPS, "", &page(None)).await.expect("a page");
        assert_eq!((names, first.remaining), (vec!["a".to_owned(), "b".to_owned()], Some(3)));
        world.delete(&config_key("c"), &DeleteOptions::default()).await.expect("deleted");
        world.create(resources::CONFIG_MAPS, config_map("bb")).await.expect("created");
        let token = first.continue_token.clone();
        let second = world.list(resources::CONFIG_MAPS, "", &page(token.clone())).await;
        let (names, second) = second.expect("a page");
        assert_eq!(names, ["c", "d"]);
        assert_eq!(second.revision, first.revision);

        world.store.compact(world.store.local().revision());
        let status =
            world.list(resources::CONFIG_MAPS, "", &page(token)).await.expect_err("forgotten");
        assert_eq!((status.code, status.reason), (410, "Expired"));
        assert!(status.continue_token.is_some());
        let rest = world.list(resources::CONFIG_MAPS, "", &page(status.continue_token)).await;
        let (names, rest) = rest.expect("an inconsistent page");
        assert_eq!(names, ["bb", "d"]);
        assert!(rest.revision > first.revision);
        let bad = page(Some("nonsense".to_owned()));
        assert_eq!(told_of(world.list(resources::CONFIG_MAPS, "", &bad).await).0, 400);
    });
}

#[test]
fn lists_are_as_old_as_asked() {
    block_on(async {
        let world = World::new().await;
        let first = world.create(resources::CONFIG_MAPS, config_map("a")).await.expect("created");
        world.create(resources::CONFIG_MAPS, config_map("b")).await.expect("created");
        let at = |version, meant| ListOptions {
            resource_version: Some(version),
            resource_version_match: meant,
            ..ListOptions::default()
        };
        let exact = at(first.revision, Some(Match::Exact));
        let (names, listing) =
            world.list(resources::CONFIG_MAPS, "default", &exact).await.expect("a list");
        assert_eq!((names, listing.revision), (vec!["a".to_owned()], first.revision));
        let (names, _) = world
            .list(resources::CONFIG_MAPS, "default", &at(first.revision, None))
            .await
            .expect("a list");
        assert_eq!(names, ["a", "b"]);
        let future =
            world.list(resources::CONFIG_MAPS, "", &at(1000, None)).await.expect_err("not yet");
        assert_eq!((future.code, future.reason), (504, "Timeout"));
        assert_eq!(future.details.causes[0].0, "ResourceVersionTooLarge");
    });
}

#[test]
fn selectors_choose_by_labels_and_fields() {
    block_on(async {
        let world = World::new().await;
        for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
            let mut object = pod(name);
            object["metadata"]["labels"] = json!({"l": label});
            object["spec"]["nodeName"] = json!(format!("n{label}"));
            world.create(resources::PODS, object).await.expect("created");
        }
        let by = |labels: &str, fields: &str| ListOptions {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..ListOptions::default()
        };
        for (labels, fields, wanted) in [
            ("l=1", "", vec!["a", "c"]),
            ("l in (2,3)", "", vec!["b"]),
            ("", "spec.nodeName=n2", vec!["b"]),
            ("l=1", "metadata.name!=a", vec!["c"]),
            ("", "metadata.name=c,metadata.namespace=default", vec!["c"]),
            ("", "metadata.name=c,metadata.namespace=other", vec![]),
            ("!l", "", vec![]),
        ] {
            let (names, listing) =
                world.list(resources::PODS, "", &by(labels, fields)).await.expect("a list");
            assert_eq!(names, wanted, "{labels} {fields}");
            assert_eq!(listing.remaining, None);
        }
        let unknown = world.list(resources::PODS, "", &by("", "spec.foo=x")).await;
        assert_eq!(
            told_of(unknown),
            (400, "BadRequest", "field label not supported: spec.foo".to_owned())
        );
    });
}

#[test]
fn a_watch_tells_what_comes_into_its_selection_and_what_leaves_it() {
    block_on(async {
        let world = World::new().await;
        let options = WatchOptions { label_selector: "l=1".to_owned(), ..WatchOptions::default() };
        let mut watcher = world.watch(resources::CONFIG_MAPS, options).await.expect("a watch");
        let mut labelled = config_map("a");
        labelled["metadata"]["labels"] = json!({"l": "1"});
        world.create(resources::CONFIG_MAPS, config_map("other")).await.expect("created");
        world.create(resources::CONFIG_MAPS, labelled).await.expect("created");
        let key = config_key("a");
        world.merge(&key, "", json!({"data": {"x": "1"}})).await.expect("patched");
        let left = world
            .merge(&key, "", json!({"metadata": {"labels": {"l": "2"}}}))
            .await
            .expect("patched");
        world.merge(&key, "", json!({"metadata": {"labels": {"l": "1"}}})).await.expect("patched");
        world.delete(&key, &DeleteOptions::default()).await.expect("deleted");
        let mut events = Vec::new();
        for _ in 0..5 {
            events.push(watcher.next().await.expect("an event"));
        }
        let seen: Vec<String> = events.iter().map(told).collect();
        assert_eq!(seen, ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"]);
        let leaving = events[2].object.value();
        assert_eq!(object::label(&leaving, "l"), Some("1"));
        assert_eq!(object::resource_version(&leaving), Some(left.revision.to_string().as_str()));
        let bookmark = watcher.bookmark().expect("can tell").object.value();
        assert_eq!(
            object::resource_version(&bookmark),
            Some(world.store.local().revision().to_string().as_str())
        );
    });
}

#[test]
fn a_watch_list_ends_its_beginning_with_a_bookmark() {
    block_on(async {
        let world = World::new().await;
        let options = WatchOptions {
            send_initial_events: true,
            resource_version_match: Some(Match::NotOlderThan),
            allow_bookmarks: true,
            ..WatchOptions::default()
        };
        let mut watcher =
            world.watch(resources::NAMESPACES, options.clone()).await.expect("a watch");
        assert!(watcher.bookmark().is_none(), "nothing may overtake the initial events");
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            assert_eq!(told(&watcher.next().await.expect("an event")), format!("ADDED {name}"));
        }
        let end = watcher.next().await.expect("an event");
        let object = end.object.value();
        assert_eq!(end.kind.as_str(), "BOOKMARK");
        assert_eq!(object::annotation(&object, "k8s.io/initial-events-end"), Some("true"));
        assert_eq!(object["kind"], "Namespace");
        let wrong = WatchOptions { resource_version_match: None, ..options };
        assert_eq!(told_of(world.watch(resources::NAMESPACES, wrong).await).0, 422);
    });
}

#[test]
fn a_watch_from_the_forgotten_past_says_so_first() {
    block_on(async {
        let world = World::new().await;
        world.store.compact(world.store.local().revision());
        let options = WatchOptions { resource_version: Some(1), ..WatchOptions::default() };
        let mut watcher = world.watch(resources::NAMESPACES, options).await.expect("a watch");
        let status = watcher.next().await.expect_err("too old");
        assert_eq!((status.code, status.reason), (410, "Expired"));
        assert!(status.message.starts_with("too old resource version: 1 ("), "{}", status.message);
    });
}

#[test]
fn nothing_is_created_in_a_namespace_that_goes() {
    block_on(async {
        let world = World::new().await;
        world
            .create(resources::NAMESPACES, json!({"metadata": {"name": "n"}}))
            .await
            .expect("created");
        let namespace = ObjectKey::new(resources::NAMESPACES, "", "n");
        let going = world.delete(&namespace, &DeleteOptions::default()).await.expect("deleted");
        assert_eq!(going["status"]["phase"], "Terminating");
        let object = json!({"metadata": {"name": "c", "namespace": "n"}});
        let status = world.create(resources::CONFIG_MAPS, object).await.expect_err("refused");
        let message = "configmaps \"c\" is forbidden: unable to create new content in namespace n because it is being terminated";
        assert_eq!((status.code, status.message.as_str()), (403, message));
        assert_eq!(status.details.causes[0].0, "NamespaceTerminating");

        let finalize = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
        let target =
            Target::object(&namespace).and_then(|target| target.part("finalize")).expect("served");
        let options = WriteOptions::default();
        world
            .pipeline
            .update(&world.admin, &target, finalize.into(), &options)
            .await
            .expect("finalized");
        assert_eq!(told_of(world.get(&namespace).await).1, "NotFound");
    });
}

#[test]
fn an_object_with_finalizers_goes_with_the_last_of_them() {
    block_on(async {
        let world = World::new().await;
        let mut held = config_map("c");
        held["metadata"]["finalizers"] = json!(["a.b/one", "a.b/two"]);
        world.create(resources::CONFIG_MAPS, held).await.expect("created");
        let key = config_key("c");
        let going = world.delete(&key, &DeleteOptions::default()).await.expect("deleted");
        assert_eq!(going["metadata"]["deletionTimestamp"], "2026-11-21T10:00:00Z");
        world.clock.advance(60);
        let again = world.delete(&key, &DeleteOptions::default()).await.expect("deleted");
        assert_eq!(again["metadata"]["deletionTimestamp"], "2026-11-21T10:00:00Z");
        world
            .merge(&key, "", json!({"metadata": {"finalizers": ["a.b/two"]}}))
            .await
            .expect("patched");
        assert!(world.get(&key).await.is_ok());
        let more = json!({"metadata": {"finalizers": ["a.b/two", "a.b/new"]}});
        assert_eq!(told_of(world.merge(&key, "", more).await).0, 422);
        world.merge(&key, "", json!({"metadata": {"finalizers": null}})).await.expect("patched");
        assert_eq!(told_of(world.get(&key).await).1, "NotFound");
    });
}

#[test]
fn deletions_keep_to_their_preconditions() {
    block_on(async {
        let world = World::new().await;
        world.create(resources::CONFIG_MAPS, config_map("c")).await.expect("created");
        let key = config_key("c");
        let other = DeleteOptions { uid: Some("another".to_owned()), ..DeleteOptions::default() };
        assert_eq!(told_of(world.delete(&key, &other).await).1, "Conflict");
        let stale =
            DeleteOptions { resource_version: Some("1".to_owned()), ..DeleteOptions::default() };
        assert_eq!(told_of(world.delete(&key, &stale).await).1, "Conflict");
        let foreground = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..DeleteOptions::default()
        };
        let going = world.delete(&key, &foreground).await.expect("deleted");
        assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        world.create(resources::CONFIG_MAPS, config_map("d")).await.expect("created");
        let gone =
            world.delete(&config_key("d"), &DeleteOptions::default()).await.expect("deleted");
        assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
        assert_eq!(gone["details"]["kind"], "configmaps");
    });
}

#[test]
fn an_evicted_pod_is_deleted_with_its_grace() {
    block_on(async {
        let world = World::new().await;
        let mut wanted = pod("p");
        wanted["spec"]["nodeName"] = json!("n1");
        wanted["spec"]["terminationGracePeriodSeconds"] = json!(7);
        world.create(resources::PODS, wanted).await.expect("created");
        let key = pod_key("p");
        world
            .merge(&key, "status", json!({"status": {"phase": "Running"}}))
            .await
            .expect("it runs");
        let target =
            Target::object(&key).and_then(|target| target.part("eviction")).expect("served");
        let evict = async |name: &str, options: Value| {
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": {"name": name, "namespace": "default"}, "deleteOptions": options});
            let options = WriteOptions::default();
            world.pipeline.create(&world.admin, &target, eviction.into(), &options).await
        };
        let (code, _, message) = told_of(evict("q", json!({})).await);
        assert_eq!((code, &*message), (400, "name in URL does not match name in Eviction object"));
        let another = json!({"preconditions": {"uid": "another"}});
        assert_eq!(told_of(evict("p", another).await).1, "Conflict");
        let written = evict("p", json!({})).await.expect("evicted").object;
        let said = (&written["kind"], &written["status"], &written["code"]);
        assert_eq!(said, (&json!("Status"), &json!("Success"), &json!(201)));
        let going = world.get(&key).await.expect("it has its grace");
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
        let now = json!({"gracePeriodSeconds": 0});
        evict("p", now).await.expect("evicted again, for good");
        assert_eq!(told_of(evict("p", json!({})).await).1, "NotFound");
    });
}

#[test]
fn a_collection_goes_one_by_one() {
    block_on(async {
        let world = World::new().await;
        for name in ["a", "b", "c"] {
            let mut object = config_map(name);
            object["metadata"]["labels"] = json!({"keep": (name == "b").to_string()});
            world.create(resources::CONFIG_MAPS, object).await.expect("created");
        }
        let target = Target::collection(row(&resources::CONFIG_MAPS), "default");
        let which =
            ListOptions { label_selector: "keep!=true".to_owned(), ..ListOptions::default() };
        let options = DeleteOptions::default();
        let deleted =
            world.pipeline.delete_collection(&world.admin, &target, &which, &options).await;
        assert_eq!(deleted.expect("deleted").len(), 2);
        let (names, _) = world
            .list(resources::CONFIG_MAPS, "default", &ListOptions::default())
            .await
            .expect("a list");
        assert_eq!(names, ["b"]);
    });
}
