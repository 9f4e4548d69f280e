//! What the table tests of the kinds share: JSON in, JSON, messages or cells out.

use jiff::Timestamp;
use registry::kind::Kind;
use serde_json::Value;

/// When the cells are asked for: ten minutes after [`CREATED`].
pub(crate) const NOW: &str = "2026-01-01T00:10:00Z";
/// The usual `creationTimestamp`.
pub(crate) const CREATED: &str = "2026-01-01T00:00:00Z";

/// Decodes an object.
pub(crate) fn object<K: Kind>(mut value: Value) -> K::Object {
    if let Some(map) = value.as_object_mut() {
        let version = [K::DESCRIPTOR.group, K::DESCRIPTOR.version];
        let version = version.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        map.insert("apiVersion".into(), version.into());
        map.insert("kind".into(), K::DESCRIPTOR.kind.into());
    }
    serde_json::from_value(value).expect("an object of the kind")
}

/// Decodes an object and sets its defaults.
pub(crate) fn defaulted<K: Kind>(value: Value) -> K::Object {
    let mut object = object::<K>(value);
    K::default(&mut object);
    object
}

/// Checks that the defaults make `expect` of `input`, kind and version aside, and that setting them again changes nothing.
pub(crate) fn check_defaults<K: Kind>(input: Value, expect: &Value) {
    let mut object = defaulted::<K>(input);
    let mut once = serde_json::to_value(&object).expect("JSON");
    K::default(&mut object);
    let again = serde_json::to_value(&object).expect("JSON");
    assert_eq!(once, again, "defaults must be idempotent");
    if let Some(map) = once.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    assert_eq!(&once, expect);
}

/// The messages of validation, after defaulting.
pub(crate) fn errors<K: Kind>(value: Value) -> Vec<String> {
    K::validate(&defaulted::<K>(value)).iter().map(ToString::to_string).collect()
}

/// The messages about a step from one object to the next, both defaulted.
pub(crate) fn update_errors<K: Kind>(old: Value, new: Value) -> Vec<String> {
    let (old, mut new) = (defaulted::<K>(old), defaulted::<K>(new));
    K::prepare_update(&mut new, &old);
    K::validate_update(&new, &old).iter().map(ToString::to_string).collect()
}

/// The cells of an object at [`NOW`]; their number is checked against the columns.
pub(crate) fn row<K: Kind>(value: Value) -> Vec<Value> {
    let now: Timestamp = NOW.parse().expect("a time");
    let row = K::row(&object::<K>(value), now);
    assert_eq!(row.len(), K::columns().len(), "one cell for each column");
    row
}

/// Puts `value` at a JSON pointer of `base`; `null` removes what is there.
pub(crate) fn with(mut base: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = base.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
    match parent {
        Value::Object(map) if value.is_null() => {
            map.remove(name);
        }
        Value::Object(map) => {
            map.insert(name.to_owned(), value);
        }
        Value::Array(items) => items[name.parse::<usize>().expect("an index")] = value,
        _ => panic!("nothing can stand below {pointer}"),
    }
    base
}
