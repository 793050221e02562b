use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DecodeError, FieldValidation, check, decode};
use crate::kind::Kind;

fn strict(kind: Kind, body: &str) -> Result<Value, String> {
    match decode(kind, body.as_bytes(), FieldValidation::Strict) {
        Ok(decoded) => Ok(decoded.object),
        Err(error) => Err(error.message(kind)),
    }
}

#[test]
fn unknown_and_duplicate_fields_are_named_with_their_paths() {
    let body = r#"{"metadata":{"name":"a","foo":1},"dta":{},"data":{"a":"1","a":"2"}}"#;
    assert_eq!(
        strict(Kind::ConfigMap, body).unwrap_err(),
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "metadata.foo", unknown field "dta", duplicate field "data.a""#
    );
    let body = r#"{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"x","ports":[{"containerport":1}]}],"nodeName":"x","nodeName":"y"}}"#;
    assert_eq!(
        decode(Kind::Pod, body.as_bytes(), FieldValidation::Strict),
        Err(DecodeError::Strict(vec![
            r#"unknown field "spec.containers[1].imagee""#.to_owned(),
            r#"unknown field "spec.containers[1].ports[0].containerport""#.to_owned(),
            r#"duplicate field "spec.nodeName""#.to_owned(),
        ]))
    );
}

#[test]
fn without_strictness_unknown_fields_are_dropped_and_reported() {
    let body = br#"{"spec":{"replicas":2,"foo":{"bar":[1,2]}}}"#;
    let warned = decode(Kind::Deployment, body, FieldValidation::Warn).expect("decoded");
    assert_eq!(warned.object, json!({"spec": {"replicas": 2}}));
    assert_eq!(warned.warnings, [r#"unknown field "spec.foo""#]);
    let ignored = decode(Kind::Deployment, body, FieldValidation::Ignore).expect("decoded");
    assert_eq!((ignored.object, ignored.warnings), (json!({"spec": {"replicas": 2}}), vec![]));
}

#[test]
fn wrong_types_are_named_in_the_words_of_kubernetes() {
    let cases = [
        (
            Kind::Deployment,
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Kind::Deployment,
            r#"{"spec":{"template":{"spec":{"containers":[{"image":7}]}}}}"#,
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string",
        ),
        (
            Kind::Pod,
            r#"{"spec":{"containers":{"name":"a"}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            Kind::Pod,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            Kind::Pod,
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (Kind::Pod, "[1]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            Kind::Pod,
            r#"{"spec":{"hostNetwork":"yes"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            Kind::Deployment,
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Kind::Deployment,
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            Kind::Secret,
            r#"{"data":{"a":"???"}}"#,
            r#"illegal base64 data at input byte 0 (in field "data.a")"#,
        ),
        (
            Kind::Pod,
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"much"}}}]}}"#,
            r#"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (in field "spec.containers[0].resources.limits.cpu")"#,
        ),
    ];
    for (kind, body, message) in cases {
        let error = decode(kind, body.as_bytes(), FieldValidation::Strict).unwrap_err();
        assert_eq!(error.to_string(), message, "{body}");
    }
}

#[test]
fn a_wrong_type_is_reported_before_unknown_fields_and_only_the_first() {
    let body = r#"{"foo":1,"spec":{"replicas":"3","paused":3}}"#;
    assert_eq!(
        strict(Kind::Deployment, body).unwrap_err(),
        r#"Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"#
    );
}

#[test]
fn nulls_go_and_quantities_and_times_become_canonical() {
    let body = r#"{"metadata":{"creationTimestamp":null,"labels":{"a":null}},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1,"memory":"1024Mi"},"requests":{"cpu":0.5}}}],"nodeName":null},
        "status":{"startTime":"2026-11-21T12:00:00.5+02:00"}}"#;
    assert_eq!(
        strict(Kind::Pod, body).expect("decoded"),
        json!({
            "metadata": {"labels": {"a": ""}},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]},
            "status": {"startTime": "2026-11-21T10:00:00Z"},
        })
    );
}

#[test]
fn fields_of_any_shape_are_kept_as_they_are() {
    let body = r#"{"metadata":{"managedFields":[{"manager":"m","fieldsV1":{"f:spec":{".":{},"x":[null,1]}}}]}}"#;
    assert_eq!(
        strict(Kind::Pod, body).expect("decoded"),
        serde_json::from_str::<Value>(body).expect("JSON")
    );
}

#[test]
fn text_that_is_not_json_says_where() {
    let error = strict(Kind::Pod, r#"{"spec":"#).unwrap_err();
    assert!(
        error.starts_with(
            r#"Pod in version "v1" cannot be handled as a Pod: json: EOF while parsing"#
        ),
        "{error}"
    );
    assert!(strict(Kind::Pod, "{} x").is_err());
}

fn json_value() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "metadata",
        "spec",
        "status",
        "name",
        "labels",
        "containers",
        "ports",
        "containerPort",
        "template",
        "replicas",
        "env",
        "volumes",
        "resources",
        "limits",
        "cpu",
        "type",
        "data",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9 .-]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in prop::sample::select(Kind::ALL.to_vec())) {
        let _ = decode(kind, &bytes, FieldValidation::Strict);
    }

    #[test]
    fn what_was_decoded_decodes_to_itself(value in json_value(), kind in prop::sample::select(Kind::ALL.to_vec())) {
        if let Ok(once) = check(kind, value, FieldValidation::Ignore) {
            let bytes = crate::canonical::encode_value(&once.object);
            let twice = decode(kind, &bytes, FieldValidation::Strict).expect("nothing unknown is left");
            prop_assert_eq!(twice.object, once.object);
        }
    }
}
