//! The order of a merged list.
//!
//! Clients rely on it: items that the patch names keep the patch's order, the others keep the server's, and where both meet
//! the server's order decides as far as it knows both; otherwise the patch's item comes first.

use std::collections::HashMap;

use serde_json::Value;

use super::PatchError;

/// How two elements of a list are recognised as the same one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Identity<'a> {
    /// Scalars, by value.
    Scalar,
    /// Objects, by the value of this field.
    Key(&'a str),
}

impl Identity<'_> {
    /// What identifies an item, in a form that can be hashed; an object without its key has nothing.
    pub(super) fn of(&self, item: &Value) -> Option<String> {
        match self {
            Self::Scalar => Some(item.to_string()),
            Self::Key(key) => item.get(key).map(Value::to_string),
        }
    }

    /// The place of every item; of items that are the same, the first. Patches may be long, so nothing here searches lists.
    pub(super) fn places(&self, list: &[Value]) -> HashMap<String, usize> {
        let mut places = HashMap::with_capacity(list.len());
        for (place, item) in list.iter().enumerate() {
            if let Some(id) = self.of(item) {
                places.entry(id).or_insert(place);
            }
        }
        places
    }

    /// Checks that every item of a list can be identified.
    pub(super) fn check(&self, list: &[Value]) -> Result<(), PatchError> {
        let Self::Key(key) = self else { return Ok(()) };
        match list.iter().find(|item| item.get(key).is_none()) {
            Some(item) => Err(no_merge_key(item, key)),
            None => Ok(()),
        }
    }
}

pub(super) fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unjudged(format!("map: {} does not contain declared merge key: {key}", in_go(item)))
}

/// Orders the items of `merged`: those in `patch_order` by it, the others by `server_order`, then both woven together.
pub(super) fn arrange(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    identity: Identity<'_>,
) -> Vec<Value> {
    let (wanted, known) = (identity.places(patch_order), identity.places(server_order));
    let place =
        |places: &HashMap<String, usize>, item: &Value| identity.of(item).and_then(|id| places.get(&id).copied());
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(&wanted, item).is_some());
    named.sort_by_cached_key(|item| place(&wanted, item));
    others.sort_by_cached_key(|item| place(&known, item));

    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let take_other = match (others.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(named)) => match (place(&known, other), place(&known, named)) {
                (Some(other), Some(named)) => other < named,
                _ => false,
            },
        };
        result.extend(if take_other { others.next() } else { named.next() });
    }
}

/// A value as Go's `%v` shows it, which is what upstream's messages contain.
pub(super) fn in_go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(in_go).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key}:{}", in_go(value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        scalar => scalar.to_string(),
    }
}
