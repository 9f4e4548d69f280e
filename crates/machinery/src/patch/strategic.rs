//! Strategic merge patches: merge patches that know how the lists of the built-in types are merged.
//!
//! Directives, as clients send them:
//! - `$patch: replace | delete | merge` in an object says what happens to the object, or to the list it stands in;
//! - `$deleteFromPrimitiveList/FIELD` lists scalars to remove;
//! - `$setElementOrder/FIELD` lists the order that the merged list is to have;
//! - `$retainKeys` lists the only fields that the object keeps.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{Identity, arrange, in_go, no_merge_key};
use crate::api_types::{ApiType, Field};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of the type with this OpenAPI definition name.
///
/// # Errors
/// When the patch does not fit the type: no object, a directive that is none, an element of a list without its key.
pub fn strategic_merge_patch(document: &Value, patch: &Value, definition: &str) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed(super::not_an_object(patch)));
    };
    let document = match document {
        Value::Object(fields) => fields.clone(),
        _ => Object::new(),
    };
    merge_object(document, patch.clone(), ApiType::by_openapi_name(definition)).map(Value::Object)
}

fn merge_object(mut original: Object, mut patch: Object, api_type: Option<&ApiType>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(without_directives(patch)),
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, api_type)?;

    // Removals first: a field may be both removed from and added to.
    let removals: Vec<String> = patch.keys().filter(|key| key.starts_with(DELETE_FROM)).cloned().collect();
    for key in removals {
        let removed = patch.remove(&key);
        let Some(Value::Array(removed)) = removed else {
            return Err(bad_primitive_list());
        };
        match original.get_mut(&key[DELETE_FROM.len()..]) {
            Some(Value::Array(list)) => {
                let removed = Identity::Scalar.places(&removed);
                list.retain(|item| Identity::Scalar.of(item).is_none_or(|id| !removed.contains_key(&id)));
            }
            Some(_) => return Err(bad_primitive_list()),
            None => {}
        }
    }

    for (key, value) in patch {
        let field = api_type.and_then(|api_type| api_type.member(&key));
        let replace = field.is_some_and(|field| field.patch_replace);
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) if !replace => {
                Value::Object(merge_object(old, new, field.and_then(Field::message))?)
            }
            (Some(Value::Array(old)), Value::Array(new)) => match field {
                Some(field) if field.patch_merge => Value::Array(merge_list(old, new, field)?),
                _ => Value::Array(clean_list(new)),
            },
            (_, value) => match clean(value) {
                Some(value) => value,
                None => continue,
            },
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// `$retainKeys`: drops every field that is not listed. The patch must not set one that is not.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let Value::Array(keys) = keys else {
        return Err(bad());
    };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |key: &str| keys.contains(key);
    let fine = |(key, value): (&String, &Value)| {
        value.is_null() || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER) || listed(key)
    };
    if !patch.iter().all(fine) {
        return Err(PatchError::Unprocessable("patch content doesn't match retainKeys list".to_owned()));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// `$setElementOrder`: merges the lists that have one, and takes them out of the patch.
fn set_orders(original: &mut Object, patch: &mut Object, api_type: Option<&ApiType>) -> Result<(), PatchError> {
    let bad = || PatchError::Malformed("invalid patch format of setElementOrder list".to_owned());
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(bad());
        };
        let name = &directive[SET_ORDER.len()..];
        let field = api_type.and_then(|api_type| api_type.member(name));
        let identity = field.and_then(|field| field.patch_merge_key).map_or(Identity::Scalar, Identity::Key);
        let new = match patch.get(name) {
            None => None,
            // The patch removes the field; the loop over the other fields does it.
            Some(Value::Null) => continue,
            Some(Value::Array(_)) => patch.remove(name),
            Some(_) => return Err(bad()),
        };
        let old = match original.get(name) {
            Some(Value::Array(old)) => Some(old.clone()),
            Some(Value::Null) | None => None,
            Some(_) => return Err(bad()),
        };
        if let Some(Value::Array(new)) = &new {
            check_order(new, &order, identity)?;
        }
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (Some(old), None) => old,
            (None, Some(Value::Array(new))) => clean_list(new),
            (Some(old), Some(Value::Array(new))) => match field {
                Some(field) if field.patch_merge => merge_list(old, new, field)?,
                _ => clean_list(new),
            },
            _ => continue,
        };
        // Without facts a list of objects has no identity of its own and keeps its order.
        let ordered = match identity {
            Identity::Scalar if merged.iter().any(Value::is_object) => merged,
            _ => {
                identity.check(&merged)?;
                identity.check(&order)?;
                arrange(merged, &order, &server_order, identity)
            }
        };
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// The items of a patch must stand in the order that the patch asks for.
fn check_order(list: &[Value], order: &[Value], identity: Identity<'_>) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for item in list.iter().filter(|item| item.get(PATCH).is_none()) {
        let wanted = identity.of(item);
        if wanted.is_none() || !rest.any(|other| identity.of(other) == wanted) {
            let show = |list: &[Value]| in_go(&Value::Array(list.to_vec()));
            return Err(PatchError::Unjudged(format!(
                "The order in patch list:\n{}\n doesn't match {} list:\n{}\n",
                show(list),
                SET_ORDER.trim_end_matches('/'),
                show(order)
            )));
        }
    }
    Ok(())
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, field: &Field) -> Result<Vec<Value>, PatchError> {
    let objects = original.iter().chain(&patch).filter(|item| item.is_object()).count();
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_owned()));
    }
    match field.patch_merge_key {
        _ if objects == 0 => Ok(merge_scalars(&original, &patch)),
        Some(key) if objects == original.len() + patch.len() => merge_objects(original, patch, key, field.message()),
        Some(_) => Err(PatchError::Unjudged("all elements of a list must have the same type".to_owned())),
        None => Err(PatchError::Unjudged("cannot merge lists without merge key".to_owned())),
    }
}

