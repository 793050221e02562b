//! Selecting by labels.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::{SelectorError, label_text};
use crate::names;

/// What a requirement asks of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// It is there and has one of these values.
    In(BTreeSet<String>),
    /// It has none of these values, or is not there.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is there and is a whole number above this.
    GreaterThan(i64),
    /// It is there and is a whole number below this.
    LessThan(i64),
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: Operator,
}

impl Requirement {
    /// A requirement whose key and values are valid.
    ///
    /// # Errors
    /// When a key or value can be none of a label, or `In` and `NotIn` have no values.
    pub fn new(key: &str, operator: Operator) -> Result<Self, SelectorError> {
        if let Some(reason) = names::qualified_name(key).into_iter().next() {
            return Err(SelectorError(format!("key: Invalid value: {key:?}: {reason}")));
        }
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            if values.is_empty() {
                let reason = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty";
                return Err(SelectorError(reason.to_owned()));
            }
            for value in values {
                if let Some(reason) = names::label_value(value).into_iter().next() {
                    return Err(SelectorError(format!(
                        "values[{key}]: Invalid value: {value:?}: {reason}"
                    )));
                }
            }
        }
        Ok(Self { key: key.to_owned(), operator })
    }

    /// Whether a label with this value (`None`: no such label) will do.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(limit) => number().is_some_and(|number| number > *limit),
            Operator::LessThan(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator } = self;
        let list = |values: &BTreeSet<String>| {
            values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
        };
        match operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Operator::In(values) => write!(f, "{key} in ({})", list(values)),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(limit) => write!(f, "{key}>{limit}"),
            Operator::LessThan(limit) => write!(f, "{key}<{limit}"),
        }
    }
}

/// Requirements that must all be met. Printed in the form that [`LabelSelector::parse`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    /// Matches no object at all (what an absent selector in an object means).
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Matches where all requirements are met.
    #[must_use]
    pub fn all(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        Self { requirements, nothing: false }
    }

    /// Reads the text form of requests: `a=b,c!=d,e in (f,g),!h,i`.
    ///
    /// # Errors
    /// When the text is malformed or has an invalid key or value.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self::all(label_text::parse(text)?))
    }

    /// Reads a map of labels, as `spec.selector` of a Service is. Null matches nothing, an empty map everything.
    #[must_use]
    pub fn from_map(labels: &Value) -> Self {
        let Some(labels) = labels.as_object() else { return Self::nothing() };
        let equal = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::In(BTreeSet::from([value.as_str().unwrap_or_default().to_owned()])),
        };
        Self::all(labels.iter().map(equal).collect())
    }

    /// Reads a LabelSelector object (`matchLabels`, `matchExpressions`). Null matches nothing, an empty one everything.
    ///
    /// # Errors
    /// When it has an unknown operator or an invalid key or value.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = match selector.get("matchLabels") {
            Some(labels @ Value::Object(_)) => Self::from_map(labels).requirements,
            _ => Vec::new(),
        };
        for expression in
            selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten()
        {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self::all(requirements))
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(|key| crate::object::label(object, key))
    }

    /// Whether something with these labels is selected.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// What is asked; sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let key = expression.get("key").and_then(Value::as_str).unwrap_or_default();
    let values = || {
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
        "In" => Operator::In(values()),
        "NotIn" => Operator::NotIn(values()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(SelectorError(format!("{other:?} is not a valid label selector operator")));
        }
    };
    Requirement::new(key, operator)
}

#[cfg(test)]
mod tests;
