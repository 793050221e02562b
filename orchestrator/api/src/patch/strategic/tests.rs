use podium_types::Kind;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{PatchError, apply};

fn deployment() -> Value {
    json!({"metadata": {"name": "d", "labels": {"a": "1"}, "finalizers": ["x/a", "x/b"]}, "spec": {
        "replicas": 2,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {"spec": {
            "containers": [
                {"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    "ports": [{"containerPort": 80, "name": "http"}], "args": ["-a"]},
                {"name": "log", "image": "log:1"},
            ],
            "tolerations": [{"key": "a"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }},
    }})
}

fn patched(patch: Value) -> Value {
    apply(Kind::Deployment, &deployment(), &patch).expect("a good patch")
}

fn containers(patch: Value) -> Value {
    patched(json!({"spec": {"template": {"spec": patch}}}))["spec"]["template"]["spec"]["containers"].clone()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
}

#[test]
fn items_are_merged_by_their_key() {
    let list = containers(json!({"containers": [{"name": "web", "image": "web:2"}]}));
    assert_eq!(names(&list), ["web", "log"]);
    assert_eq!(list[0]["image"], "web:2");
    assert_eq!(list[0]["args"], json!(["-a"]));
}

#[test]
fn a_removed_container_goes_with_its_directive() {
    let list = containers(json!({
        "$setElementOrder/containers": [{"name": "web"}],
        "containers": [{"name": "log", "$patch": "delete"}],
    }));
    assert_eq!(names(&list), ["web"]);
    let list = containers(json!({"containers": [{"name": "nobody", "$patch": "delete"}]}));
    assert_eq!(names(&list), ["web", "log"]);
}

#[test]
fn nested_lists_follow_their_own_keys() {
    let list = containers(json!({"containers": [{
        "name": "web",
        "$setElementOrder/env": [{"name": "B"}, {"name": "C"}],
        "env": [{"name": "A", "$patch": "delete"}, {"name": "C", "value": "3"}],
        "ports": [{"containerPort": 81}],
        "args": ["-b"],
    }]}));
    assert_eq!(names(&list[0]["env"]), ["B", "C"]);
    assert_eq!(
        list[0]["ports"],
        json!([{"containerPort": 81}, {"containerPort": 80, "name": "http"}])
    );
    assert_eq!(list[0]["args"], json!(["-b"]));
}

#[test]
fn the_order_can_be_set_for_items_that_do_not_change() {
    let list =
        containers(json!({"$setElementOrder/containers": [{"name": "log"}, {"name": "web"}]}));
    assert_eq!(names(&list), ["log", "web"]);
}

#[test]
fn an_item_that_the_order_does_not_name_keeps_its_neighbours() {
    let object = json!({"spec": {"containers": [{"name": "a"}, {"name": "other"}, {"name": "b"}]}});
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "new"}, {"name": "b"}], "containers": [{"name": "new"}]}});
    let pod = apply(Kind::Pod, &object, &patch).expect("a good patch");
    assert_eq!(names(&pod["spec"]["containers"]), ["a", "new", "other", "b"]);
}

#[test]
fn lists_without_a_key_are_replaced() {
    let spec = patched(json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}}));
    assert_eq!(spec["spec"]["template"]["spec"]["tolerations"], json!([{"key": "b"}]));
}

#[test]
fn a_directive_replaces_a_list_or_an_object() {
    let list = containers(json!({"containers": [{"name": "one"}, {"$patch": "replace"}]}));
    assert_eq!(names(&list), ["one"]);
    let labels = patched(json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}));
    assert_eq!(labels["metadata"]["labels"], json!({"b": "2"}));
    let strategy = patched(json!({"spec": {"strategy": {"$patch": "delete"}}}));
    assert!(strategy["spec"].get("strategy").is_none());
}