fn merge_scalars(original: &[Value], patch: &[Value]) -> Vec<Value> {
    let mut seen = HashSet::new();
    let merged = original.iter().chain(patch).filter(|item| seen.insert(item.to_string())).cloned().collect();
    arrange(merged, patch, original, Identity::Scalar)
}

fn merge_objects(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    api_type: Option<&ApiType>,
) -> Result<Vec<Value>, PatchError> {
    let identity = Identity::Key(key);
    let mut items = Vec::with_capacity(patch.len());
    let mut deleted = HashSet::new();
    let mut replace = false;
    for item in patch {
        match item.get(PATCH).map(Value::as_str) {
            None => items.push(item),
            Some(Some("delete")) => {
                let Some(id) = identity.of(&item) else {
                    return Err(no_merge_key(&item, key));
                };
                deleted.insert(id);
            }
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(PatchError::Unjudged("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(_) => {
                let directive = item.get(PATCH).cloned().unwrap_or_default();
                let fields = item.as_object().cloned().unwrap_or_default();
                return Err(unknown_directive(&directive, &fields));
            }
        }
    }
    if replace {
        return Ok(clean_list(items));
    }
    original.retain(|item| identity.of(item).is_none_or(|id| !deleted.contains(&id)));
    identity.check(&original)?;
    identity.check(&items)?;
    let (patch_order, server_order) = (items.clone(), original.clone());
    let mut merged = original;
    let mut places = identity.places(&merged);
    for item in items {
        let id = identity.of(&item);
        let Value::Object(fields) = item else { continue };
        let found = id.as_ref().and_then(|id| places.get(id)).copied();
        match found.and_then(|place| merged.get_mut(place)) {
            Some(place) => {
                let old = match place.take() {
                    Value::Object(old) => old,
                    _ => Object::new(),
                };
                *place = Value::Object(merge_object(old, fields, api_type)?);
            }
            None => {
                places.extend(id.map(|id| (id, merged.len())));
                merged.push(Value::Object(without_directives(fields)));
            }
        }
    }
    Ok(arrange(merged, &patch_order, &server_order, identity))
}

/// A value of the patch that meets nothing to merge with: without directives and nulls. `None` when it was only there to delete.
fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.get(PATCH).and_then(Value::as_str) == Some("delete") => None,
        Value::Object(fields) => Some(Value::Object(without_directives(fields))),
        Value::Array(items) => Some(Value::Array(clean_list(items))),
        scalar => Some(scalar),
    }
}

fn clean_list(items: Vec<Value>) -> Vec<Value> {
    // An object that holds nothing but a directive speaks about the list and is not an item.
    let speaks = |item: &Value| item.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key(PATCH));
    items.into_iter().filter(|item| !speaks(item)).filter_map(clean).collect()
}

fn without_directives(fields: Object) -> Object {
    let directive =
        |key: &str| key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    fields
        .into_iter()
        .filter(|(key, value)| !value.is_null() && !directive(key))
        .filter_map(|(key, value)| Some((key, clean(value)?)))
        .collect()
}

fn bad_primitive_list() -> PatchError {
    PatchError::Malformed("invalid patch format of primitive list".to_owned())
}

fn unknown_directive(directive: &Value, fields: &Object) -> PatchError {
    let mut fields = fields.clone();
    fields.insert(PATCH.to_owned(), directive.clone());
    PatchError::Unjudged(format!("unknown patch type: {} in map: {}", in_go(directive), in_go(&Value::Object(fields))))
}
