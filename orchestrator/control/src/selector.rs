//! Whether labels are selected.
//!
//! An operator that is not one of Kubernetes' selects nothing; validation refuses it before it gets here.

use std::collections::BTreeMap;

use podium_types::k8s::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The labels of an object, or none.
pub type Labels = BTreeMap<String, String>;

/// Whether a selector selects these labels. An empty selector selects everything.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let equal = selector.match_labels.as_ref().is_none_or(|wanted| includes(labels, wanted));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let values = expression.values.as_deref().unwrap_or_default();
            requirement(labels, &expression.key, &expression.operator, values)
        })
}

/// Whether a selector selects everything, which controllers refuse to own.
#[must_use]
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether labels hold all of `wanted`.
#[must_use]
pub fn includes(labels: Option<&Labels>, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

/// One requirement on one label, with the operators of label selectors and of node selectors.
#[must_use]
pub fn requirement(labels: Option<&Labels>, key: &str, operator: &str, values: &[String]) -> bool {
    let value = labels.and_then(|labels| labels.get(key));
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |order: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(number);
        value.and_then(number).zip(bound).is_some_and(|(value, bound)| order(&value, &bound))
    };
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Labels, requirement};

    #[test]
    fn operators_treat_a_missing_label_as_kubernetes_does() {
        let labels = Labels::from([("tier".to_owned(), "3".to_owned())]);
        let two = ["2".to_owned(), "4".to_owned()];
        let cases = [
            ("In", "tier", false),
            ("NotIn", "tier", true),
            ("NotIn", "absent", true),
            ("Exists", "tier", true),
            ("DoesNotExist", "absent", true),
            ("Gt", "tier", true),
            ("Lt", "tier", false),
            ("Gt", "absent", false),
            ("Sideways", "tier", false),
        ];
        for (operator, key, expected) in cases {
            assert_eq!(
                requirement(Some(&labels), key, operator, &two),
                expected,
                "{operator} {key}"
            );
        }
    }
}
