//! Values of expressions made from JSON.
//!
//! A list or a map is shared when it is copied, since a comprehension copies each item it binds. What a schema says about
//! a value decides its type: a number is a double, a string of format `date-time` a timestamp, a list of type `set` is
//! equal to another in any order.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use cel::ExecutionError;
use cel::common::traits::{self, Adder, Container, Indexer, Iterable, Sizer, Zeroer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelDuration, CelInt, CelList, CelMap, CelNull, CelOptional, CelString, CelTimestamp,
    CelType, CelUInt, Kind, LIST_TYPE, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use serde_json::Value as Json;

use super::CALL_LIMIT;
use super::composition::Lazy;
use super::library;
use super::mutation::Object;
use super::names::{accessible, escape};
use super::types;
use crate::api_types::ListType;
use crate::schema::Schema;

/// A value of any type.
pub(super) type Boxed = Box<dyn Val>;

/// A list from JSON.
#[derive(Debug, Clone)]
pub(super) struct List(Arc<Items>);

#[derive(Debug)]
struct Items {
    items: Vec<Boxed>,
    kind: ListType,
    keys: Box<[Box<str>]>,
}

/// A map or an object from JSON.
#[derive(Debug, Clone)]
pub(super) struct Map(Arc<Fields>);

#[derive(Debug, Default)]
struct Fields {
    values: HashMap<Box<str>, Boxed>,
    /// The keys in the order of the JSON, to be iterated over.
    keys: Vec<CelString<'static>>,
}

/// A value without a schema: JSON as it is.
pub(super) fn plain(json: &Json) -> Boxed {
    match json {
        Json::Null => Box::new(CelNull),
        Json::Bool(flag) => Box::new(CelBool::from(*flag)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.clone())),
        Json::Array(items) => Box::new(List::atomic(items.iter().map(plain).collect())),
        Json::Object(fields) => {
            Box::new(fields.iter().map(|(name, value)| (name.as_str().into(), plain(value))).collect::<Map>())
        }
    }
}

/// A value under a schema; `resource` when it is a whole object of the API. Fields that a rule cannot name are left out.
pub(super) fn typed(json: &Json, schema: &Schema, resource: bool) -> Boxed {
    if schema.is_int_or_string() {
        return plain(json);
    }
    let kind = types::of_schema(schema, resource);
    match (json, kind) {
        (Json::Array(items), _) => {
            let Some(item) = schema.items() else { return plain(json) };
            Box::new(List(Arc::new(Items {
                items: items.iter().map(|json| typed(json, item, item.is_embedded_resource())).collect(),
                kind: schema.list_type(),
                keys: schema.list_map_keys().map(Into::into).collect(),
            })))
        }
        (Json::Object(fields), _) => match schema.values() {
            Some(values) => Box::new(
                fields
                    .iter()
                    .map(|(name, json)| (name.as_str().into(), typed(json, values, values.is_embedded_resource())))
                    .collect::<Map>(),
            ),
            None => Box::new(Map(Arc::new(object(fields, schema, resource)))),
        },
        (Json::Number(number), Some(types::Type::Double)) => {
            Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
        }
        #[expect(clippy::cast_possible_truncation, reason = "a whole number, as the schema has it: 1.0")]
        (Json::Number(number), Some(types::Type::Int)) if number.is_f64() => {
            Box::new(CelInt::from(number.as_f64().unwrap_or(0.0) as i64))
        }
        (Json::String(text), Some(types::Type::Timestamp)) => match types::timestamp(text) {
            Some(time) => Box::new(CelTimestamp::from(time)),
            None => plain(json),
        },
        (Json::String(text), Some(types::Type::Duration)) => match types::duration(text) {
            Some(duration) => Box::new(CelDuration::from(duration)),
            None => plain(json),
        },
        (Json::String(text), Some(types::Type::Bytes)) => Box::new(CelBytes::from(types::base64(text))),
        _ => plain(json),
    }
}

/// An object of the API whose version, kind and metadata are kept beside the rest of it.
pub(super) fn whole(body: &Json, schema: &Schema, around: &[(&str, Json)]) -> Boxed {
    let mut map = body.as_object().map(|fields| object(fields, schema, true)).unwrap_or_default();
    for (name, json) in around {
        map.values.insert((*name).into(), plain(json));
    }
    Box::new(Map(Arc::new(map)))
}

