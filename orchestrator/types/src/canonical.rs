//! Objects at rest: canonical JSON.
//!
//! Keys in byte order, no whitespace, no `metadata.resourceVersion` (that is the record's revision, and is put back in on
//! read). Equal objects have equal bytes, so a write that changes nothing can be seen as such.

use std::borrow::Cow;
use std::io::Write as _;

use serde_json::Value;

use crate::object;

/// The bytes to store for an object: canonical, and without its resourceVersion.
#[must_use]
pub fn encode(object: &Value) -> Vec<u8> {
    let object = match object::resource_version(object) {
        None => Cow::Borrowed(object),
        Some(_) => {
            let mut bare = object.clone();
            object::set_resource_version(&mut bare, None);
            Cow::Owned(bare)
        }
    };
    let mut bytes = Vec::with_capacity(1024);
    write(&object, &mut bytes);
    bytes
}

/// Any JSON value in canonical form, unchanged otherwise.
#[must_use]
pub fn encode_value(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(value, &mut bytes);
    bytes
}

/// Reads bytes made by [`encode`].
///
/// # Errors
/// When the bytes are not JSON.
pub fn decode(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes)
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            // The map is sorted unless some crate in the build turns on serde_json's `preserve_order`.
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            bytes.push(b'{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                write_scalar(&Value::from(key.as_str()), bytes);
                bytes.push(b':');
                write(value, bytes);
            }
            bytes.push(b'}');
        }
        Value::Array(items) => {
            bytes.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                write(item, bytes);
            }
            bytes.push(b']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write_scalar(value, bytes);
        }
    }
}

fn write_scalar(value: &Value, bytes: &mut Vec<u8>) {
    // Writing into a Vec cannot fail, and Display of a Value is its compact JSON.
    let _ = write!(bytes, "{value}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{decode, encode};

    #[test]
    fn stored_bytes_are_sorted_compact_and_without_resource_version() {
        let object = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "data": {"b": "x\n", "a": "1"}, "list": [1, true, null]});
        let bytes = encode(&object);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            r#"{"data":{"a":"1","b":"x\n"},"list":[1,true,null],"metadata":{"name":"a"}}"#
        );
        assert_eq!(encode(&decode(&bytes).expect("JSON")), bytes);
    }
}
