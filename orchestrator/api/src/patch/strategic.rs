//! Strategic merge patches.
//!
//! Objects are merged field by field, and a null takes a field away. Lists are replaced, unless the schema gives them a merge
//! key (their items are merged one by one) or makes them sets. Directives, which are fields of the patch:
//!
//! - `$patch: replace | delete | merge` in an object: the object is replaced, removed, or merged; in an item of a list: the
//!   list is replaced, or the item with that key removed.
//! - `$deleteFromPrimitiveList/f: [..]`: takes these out of the set `f`.
//! - `$setElementOrder/f: [..]`: the order that the list `f` has afterwards. Items that it does not name stay where they
//!   are in relation to those it does, as far as both orders allow.
//! - `$retainKeys: [..]`: fields of the object that are not named go.

use std::cmp::Ordering;

use podium_types::Kind;
use podium_types::schema::{Cursor, Strategy};
use serde_json::{Map, Value};

use super::PatchError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// What a patch makes of an object of a kind.
///
/// # Errors
/// [`PatchError::Malformed`] for directives that make no sense.
pub fn apply(kind: Kind, object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(malformed("an object and a patch that is one are needed"));
    };
    Ok(Value::Object(merge_objects(Some(Cursor::root(kind)), object, patch)?))
}

fn malformed(why: impl Into<String>) -> PatchError {
    PatchError::Malformed(why.into())
}

fn merge_objects(
    place: Option<Cursor>,
    object: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => return merge_fields(place, &Map::new(), patch),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(other) => {
            return Err(malformed(format!(
                "Unknown patch type found: {}",
                other.unwrap_or("not a string")
            )));
        }
    }
    merge_fields(place, object, patch)
}

fn merge_fields(
    place: Option<Cursor>,
    object: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    let mut merged = object.clone();
    if let Some(retain) = patch.get(RETAIN) {
        retain_keys(&mut merged, patch, retain)?;
    }
    for (field, value) in patch {
        if let Some(list) = field.strip_prefix(DELETE_FROM) {
            delete_from(&mut merged, list, value)?;
        }
    }
    for (field, value) in patch {
        if field.starts_with('$') {
            continue;
        }
        let place = place.and_then(|place| place.field(field));
        match merge_value(
            place,
            object.get(field),
            merged.get(field),
            value,
            order_of(patch, field)?,
        )? {
            Some(value) => merged.insert(field.clone(), value),
            None => merged.remove(field),
        };
    }
    for directive in patch.keys() {
        // An order for a list that the patch leaves as it is.
        if let Some(field) =
            directive.strip_prefix(ORDER).filter(|field| !patch.contains_key(*field))
            && let (Some(order), Some(Value::Array(list))) =
                (order_of(patch, field)?, merged.get(field))
        {
            let key = place.and_then(|place| place.field(field)).and_then(Cursor::merge_key);
            let live = object.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let sorted = in_order(list.clone(), order, live, key);
            merged.insert(field.to_owned(), Value::Array(sorted));
        }
    }
    Ok(merged)
}

fn order_of<'p>(
    patch: &'p Map<String, Value>,
    field: &str,
) -> Result<Option<&'p [Value]>, PatchError> {
    match patch.get(&format!("{ORDER}{field}")) {
        None => Ok(None),
        Some(Value::Array(order)) => Ok(Some(order)),
        Some(_) => Err(malformed(format!("{ORDER}{field} has to be a list"))),
    }
}