#[test]
fn only_retained_keys_stay() {
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched(patch)["spec"]["strategy"], json!({"type": "Recreate"}));
    let patch = json!({"spec": {"template": {"spec": {"volumes": [
        {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}},
    ]}}}});
    let volumes = &patched(patch)["spec"]["template"]["spec"]["volumes"];
    assert_eq!(*volumes, json!([{"name": "v", "configMap": {"name": "c"}}]));
    let stray = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let refused = apply(Kind::Deployment, &deployment(), &stray);
    assert!(matches!(refused, Err(PatchError::Malformed(_))));
}

#[test]
fn sets_grow_and_shrink() {
    let grown = patched(json!({"metadata": {"finalizers": ["x/c", "x/a"]}}));
    assert_eq!(grown["metadata"]["finalizers"], json!(["x/a", "x/b", "x/c"]));
    let shrunk = patched(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"]}}));
    assert_eq!(shrunk["metadata"]["finalizers"], json!(["x/b"]));
    let both = patched(json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["x/a"], "$setElementOrder/finalizers": ["x/z", "x/b"], "finalizers": ["x/z"],
    }}));
    assert_eq!(both["metadata"]["finalizers"], json!(["x/z", "x/b"]));
}

#[test]
fn nulls_take_fields_away() {
    let without = patched(
        json!({"spec": {"replicas": null}, "metadata": {"labels": {"a": null, "b": null}}}),
    );
    assert!(without["spec"].get("replicas").is_none());
    assert_eq!(without["metadata"]["labels"], json!({}));
    let new = patched(json!({"metadata": {"annotations": {"x": null, "y": "1"}}}));
    assert_eq!(new["metadata"]["annotations"], json!({"y": "1"}));
}

#[test]
fn senseless_directives_are_refused() {
    for patch in [
        json!({"spec": {"$patch": "sideways"}}),
        json!({"spec": {"template": {"spec": {"containers": [{"image": "no name"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": ["text"]}}}}),
        json!({"spec": {"template": {"spec": {"$setElementOrder/containers": {}, "containers": []}}}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x/a"}}),
        json!({"spec": {"strategy": {"$retainKeys": "type"}}}),
    ] {
        let answer = apply(Kind::Deployment, &deployment(), &patch);
        assert!(matches!(answer, Err(PatchError::Malformed(_))), "{patch}: {answer:?}");
    }
}

fn item_list() -> impl Strategy<Value = Value> {
    let item = (0..6_u8, 0..4_u8).prop_map(|(name, image)| (format!("c{name}"), image));
    prop::collection::vec(item, 0..5).prop_map(|items| {
        let mut seen = std::collections::BTreeSet::new();
        let items = items.into_iter().filter(|(name, _)| seen.insert(name.clone()));
        items.map(|(name, image)| json!({"name": name, "image": image.to_string()})).collect()
    })
}

/// The patch that kubectl makes between two lists of containers.
fn difference(from: &Value, to: &Value) -> Value {
    let has = |list: &Value, name: &Value| {
        list.as_array().is_some_and(|list| list.iter().any(|item| item["name"] == *name))
    };
    let mut items: Vec<Value> = to.as_array().cloned().unwrap_or_default();
    for gone in from.as_array().into_iter().flatten().filter(|item| !has(to, &item["name"])) {
        items.push(json!({"name": gone["name"], "$patch": "delete"}));
    }
    let order: Value =
        to.as_array().into_iter().flatten().map(|item| json!({"name": item["name"]})).collect();
    json!({"spec": {"$setElementOrder/containers": order, "containers": items}})
}

proptest! {
    #[test]
    fn the_difference_of_two_lists_leads_from_one_to_the_other(from in item_list(), to in item_list()) {
        let object = json!({"spec": {"containers": from.clone()}});
        let patch = difference(&from, &to);
        let result = apply(Kind::Pod, &object, &patch).expect("a good patch");
        prop_assert_eq!(&result["spec"]["containers"], &to);
        let again = apply(Kind::Pod, &result, &patch).expect("a good patch");
        prop_assert_eq!(again, result);
    }

    #[test]
    fn an_empty_patch_changes_nothing(list in item_list()) {
        let object = json!({"spec": {"containers": list}});
        prop_assert_eq!(apply(Kind::Pod, &object, &json!({})).expect("a good patch"), object);
    }
}