fn object(fields: &serde_json::Map<String, Json>, schema: &Schema, resource: bool) -> Fields {
    let mut map = Fields { values: HashMap::with_capacity(fields.len()), keys: Vec::new() };
    for (name, json) in fields {
        if resource && matches!(name.as_str(), "apiVersion" | "kind") {
            map.values.insert(name.as_str().into(), plain(json));
        } else if resource && name == "metadata" {
            map.values.insert("metadata".into(), typed(json, types::metadata(), false));
        } else if let Some(property) = schema.declared(name)
            && types::of_schema(property, property.is_embedded_resource()).is_some()
        {
            let Some(escaped) = escape(name) else { continue };
            let value = typed(json, property, property.is_embedded_resource());
            if accessible(name) && *escaped != **name {
                map.values.insert(name.as_str().into(), value.clone());
            }
            map.values.insert(escaped.into(), value);
        }
    }
    map
}

/// Copies of the items of any list.
pub(super) fn copies(value: &dyn Val) -> Vec<Boxed> {
    let mut copies = Vec::new();
    if let Some(iterable) = value.as_iterable() {
        let mut items = iterable.iter();
        while let Some(item) = items.next() {
            copies.push(owned(item));
        }
    }
    copies
}

/// A copy that borrows nothing.
pub(super) fn owned(value: &dyn Val) -> Boxed {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Box::new(text.clone().into_static());
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        return Box::new(bytes.clone().into_static());
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        return Box::new(List::atomic(list.inner().iter().map(|item| owned(item.as_ref())).collect()));
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return Box::new(optional.option().map_or_else(CelOptional::none, |value| CelOptional::of(owned(value))));
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        let entries = map.inner().iter().map(|(key, value)| (key.clone().into_static(), owned(value.as_ref())));
        return Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()));
    }
    /// The first of these types that it is of.
    macro_rules! copy_of {
        ($($kind:ty),* $(,)?) => {
            $(if let Some(value) = value.downcast_ref::<$kind>() {
                return Box::new(value.clone());
            })*
        };
    }
    copy_of!(List, Map, CelBool, CelInt, CelUInt, CelDouble, CelDuration, CelTimestamp, CelType);
    copy_of!(library::Url, library::Ip, library::Cidr, library::Quantity, library::Format, library::Semver);
    copy_of!(library::AuthorizerValue, library::PathCheck, library::GroupCheck, library::ResourceCheck);
    copy_of!(library::DecisionValue, Lazy, Object);
    Box::new(CelNull)
}

/// Whether two values are the same, counting what was compared.
pub(super) fn equal(left: &dyn Val, right: &dyn Val, compared: &mut u64) -> bool {
    *compared += 1;
    // Nobody can pay for more: what this answers is not looked at.
    if *compared > CALL_LIMIT.unsigned_abs() {
        return false;
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<CelString>(), right.downcast_ref::<CelString>()) {
        *compared += left.inner().len() as u64 / 10;
        return left.inner() == right.inner();
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<CelOptional>(), right.downcast_ref::<CelOptional>()) {
        return match (left.option(), right.option()) {
            (Some(left), Some(right)) => equal(left, right, compared),
            (left, right) => left.is_none() && right.is_none(),
        };
    }
    if let (Some(left), Some(right)) = (left.downcast_ref::<Object>(), right.downcast_ref::<Object>()) {
        return left.same(right, compared);
    }
    match (left.get_type().kind(), right.get_type().kind()) {
        (Kind::List, Kind::List) => equal_lists(left, right, compared),
        (Kind::Map, Kind::Map) => equal_maps(left, right, compared),
        // Lists and maps compare themselves with this very function.
        (Kind::List | Kind::Map, _) | (_, Kind::List | Kind::Map) => false,
        _ => left.equals(right),
    }
}

