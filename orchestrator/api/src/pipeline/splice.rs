//! Putting the resourceVersion into stored bytes without reading them.
//!
//! Objects are stored as canonical JSON without it. A list of thousands of objects, or an event for hundreds of
//! watchers, is so served by copying.

/// The bytes with `"resourceVersion"` as the first field of the top-level `metadata`; `None` if there is no such object.
pub(super) fn with_resource_version(bytes: &[u8], revision: u64) -> Option<Vec<u8>> {
    let at = metadata_start(bytes)?;
    let field = format!("\"resourceVersion\":\"{revision}\"");
    let mut out = Vec::with_capacity(bytes.len() + field.len() + 1);
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(field.as_bytes());
    if bytes.get(at) != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(&bytes[at..]);
    Some(out)
}

/// The index behind the `{` of the top-level `metadata`.
fn metadata_start(bytes: &[u8]) -> Option<usize> {
    const FIELD: &[u8] = b"\"metadata\":{";
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                // Canonical JSON has no space, so a key at depth 1 follows `{` or `,`, which a value never does.
                let is_key = at > 0 && matches!(bytes[at - 1], b'{' | b',');
                if depth == 1 && is_key && bytes[at..].starts_with(FIELD) {
                    return Some(at + FIELD.len());
                }
                at = string_end(bytes, at)?;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The index of the closing quote of the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_types::canonical;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::with_resource_version;

    fn spliced(object: &Value) -> Value {
        let bytes = with_resource_version(&canonical::encode(object), 7).expect("has metadata");
        serde_json::from_slice(&bytes).expect("is JSON")
    }

    #[test]
    fn only_the_top_level_metadata_gets_a_version() {
        let object = json!({
            "data": {"metadata": "\"metadata\":{", "x": "\\"},
            "apiVersion": "\",\"metadata\":{",
            "metadata": {"name": "a", "annotations": {"metadata": "{"}},
            "spec": {"template": {"metadata": {"name": "b"}}},
        });
        let mut wanted = object.clone();
        wanted["metadata"]["resourceVersion"] = json!("7");
        assert_eq!(spliced(&object), wanted);
        assert_eq!(
            spliced(&json!({"metadata": {}})),
            json!({"metadata": {"resourceVersion": "7"}})
        );
        assert!(with_resource_version(br#"{"kind":"x"}"#, 1).is_none());
        assert!(with_resource_version(br#"{"a":"metadata"#, 1).is_none());
    }

    proptest! {
        #[test]
        fn splicing_equals_parsing_and_setting(
            key in "[a-z\"\\\\{},:\\[\\]]{0,12}", text in "[a-z\"\\\\{},:\\[\\]]{0,24}", list in prop::collection::vec("[m\"{}]{0,4}", 0..4),
        ) {
            let object = json!({"a": {key.clone(): text.clone()}, "kind": text, "l": list, "metadata": {"labels": {key.clone(): text}}, "z": [{"metadata": {}}]});
            let mut wanted = object.clone();
            wanted["metadata"]["resourceVersion"] = json!("7");
            prop_assert_eq!(spliced(&object), wanted);
        }
    }
}
