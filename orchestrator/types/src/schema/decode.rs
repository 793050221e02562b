//! Decoding by the field tree.

mod context;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::tree::{Shape, Tree};
use crate::kind::Kind;
use crate::quantity::Quantity;
use crate::time;
use context::{Context, Step, quote};

/// What to do about unknown and duplicate fields (the `fieldValidation` of a request).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Refuse the object.
    Strict,
    /// Take it without them, and say so.
    #[default]
    Warn,
    /// Take it without them.
    Ignore,
}

/// An object as the API keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// Without unknown fields and nulls; quantities and times are canonical.
    pub object: Value,
    /// With [`FieldValidation::Warn`]: `unknown field "spec.foo"`, in the order of appearance.
    pub warnings: Vec<String>,
}

/// A body that does not have the shape of its kind. The text is the inner part of the message; see [`DecodeError::message`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("json: {0}")]
    Syntax(String),
    /// A field holds something that it cannot.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields, where they are refused.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl DecodeError {
    /// The whole message, as clients see it.
    #[must_use]
    pub fn message(&self, kind: Kind) -> String {
        let name = kind.name();
        format!("{name} in version {:?} cannot be handled as a {name}: {self}", kind.version())
    }
}

/// Reads an object of a kind from JSON.
///
/// # Errors
/// When it is not JSON, a field has a wrong type, or (strict only) there are unknown or duplicate fields.
pub fn decode(
    kind: Kind,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut context = Context::default();
    let object = Place { shape: Tree::get().root(kind), context: &mut context }
        .deserialize(&mut deserializer)
        .and_then(|object| deserializer.end().map(|()| object))
        .map_err(|error| DecodeError::Syntax(error.to_string()))?;
    context.finish(object, validation)
}

/// Brings an object that is already in memory (made from YAML, or by a patch) to the same form.
///
/// # Errors
/// As [`decode`]; there are no duplicates to find any more.
pub fn check(
    kind: Kind,
    object: Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut context = Context::default();
    let object = Place { shape: Tree::get().root(kind), context: &mut context }
        .deserialize(object)
        .map_err(|error| DecodeError::Syntax(error.to_string()))?;
    context.finish(object, validation)
}

/// One value to be read, by its shape. Gives `None` for null and for what does not fit.
struct Place<'c> {
    shape: &'static Shape,
    context: &'c mut Context,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Place<'_> {
    fn number(self, number: serde_json::Number) -> Option<Value> {
        let fits = match self.shape {
            Shape::Int32 => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            Shape::Int64 => number.is_i64(),
            Shape::IntOrString => {
                number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
            }
            Shape::Double | Shape::Any => true,
            Shape::Quantity => return self.quantity(&number.to_string()),
            _ => {
                self.context.mismatch("number", self.shape);
                return None;
            }
        };
        if !fits {
            self.context.mismatch(&format!("number {number}"), self.shape);
            return None;
        }
        Some(Value::Number(number))
    }

    fn quantity(self, text: &str) -> Option<Value> {
        match Quantity::parse(text.trim()) {
            Ok(quantity) => Some(Value::from(quantity.to_string())),
            Err(error) => {
                self.context.unreadable(&error.to_string());
                None
            }
        }
    }

    fn text(self, text: String) -> Option<Value> {
        let printed = match self.shape {
            Shape::String | Shape::IntOrString | Shape::Any => text,
            Shape::Quantity => return self.quantity(&text),
            Shape::Time | Shape::MicroTime => {
                let Some(time) = time::parse_time(&text) else {
                    let reason = format!(
                        "parsing time {} as \"2006-01-02T15:04:05Z07:00\": not a time",
                        quote(&text)
                    );
                    self.context.unreadable(&reason);
                    return None;
                };
                if *self.shape == Shape::Time {
                    time::print_time(time)
                } else {
                    time::print_micro_time(time)
                }
            }
            Shape::Bytes => match check_base64(&text) {
                Ok(text) => text,
                Err(reason) => {
                    self.context.unreadable(&reason);
                    return None;
                }
            },
            _ => {
                self.context.mismatch("string", self.shape);
                return None;
            }
        };
        Some(Value::String(printed))
    }

    fn fields<'de, A: MapAccess<'de>>(
        self,
        index: usize,
        mut map: A,
    ) -> Result<Map<String, Value>, A::Error> {
        let ty = Tree::get().ty(index);
        let mut object = Map::new();
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some((name, shape)) = ty.field(&key) else {
                self.context.complain("unknown", &key);
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&name) {
                self.context.complain("duplicate", name);
            }
            seen.push(name);
            self.context.path.push(Step::Field(ty.name(), name));
            let value = map.next_value_seed(Place { shape, context: self.context })?;
            self.context.path.pop();
            match value {
                Some(value) => object.insert(key, value),
                None => object.remove(&key),
            };
        }
        Ok(object)
    }

    fn entries<'de, A: MapAccess<'de>>(
        self,
        shape: &'static Shape,
        mut map: A,
    ) -> Result<Map<String, Value>, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                self.context.complain("duplicate", &key);
            }
            self.context.path.push(Step::Key(key.clone()));
            let value = map.next_value_seed(Place { shape, context: self.context })?;
            self.context.path.pop();
            object.insert(key, value.unwrap_or_else(|| zero(shape)));
        }
        Ok(object)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        if matches!(self.shape, Shape::Bool | Shape::Any) {
            return Ok(Some(Value::Bool(value)));
        }
        self.context.mismatch("bool", self.shape);
        Ok(None)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(serde_json::Number::from_f64(value).and_then(|number| self.number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Self::Value, E> {
        Ok(self.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Shape::List(shape) = self.shape else {
            if *self.shape == Shape::Any {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                return Ok(Some(Value::Array(list)));
            }
            self.context.mismatch("array", self.shape);
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        let mut list = Vec::new();
        loop {
            self.context.path.push(Step::Index(list.len()));
            let item = items.next_element_seed(Place { shape, context: self.context })?;
            self.context.path.pop();
            match item {
                Some(item) => list.push(item.unwrap_or_else(|| zero(shape))),
                None => return Ok(Some(Value::Array(list))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let object = match self.shape {
            Shape::Object(index) => self.fields(*index, map)?,
            Shape::Map(shape) => self.entries(shape, map)?,
            Shape::Any => {
                let mut object = Map::new();
                while let Some((key, value)) = map.next_entry()? {
                    object.insert(key, value);
                }
                object
            }
            _ => {
                self.context.mismatch("object", self.shape);
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
        };
        Ok(Some(Value::Object(object)))
    }
}

/// Base64 without line ends, or the reason why it is none.
fn check_base64(text: &str) -> Result<String, String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&text) {
        Ok(_) => Ok(text),
        Err(
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol { offset: at, .. },
        ) => Err(format!("illegal base64 data at input byte {at}")),
        Err(_) => Err(format!("illegal base64 data at input byte {}", text.len())),
    }
}

/// What Go puts where a list or a map has a null.
fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Any | Shape::Time | Shape::MicroTime => Value::Null,
        Shape::String | Shape::Bytes => Value::from(""),
        Shape::Bool => Value::from(false),
        Shape::Int32 | Shape::Int64 | Shape::Double | Shape::IntOrString => Value::from(0),
        Shape::Quantity => Value::from("0"),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::Object(_) => Value::Object(Map::new()),
    }
}

#[cfg(test)]
mod tests;