fn equal_lists(left: &dyn Val, right: &dyn Val, compared: &mut u64) -> bool {
    let kind = [left, right]
        .into_iter()
        .filter_map(<dyn Val>::downcast_ref::<List>)
        .find(|list| list.0.kind != ListType::Atomic);
    let (Some(left), Some(right)) = (references(left), references(right)) else { return false };
    if left.len() != right.len() {
        return false;
    }
    match kind {
        None => left.iter().zip(&right).all(|(left, right)| equal(*left, *right, compared)),
        // In any order. What is at the same place in both, as nearly always, is found at once.
        Some(_) => left.iter().enumerate().all(|(index, item)| {
            equal(*item, right[index], compared) || right.iter().any(|other| equal(*item, *other, compared))
        }),
    }
}

/// The items of a list, as they are.
pub(super) fn references<'b, 'v>(list: &'b (dyn Val + 'v)) -> Option<Vec<&'b (dyn Val + 'v)>> {
    let mut items = list.as_iterable()?.iter();
    Some(std::iter::from_fn(|| items.next()).collect())
}

fn equal_maps(left: &dyn Val, right: &dyn Val, compared: &mut u64) -> bool {
    match (left.downcast_ref::<Map>(), right.downcast_ref::<Map>()) {
        (Some(left), Some(right)) => {
            let (left, right) = (&left.0.values, &right.0.values);
            if left.len() != right.len() {
                return false;
            }
            return left.iter().all(|(name, value)| {
                right.get(name).is_some_and(|other| equal(value.as_ref(), other.as_ref(), compared))
            });
        }
        (Some(_), None) => return equal_maps(right, left, compared),
        (None, _) => {}
    }
    let size = |map: &dyn Val| map.as_sizer().map(|sizer| *sizer.size().inner());
    let (Some(keys), Some(values), Some(others)) = (left.as_iterable(), left.as_indexer(), right.as_indexer()) else {
        return false;
    };
    if size(left) != size(right) {
        return false;
    }
    let mut keys = keys.iter();
    while let Some(key) = keys.next() {
        match (values.get(key), others.get(key)) {
            (Ok(left), Ok(right)) if equal(left.as_ref(), right.as_ref(), compared) => {}
            _ => return false,
        }
    }
    true
}

impl List {
    pub(super) fn atomic(items: Vec<Boxed>) -> Self {
        Self(Arc::new(Items { items, kind: ListType::Atomic, keys: Box::default() }))
    }

    /// Whether an item stands for the same thing as another: as a member of a set, or by the keys of a map.
    fn same(&self, left: &dyn Val, right: &dyn Val) -> bool {
        if self.0.kind != ListType::Map {
            return equal(left, right, &mut 0);
        }
        let (Some(left), Some(right)) = (left.downcast_ref::<Map>(), right.downcast_ref::<Map>()) else { return false };
        self.0.keys.iter().all(|key| {
            let key = escape(key).unwrap_or_default();
            match (left.0.values.get(&*key), right.0.values.get(&*key)) {
                (Some(left), Some(right)) => equal(left.as_ref(), right.as_ref(), &mut 0),
                (left, right) => left.is_none() && right.is_none(),
            }
        })
    }
}

impl Val for List {
    fn get_type(&self) -> &Type {
        &LIST_TYPE
    }

    fn cel_type() -> &'static Type {
        static KIND: Type = LIST_TYPE;
        &KIND
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)> {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)> {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)> {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        equal(self, other, &mut 0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for List {}

impl List {
    /// Whether its items are what they are by their place alone, and those of two lists one behind the other in their sum.
    pub(super) fn is_atomic(&self) -> bool {
        self.0.kind == ListType::Atomic
    }
}

impl Adder for List {
    /// Upstream: sets and maps are united, and an item of a map is replaced where it stands.
    fn add<'b, 'v>(&'b self, right: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if right.as_iterable().is_none() {
            let types = vec!["list".to_owned(), right.get_type().name().to_owned()];
            return Err(ExecutionError::no_such_overload("_+_", types));
        }
        let mut items = self.0.items.clone();
        for item in copies(right) {
            let place = match self.0.kind {
                ListType::Atomic => None,
                ListType::Set | ListType::Map => {
                    items.iter().position(|known| self.same(known.as_ref(), item.as_ref()))
                }
            };
            match place {
                Some(place) => items[place] = item,
                None => items.push(item),
            }
        }
        Ok(CowVal::owned(Self(Arc::new(Items { items, kind: self.0.kind, keys: self.0.keys.clone() }))))
    }
}

impl Container for List {
    fn contains(&self, value: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.0.items.iter().any(|item| equal(item.as_ref(), value, &mut 0)))
    }
}

