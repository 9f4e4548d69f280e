//! What comprehensions with two variables are made of: the pairs of a list or map, and maps that grow.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelInt, CelMap, CelMapKey, CelString, CelUInt, DYN_TYPE, Kind, MAP_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{Answer, wrong};
use crate::expression::comprehensions::{MAP_INSERT, PAIRS};
use crate::expression::value::{Boxed, List, copies, count, owned};

pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(PAIRS, PAIRS, vec![DYN_TYPE], |arguments| {
        let range = arguments.first().ok_or_else(|| wrong("argument is missing"))?;
        Ok(CowVal::owned(List::atomic(pairs(range.as_ref())?)))
    })?;
    env.add_overload(MAP_INSERT, "@mapInsert_map_key_value", vec![MAP_TYPE, DYN_TYPE, DYN_TYPE], |arguments| {
        let [map, key, value] = arguments.as_slice() else { return Err(wrong("argument is missing")) };
        let mut entries = entries(map.as_ref())?;
        insert(&mut entries, key.as_ref(), value.as_ref())?;
        made(entries)
    })?;
    env.add_overload(MAP_INSERT, "@mapInsert_map_map", vec![MAP_TYPE, MAP_TYPE], |arguments| {
        let [map, more] = arguments.as_slice() else { return Err(wrong("argument is missing")) };
        let mut gathered = entries(map.as_ref())?;
        for (key, value) in entries(more.as_ref())? {
            insert(&mut gathered, key.inner(), value.as_ref())?;
        }
        made(gathered)
    })
}

type Entries = HashMap<CelMapKey<'static>, Boxed>;

/// `[index, item]` for each item of a list, `[key, value]` for each entry of a map.
fn pairs(range: &dyn Val) -> Result<Vec<Boxed>, ExecutionError> {
    let pair = |first: Boxed, second: Boxed| Box::new(List::atomic(vec![first, second])) as Boxed;
    let items = copies(range);
    if range.get_type().kind() == Kind::List {
        let indexed = items.into_iter().enumerate();
        return Ok(indexed.map(|(index, item)| pair(Box::new(count(index)), item)).collect());
    }
    let Some(values) = range.as_indexer() else {
        let got = range.get_type().name().to_owned();
        return Err(ExecutionError::UnexpectedType { got, want: "iterable".to_owned() });
    };
    items
        .into_iter()
        .map(|key| values.get(key.as_ref()).map(|value| owned(value.as_ref())).map(|value| pair(key, value)))
        .collect()
}

fn entries(map: &dyn Val) -> Result<Entries, ExecutionError> {
    let mut entries = Entries::new();
    let Some(values) = map.as_indexer() else { return Ok(entries) };
    for key in copies(map) {
        let value = owned(values.get(key.as_ref())?.as_ref());
        entries.insert(as_key(key.as_ref())?, value);
    }
    Ok(entries)
}

/// cel-go: no entry is replaced (`common/types/map.go`, `InsertMapKeyValue`).
fn insert(entries: &mut Entries, key: &dyn Val, value: &dyn Val) -> Result<(), ExecutionError> {
    let key = as_key(key)?;
    if entries.contains_key(&key) {
        return Err(wrong(format!("insert failed: key {} already exists", shown(&key))));
    }
    entries.insert(key, owned(value));
    Ok(())
}

fn made<'b, 'v>(entries: Entries) -> Answer<'b, 'v> {
    Ok(CowVal::Owned(owned(&CelMap::from(entries))))
}

fn as_key(key: &dyn Val) -> Result<CelMapKey<'static>, ExecutionError> {
    if let Some(text) = key.downcast_ref::<CelString>() {
        return Ok(CelMapKey::String(text.clone().into_static()));
    }
    if let Some(number) = key.downcast_ref::<CelInt>() {
        return Ok(CelMapKey::Int(*number));
    }
    if let Some(number) = key.downcast_ref::<CelUInt>() {
        return Ok(CelMapKey::UInt(*number));
    }
    if let Some(flag) = key.downcast_ref::<CelBool>() {
        return Ok(CelMapKey::Bool(*flag));
    }
    Err(wrong(format!("unsupported key type: {}", key.get_type().name())))
}

fn shown(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(flag) => flag.inner().to_string(),
        CelMapKey::Int(number) => number.inner().to_string(),
        CelMapKey::String(text) => text.inner().to_owned(),
        CelMapKey::UInt(number) => number.inner().to_string(),
    }
}
