//! Where the reader is in an object, and what it has found on the way.

use serde_json::{Map, Value};

use super::super::tree::{Shape, Tree};
use super::{DecodeError, Decoded, FieldValidation};

/// More complaints than this about one object are not collected.
const MAXIMUM_COMPLAINTS: usize = 100;

/// A step on the way from the root to a value.
pub(super) enum Step {
    /// Into a field of an object with known fields, of the type of that name.
    Field(&'static str, &'static str),
    Key(String),
    Index(usize),
}

/// Where the reader is, and what it has found.
#[derive(Default)]
pub(super) struct Context {
    pub(super) path: Vec<Step>,
    complaints: Vec<String>,
    type_error: Option<String>,
}

impl Context {
    pub(super) fn finish(
        self,
        object: Option<Value>,
        validation: FieldValidation,
    ) -> Result<Decoded, DecodeError> {
        if let Some(error) = self.type_error {
            return Err(DecodeError::Type(error));
        }
        let warnings = match validation {
            FieldValidation::Strict if !self.complaints.is_empty() => {
                return Err(DecodeError::Strict(self.complaints));
            }
            FieldValidation::Strict | FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn => self.complaints,
        };
        Ok(Decoded { object: object.unwrap_or_else(|| Value::Object(Map::new())), warnings })
    }

    /// `spec.containers[0]`
    fn location(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => text.push_str(&format!("[{index}]")),
                Step::Field(_, name) => push_name(&mut text, name),
                Step::Key(name) => push_name(&mut text, name),
            }
        }
        text
    }

    pub(super) fn complain(&mut self, what: &str, name: &str) {
        let mut path = self.location();
        push_name(&mut path, name);
        let complaint = format!("{what} field {}", quote(&path));
        if self.complaints.len() < MAXIMUM_COMPLAINTS && !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// Notes, unless one was noted before, that something else stands here than may.
    pub(super) fn mismatch(&mut self, found: &str, shape: &Shape) {
        if self.type_error.is_some() {
            return;
        }
        let wanted = go_type(shape);
        let mut fields = String::new();
        let mut owner = None;
        for step in &self.path {
            if let Step::Field(ty, name) = step {
                owner = Some(*ty);
                push_name(&mut fields, name);
            }
        }
        self.type_error = Some(match owner {
            Some(owner) => format!(
                "json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {wanted}"
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        });
    }

    /// Notes that a text cannot be read as what it should be.
    pub(super) fn unreadable(&mut self, reason: &str) {
        if self.type_error.is_none() {
            self.type_error = Some(format!("{reason} (in field {})", quote(&self.location())));
        }
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// A text in double quotes, as JSON and Go write it.
pub(super) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// The type as Go would print it.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Any => "interface {}".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Double => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::List(items) => format!("[]{}", go_type(items)),
        Shape::Map(values) => format!("map[string]{}", go_type(values)),
        Shape::Object(index) => Tree::get().ty(*index).go_name().to_owned(),
    }
}