impl Indexer for List {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let at = match (index.downcast_ref::<CelInt>(), index.downcast_ref::<CelUInt>(), index.downcast_ref()) {
            (Some(index), ..) => usize::try_from(*index.inner()).ok(),
            (_, Some(index), _) => usize::try_from(*index.inner()).ok(),
            (.., Some(index)) => {
                let index: f64 = *CelDouble::inner(index);
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and not negative")]
                (index >= 0.0 && index.fract() == 0.0).then_some(index as usize)
            }
            _ => {
                let types = vec!["list".to_owned(), index.get_type().name().to_owned()];
                return Err(ExecutionError::no_such_overload("_[_]", types));
            }
        };
        match at.and_then(|at| self.0.items.get(at)) {
            Some(item) => Ok(CowVal::Borrowed(item.as_ref())),
            None => Err(ExecutionError::IndexOutOfBounds(index.try_into().unwrap_or(cel::Value::Null))),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        self.get(index).map(CowVal::into_owned)
    }
}

/// What is iterated over.
struct Each<'b, T>(std::slice::Iter<'b, T>);

impl<'b, 'v> traits::Iterator<'b, 'v> for Each<'b, Boxed> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|item| item.as_ref() as &(dyn Val + 'v))
    }
}

impl<'b, 'v> traits::Iterator<'b, 'v> for Each<'b, CelString<'static>> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        self.0.next().map(|key| key as &(dyn Val + 'v))
    }
}

impl Iterable for List {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b> {
        Box::new(Each(self.0.items.iter()))
    }
}

impl Sizer for List {
    fn size(&self) -> CelInt {
        count(self.0.items.len())
    }
}

impl Zeroer for List {
    fn is_zero_value(&self) -> bool {
        self.0.items.is_empty()
    }
}

impl FromIterator<(Box<str>, Boxed)> for Map {
    fn from_iter<T: IntoIterator<Item = (Box<str>, Boxed)>>(entries: T) -> Self {
        let values: HashMap<Box<str>, Boxed> = entries.into_iter().collect();
        let mut keys: Vec<CelString<'static>> =
            values.keys().map(|key| CelString::from(String::from(key.clone()))).collect();
        keys.sort_by(|left, right| left.inner().cmp(right.inner()));
        Self(Arc::new(Fields { values, keys }))
    }
}

impl Map {
    fn find(&self, key: &dyn Val) -> Option<&Boxed> {
        self.0.values.get(key.downcast_ref::<CelString>()?.inner())
    }
}

impl Val for Map {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        static KIND: Type = MAP_TYPE;
        &KIND
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)> {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)> {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn as_zeroer(&self) -> Option<&dyn Zeroer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        equal(self, other, &mut 0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Map {}

impl Container for Map {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(key).is_some())
    }
}

impl Indexer for Map {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        match self.find(key) {
            Some(value) => Ok(CowVal::Borrowed(value.as_ref())),
            None => Err(ExecutionError::no_such_key(&show(key))),
        }
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError> {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Iterable for Map {
    fn iter<'b, 'v>(&'b self) -> Box<dyn traits::Iterator<'b, 'v> + 'b> {
        Box::new(Each(self.0.keys.iter()))
    }
}

impl Sizer for Map {
    fn size(&self) -> CelInt {
        count(self.0.values.len())
    }
}

impl Zeroer for Map {
    fn is_zero_value(&self) -> bool {
        self.0.values.is_empty()
    }
}

pub(super) fn count(length: usize) -> CelInt {
    CelInt::from(i64::try_from(length).unwrap_or(i64::MAX))
}

/// A key as messages show it.
pub(super) fn show(key: &dyn Val) -> String {
    match cel::Value::try_from(key) {
        Ok(cel::Value::String(text)) => text.to_string(),
        Ok(cel::Value::Int(number)) => number.to_string(),
        Ok(other) => format!("{other:?}"),
        Err(_) => String::new(),
    }
}
