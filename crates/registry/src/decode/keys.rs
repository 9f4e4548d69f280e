//! The keys of an object on their way to a type: copied, and remembered to find duplicates.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde::forward_to_deserialize_any;

/// Objects with more keys than this are searched for duplicates with a hash set.
const LINEAR: usize = 16;

/// The keys of an object so far.
#[derive(Default)]
pub(super) struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Whether the key is new.
    pub(super) fn insert(&mut self, key: Cow<'de, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > LINEAR {
            self.many = self.few.drain(..).collect();
        }
        true
    }
}

/// A key, of which a copy is kept.
pub(super) struct KeySeed<'k, 'de, S> {
    pub(super) seed: S,
    pub(super) key: &'k mut Cow<'de, str>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, 'de, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(KeyTrack { inner, key: self.key })
    }
}

struct KeyTrack<'k, 'de, D> {
    inner: D,
    key: &'k mut Cow<'de, str>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for KeyTrack<'_, 'de, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(KeyVisitor { visitor, key: self.key })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct KeyVisitor<'k, 'de, V> {
    visitor: V,
    key: &'k mut Cow<'de, str>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for KeyVisitor<'_, 'de, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        *self.key = Cow::Owned(value.to_owned());
        self.visitor.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        *self.key = Cow::Borrowed(value);
        self.visitor.visit_borrowed_str(value)
    }
}