/// What a field becomes; `None`: it goes.
///
/// `live` is the field before the patch, `present` the same after what the patch deletes from it.
fn merge_value(
    place: Option<Cursor>,
    live: Option<&Value>,
    present: Option<&Value>,
    patch: &Value,
    order: Option<&[Value]>,
) -> Result<Option<Value>, PatchError> {
    match patch {
        Value::Null => Ok(None),
        Value::Object(patch) => {
            let deleted = patch.get(DIRECTIVE).is_some_and(|directive| directive == "delete");
            let empty = Map::new();
            let object = present.and_then(Value::as_object).unwrap_or(&empty);
            let merged = merge_objects(place, object, patch)?;
            Ok((!deleted).then_some(Value::Object(merged)))
        }
        Value::Array(patch) => {
            let present = present.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let live = live.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let merges = place.is_some_and(|place| place.strategy() == Strategy::Merge);
            let merged = match place {
                Some(place) if merges => merge_lists(place, present, patch, order, live)?,
                Some(_) | None => without_directives(patch),
            };
            Ok(Some(Value::Array(merged)))
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(Some(patch.clone())),
    }
}

/// Items that say only `$patch: replace`, as clients put them into lists that are replaced anyhow, are no items.
fn without_directives(patch: &[Value]) -> Vec<Value> {
    patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect()
}

fn merge_lists(
    place: Cursor,
    present: &[Value],
    patch: &[Value],
    order: Option<&[Value]>,
    live: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let Some(key) = place.merge_key() else {
        let mut merged: Vec<Value> = present.to_vec();
        let new: Vec<_> = patch.iter().filter(|item| !merged.contains(item)).cloned().collect();
        merged.extend(new);
        return Ok(match order {
            Some(order) => in_order(merged, order, live, None),
            None => merged,
        });
    };
    let mut merged: Vec<Value> = present.to_vec();
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(without_directives(patch));
    }
    for item in patch {
        let Some(fields) = item.as_object() else {
            return Err(malformed(format!("an item of a list merged by {key} is not an object")));
        };
        let Some(id) = fields.get(key) else {
            return Err(malformed(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        let at = merged.iter().position(|present| present.get(key) == Some(id));
        match (directive(item).as_deref(), at) {
            (Some("delete"), Some(_)) => merged.retain(|present| present.get(key) != Some(id)),
            (Some("delete"), None) => {}
            (Some("merge"), _) => {
                return Err(malformed("merging patch type is not supported in lists"));
            }
            (Some(other), _) => {
                return Err(malformed(format!("Unknown patch type found: {other}")));
            }
            (None, Some(at)) => {
                let empty = Map::new();
                let object = merged[at].as_object().unwrap_or(&empty);
                merged[at] = Value::Object(merge_objects(place.item(), object, fields)?);
            }
            (None, None) => {
                merged.push(Value::Object(merge_objects(place.item(), &Map::new(), fields)?));
            }
        }
    }
    let deletes = |item: &&Value| item.get(DIRECTIVE).is_none();
    let by_patch: Vec<Value> = patch.iter().filter(deletes).cloned().collect();
    Ok(in_order(merged, order.unwrap_or(&by_patch), live, Some(key)))
}

/// Whether two items are the same one.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

/// Sorts a list: items in `order` by it, the others by where they were in the live list, and both woven together so that
/// another item stands before the first ordered one that it stood before.
fn in_order(list: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let at = |among: &[Value], item: &Value| among.iter().position(|other| same(other, item, key));
    let (mut ordered, mut others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|item| at(order, item).is_some());
    ordered.sort_by_key(|item| at(order, item));
    others.sort_by(|a, b| match (at(live, a), at(live, b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    let mut woven = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in ordered {
        let before = |other: &Value| match (at(live, other), at(live, &item)) {
            (Some(other), Some(item)) => other < item,
            _ => false,
        };
        while let Some(other) = others.next_if(|other| before(other)) {
            woven.push(other);
        }
        woven.push(item);
    }
    woven.extend(others);
    woven
}

fn retain_keys(
    object: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    retain: &Value,
) -> Result<(), PatchError> {
    let Value::Array(retain) = retain else {
        return Err(malformed(format!("{RETAIN} has to be a list")));
    };
    let named = |field: &str| retain.iter().any(|name| name == field);
    let stray =
        |field: &&String| !field.starts_with('$') && !patch[*field].is_null() && !named(field);
    if let Some(field) = patch.keys().find(stray) {
        return Err(malformed(format!("{RETAIN} does not name {field:?}, which the patch sets")));
    }
    object.retain(|field, _| named(field));
    Ok(())
}

fn delete_from(
    object: &mut Map<String, Value>,
    field: &str,
    items: &Value,
) -> Result<(), PatchError> {
    let Value::Array(items) = items else {
        return Err(malformed(format!("{DELETE_FROM}{field} has to be a list")));
    };
    if let Some(Value::Array(list)) = object.get_mut(field) {
        list.retain(|item| !items.contains(item));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
