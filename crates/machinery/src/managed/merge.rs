//! From objects to objects: an applied configuration merged into what there is, and fields taken out.
//!
//! Upstream: structured-merge-diff's `Merge` and `RemoveItems`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::compare::element;
use super::set::{FieldSet, Node, field_element};
use super::topology::{List, Topology};

/// The live object with an applied configuration merged into it.
pub fn merge<T: Topology>(live: &Value, config: &Value, place: &T) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !place.is_atomic() => {
            if live.is_empty() && config.is_empty() {
                return Value::Object(Map::new());
            }
            let mut merged = live.clone();
            for (name, value) in config {
                let place = place.field(name);
                let value = match live.get(name) {
                    Some(old) => merge(old, value, &place),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(config)) => match place.list() {
            List::Atomic => Value::Array(config.clone()),
            list => Value::Array(merge_list(live, config, &list, &place.item())),
        },
        // Nothing said about the parts of something is nothing said against them.
        (Value::Object(fields), Value::Null) if !place.is_atomic() && !fields.is_empty() => live.clone(),
        (Value::Array(items), Value::Null) if place.list() != List::Atomic && !items.is_empty() => live.clone(),
        (_, config) => config.clone(),
    }
}

/// Elements of the configuration come in its order, what is only in the live list stays near its neighbours.
fn merge_list<T: Topology>(live: &[Value], config: &[Value], list: &List<'_>, place: &T) -> Vec<Value> {
    let index = |items: &[Value]| -> Vec<Option<String>> { items.iter().map(|item| element(list, item)).collect() };
    let (live_elements, config_elements) = (index(live), index(config));
    // An element that stands more than once in the live list is replaced, not merged.
    let mut old: HashMap<&str, Option<&Value>> = HashMap::new();
    for (item, element) in live.iter().zip(&live_elements) {
        if let Some(element) = element {
            old.entry(element).and_modify(|found| *found = None).or_insert(Some(item));
        }
    }
    let wished: HashSet<&str> = config_elements.iter().flatten().map(String::as_str).collect();
    let combined = |element: Option<&str>, new: &Value| match element.and_then(|element| old.get(element)) {
        Some(Some(old)) => merge(old, new, place),
        _ => new.clone(),
    };
    let mut shared = config_elements.iter().flatten().filter(|element| old.contains_key(element.as_str()));
    let mut next = shared.next();
    let mut done: HashSet<&str> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len().max(config.len()));
    let (mut left, mut right) = (0, 0);
    while left < live.len() || right < config.len() {
        if let (Some(mine), Some(theirs)) = (live_elements.get(left), config_elements.get(right)) {
            if mine.is_some() && mine == theirs {
                done.extend(mine.as_deref());
                merged.push(combined(mine.as_deref(), &config[right]));
                (left, right, next) = (left + 1, right + 1, shared.next());
                continue;
            }
            let known = mine.as_deref().is_some_and(|mine| wished.contains(mine));
            if known && next.is_some() && next != mine.as_ref() {
                left += 1;
                continue;
            }
        }
        if let Some(mine) = live_elements.get(left) {
            match mine.as_deref() {
                Some(mine) if wished.contains(mine) => left += usize::from(done.contains(mine)),
                _ => {
                    merged.push(live[left].clone());
                    left += 1;
                    continue;
                }
            }
        }
        if let Some(theirs) = config_elements.get(right) {
            done.extend(theirs.as_deref());
            merged.push(combined(theirs.as_deref(), &config[right]));
            right += 1;
            if next.is_some() && next == theirs.as_ref() {
                next = shared.next();
            }
        }
    }
    merged
}

/// An object without the fields of a set. What they were taken from stays, if empty.
pub(super) fn remove<T: Topology>(value: &Value, set: &FieldSet, place: &T) -> Value {
    match value {
        Value::Object(fields) if !place.is_atomic() => {
            let kept = fields.iter().filter_map(|(name, value)| {
                let below = set.get(&field_element(name));
                Some((name.clone(), keep(value, below, &place.field(name))?))
            });
            Value::Object(kept.collect())
        }
        Value::Array(items) if place.list() != List::Atomic => {
            let (list, place) = (place.list(), place.item());
            let kept = items.iter().filter_map(|item| {
                let below = element(&list, item).and_then(|element| set.get(&element).cloned());
                keep(item, below.as_ref(), &place)
            });
            Value::Array(kept.collect())
        }
        other => other.clone(),
    }
}

fn keep<T: Topology>(value: &Value, below: Option<&Node>, place: &T) -> Option<Value> {
    match below {
        None => Some(value.clone()),
        Some(node) if node.member => None,
        Some(node) => Some(remove(value, &node.children, place)),
    }
}
