use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::{LabelSelector, Operator, Requirement};

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let selector =
        LabelSelector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}"));
    selector
        .matches_labels(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
}

#[test]
fn each_operator_selects_what_it_says() {
    let labels = [("app", "web"), ("tier", ""), ("n", "5")];
    for selector in [
        "",
        "app=web",
        "app==web",
        "app!=db",
        "app in (web,db)",
        "app notin (db)",
        "app",
        "!other",
        "other!=x",
        "other notin (x)",
        "tier=",
        "tier in ()",
        "tier in (,x)",
        "n>4",
        "n<6",
        " app = web , n ",
        "app=web,app!=db",
        "!in",
    ] {
        assert!(matches(selector, &labels), "{selector}");
    }
    for selector in [
        "app=db",
        "app!=web",
        "app in (db)",
        "app notin (web,db)",
        "!app",
        "other",
        "other=x",
        "n>5",
        "n<5",
        "app>1",
    ] {
        assert!(!matches(selector, &labels), "{selector}");
    }
}

#[test]
fn malformed_selectors_are_refused() {
    for selector in [
        "a=b=c",
        "a in b",
        "a in (b",
        "a in (b))",
        ",",
        "a,,b",
        "a,",
        "!",
        "!a=b",
        "a!b",
        "=b",
        "a b",
        "a>x",
        "a/b/c=d",
        "a=-",
        "(a)",
        "a in (b c)",
        "a in",
        "a notin",
        "a<",
    ] {
        assert!(LabelSelector::parse(selector).is_err(), "{selector}");
    }
    let error = |text| LabelSelector::parse(text).unwrap_err().to_string();
    assert_eq!(error("a,,b"), "found ',', expected: identifier after ','");
    assert_eq!(error(",a"), "found ',', expected: !, identifier, or 'end of string'");
    assert_eq!(
        error("a b"),
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    );
}

#[test]
fn selectors_in_objects_tell_absent_from_empty() {
    let object = json!({"metadata": {"labels": {"app": "web"}}});
    assert!(!LabelSelector::from_object(&json!(null)).expect("a selector").matches(&object));
    assert!(LabelSelector::from_object(&json!({})).expect("a selector").matches(&object));
    let both = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]});
    let both = LabelSelector::from_object(&both).expect("a selector");
    assert!(both.matches(&object));
    assert_eq!(both.to_string(), "app=web,!x");
    let empty = json!({"matchExpressions": [{"key": "x", "operator": "In", "values": []}]});
    assert!(LabelSelector::from_object(&empty).is_err());
    let unknown = json!({"matchExpressions": [{"key": "x", "operator": "Near"}]});
    assert_eq!(
        LabelSelector::from_object(&unknown).unwrap_err().to_string(),
        r#""Near" is not a valid label selector operator"#
    );
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = || prop::collection::btree_set("[a-z]{0,3}", 1..3);
    let operator = prop_oneof![
        values().prop_map(Operator::In),
        values().prop_map(Operator::NotIn),
        Just(Operator::Exists),
        Just(Operator::DoesNotExist),
        any::<i64>().prop_map(Operator::GreaterThan),
        any::<i64>().prop_map(Operator::LessThan),
    ];
    ("[a-d]", operator).prop_map(|(key, operator)| Requirement { key, operator })
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_selector_back(requirements in prop::collection::vec(requirement(), 0..5)) {
        let selector = LabelSelector::all(requirements);
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn in_and_notin_are_opposites_and_all_means_each(
        requirements in prop::collection::vec(requirement(), 0..4),
        labels in prop::collection::btree_map("[a-d]", "[a-z0-9]{0,2}", 0..4),
        values in prop::collection::btree_set("[a-z]{0,2}", 1..4),
    ) {
        let labels: BTreeMap<String, String> = labels;
        let of = |key: &str| labels.get(key).map(String::as_str);
        let one = |operator| LabelSelector::all(vec![Requirement { key: "a".to_owned(), operator }]).matches_labels(of);
        prop_assert_eq!(one(Operator::In(values.clone())), !one(Operator::NotIn(values)));
        prop_assert_eq!(one(Operator::Exists), !one(Operator::DoesNotExist));
        let each = requirements.iter().all(|requirement| LabelSelector::all(vec![requirement.clone()]).matches_labels(of));
        prop_assert_eq!(LabelSelector::all(requirements).matches_labels(of), each);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC{0,40}", near in "[a-c!=,<>() ]{0,16}") {
        let _ = LabelSelector::parse(&text);
        let _ = LabelSelector::parse(&near);
    }
}
