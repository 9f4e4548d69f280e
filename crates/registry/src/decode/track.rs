//! A serde deserializer around another one, which knows where it is.

use std::any::type_name;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::iter;
use std::str::FromStr;

use machinery::depth::{self, MAX_DEPTH, TooDeep};
use machinery::quantity::{Quantity, QuantityError};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};

use super::keys::{KeySeed, Keys};
use super::{Report, go};

/// What is noted on the way. What it says of a value is said here, once, and not in the code that the compiler makes
/// for each type: there are hundreds.
pub(super) struct Notes<'r> {
    report: RefCell<&'r mut Report>,
    /// The first value that did not fit, in upstream's words. serde's own error goes on to end the decoding.
    pub(super) failure: RefCell<Option<String>>,
    /// How many objects and lists are around the value at hand.
    depth: Cell<usize>,
    /// What the elements of lists and maps take so far, in bytes.
    memory: Cell<usize>,
}

/// What the elements of an object's lists and maps may take, in bytes, without what they point to. Most kinds come nowhere
/// near it. But `{}` is two bytes in a body, and a whole container, of a thousand bytes and more, in a pod.
pub(super) const MAX_MEMORY: usize = 128 << 20;

impl<'r> Notes<'r> {
    pub(super) fn new(report: &'r mut Report) -> Self {
        Self {
            report: RefCell::new(report),
            failure: RefCell::default(),
            depth: Cell::default(),
            memory: Cell::default(),
        }
    }

    /// Begins an object or list.
    fn enter<E: Error>(&self) -> Result<(), E> {
        let depth = self.depth.get() + 1;
        self.depth.set(depth);
        if depth > MAX_DEPTH { Err(self.exceeded(&TooDeep)) } else { Ok(()) }
    }

    /// Reads the object or list that was begun, and ends it. The levels of one type may each take much of the stack.
    fn read<T>(&self, read: impl FnOnce() -> T) -> T {
        let result = if self.depth.get().is_multiple_of(depth::LEVELS) { depth::with_room(read) } else { read() };
        self.depth.set(self.depth.get() - 1);
        result
    }

    /// Counts an element of a list or map.
    fn charge<T, E: Error>(&self) -> Result<(), E> {
        let memory = self.memory.get() + size_of::<T>();
        self.memory.set(memory);
        if memory > MAX_MEMORY { Err(self.exceeded(&"the object has too many elements")) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn exceeded<E: Error>(&self, what: &dyn fmt::Display) -> E {
        self.fail(what.to_string());
        E::custom(what)
    }

    fn collecting(&self) -> bool {
        self.report.borrow().collect
    }

    fn fail(&self, message: String) {
        self.failure.borrow_mut().get_or_insert(message);
    }

    /// A quantity in its canonical form, or what is wrong with it.
    #[inline(never)]
    fn canonical(&self, text: &dyn fmt::Display) -> Result<String, QuantityError> {
        let quantity = Quantity::from_str(&text.to_string());
        quantity.map(|quantity| quantity.to_string()).inspect_err(|error| self.fail(error.to_string()))
    }

    /// The type at the Rust path `into` does not take what was `found` at `path`.
    #[cold]
    #[inline(never)]
    fn refuse(&self, path: Path<'_>, into: &str, found: &str) {
        let into = go::type_name(into);
        self.fail(match path.go_field() {
            Some(field) => format!("json: cannot unmarshal {found} into Go struct field {field} of type {into}"),
            None => format!("json: cannot unmarshal {found} into Go value of type {into}"),
        });
    }

    /// Go shows the number only to a type that takes numbers, just not this one.
    #[cold]
    #[inline(never)]
    fn refuse_number(&self, path: Path<'_>, into: &str, expected: Expected, number: &dyn fmt::Display) {
        match expected {
            Expected::Number => self.refuse(path, into, &format!("number {number}")),
            _ => self.refuse(path, into, "number"),
        }
    }

    /// Most types take any text or none, a few look inside.
    #[cold]
    #[inline(never)]
    fn refuse_text(&self, path: Path<'_>, into: &str, text: &str) {
        if into.ends_with("::ByteString") {
            self.fail(go::base64_error(text));
        } else if into.ends_with("::Timestamp") {
            self.fail(go::time_error(text));
        } else {
            self.refuse(path, into, "string");
        }
    }

    /// The type at `path` skips its value, because it does not know the field.
    #[cold]
    #[inline(never)]
    fn unknown(&self, path: Path<'_>) {
        self.report.borrow_mut().note(format!("unknown field \"{path}\""));
    }

    #[cold]
    #[inline(never)]
    fn duplicate(&self, path: Path<'_>) {
        self.report.borrow_mut().note(format!("duplicate field \"{path}\""));
    }
}

/// Where a value is: a list of steps that lives on the stack of the recursion.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    /// A field of a struct, whose name is given, or (`None`) a key of a map.
    Key {
        parent: &'a Path<'a>,
        key: &'a str,
        owner: Option<&'static str>,
    },
    Index {
        parent: &'a Path<'a>,
        index: usize,
    },
}

/// `spec.containers[0].name`, as strict errors have it.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key { parent: Path::Root, key, .. } => f.write_str(key),
            Self::Key { parent, key, .. } => write!(f, "{parent}.{key}"),
            Self::Index { parent, index } => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    /// `PodSpec.spec.containers.name`, as Go's type errors have it: the innermost struct, then the struct fields on
    /// the way, without indexes and keys of maps.
    fn go_field(&self) -> Option<String> {
        let mut owner = None;
        let mut fields = Vec::new();
        let mut path = self;
        loop {
            match path {
                Self::Root => break,
                Self::Key { parent, key, owner: step } => {
                    if let Some(step) = step {
                        owner = owner.or(Some(*step));
                        fields.push(*key);
                    }
                    path = parent;
                }
                Self::Index { parent, .. } => path = parent,
            }
        }
        fields.reverse();
        owner.map(|owner| format!("{owner}.{}", fields.join(".")))
    }
}

/// What the type asked for, which matters for `null`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Text,
    Number,
    Bool,
    Other,
}

/// The deserializer: `inner` at `path`.
pub(super) struct Track<'a, 'r, D> {
    inner: D,
    path: Path<'a>,
    notes: &'a Notes<'r>,
    /// Set inside a newtype struct; how quantities are told from other strings.
    newtype: Option<&'static str>,
}

impl<'a, 'r, D> Track<'a, 'r, D> {
    pub(super) fn root(inner: D, notes: &'a Notes<'r>) -> Self {
        Self { inner, path: Path::Root, notes, newtype: None }
    }
}

impl<'a, 'r, 'de, D: Deserializer<'de>> Track<'a, 'r, D> {
    fn any<V: Visitor<'de>>(self, visitor: V, expected: Expected) -> Result<V::Value, D::Error> {
        self.visit(visitor, expected, None)
    }

    fn visit<V: Visitor<'de>>(
        self,
        visitor: V,
        expected: Expected,
        strukt: Option<&'static str>,
    ) -> Result<V::Value, D::Error> {
        let Self { inner, path, notes, newtype } = self;
        inner.deserialize_any(Watched { visitor, path, notes, expected, strukt, newtype })
    }
}

macro_rules! expected {
    ($($method:ident => $expected:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.any(visitor, $expected)
        })*
    };
}

/// serde_json finds out by itself what a value is; asking it for "any" means that the wrong kind of value reaches the
/// visitor below, which can say so in upstream's words.
impl<'de, D: Deserializer<'de>> Deserializer<'de> for Track<'_, '_, D> {
    type Error = D::Error;

    expected! {
        deserialize_any => Expected::Other,
        deserialize_bool => Expected::Bool,
        deserialize_i8 => Expected::Number,
        deserialize_i16 => Expected::Number,
        deserialize_i32 => Expected::Number,
        deserialize_i64 => Expected::Number,
        deserialize_u8 => Expected::Number,
        deserialize_u16 => Expected::Number,
        deserialize_u32 => Expected::Number,
        deserialize_u64 => Expected::Number,
        deserialize_f32 => Expected::Number,
        deserialize_f64 => Expected::Number,
        deserialize_char => Expected::Text,
        deserialize_str => Expected::Text,
        deserialize_string => Expected::Text,
        deserialize_bytes => Expected::Other,
        deserialize_byte_buf => Expected::Other,
        deserialize_unit => Expected::Other,
        deserialize_seq => Expected::Other,
        deserialize_map => Expected::Other,
        deserialize_identifier => Expected::Text,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Self { inner, path, notes, newtype } = self;
        inner.deserialize_option(Watched { visitor, path, notes, expected: Expected::Other, strukt: None, newtype })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.newtype = Some(name);
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.any(visitor, Expected::Other)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.any(visitor, Expected::Other)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.any(visitor, Expected::Other)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Expected::Other, Some(name))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }

    /// A type that skips a value does so because it does not know the field.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if self.notes.collecting() {
            self.notes.unknown(self.path);
        }
        self.inner.deserialize_ignored_any(visitor)
    }
}

/// The visitor: passes on what it is told, with children tracked too.
struct Watched<'a, 'r, V> {
    visitor: V,
    path: Path<'a>,
    notes: &'a Notes<'r>,
    expected: Expected,
    strukt: Option<&'static str>,
    newtype: Option<&'static str>,
}

impl<'de, V: Visitor<'de>> Watched<'_, '_, V> {
    fn is_quantity(&self) -> bool {
        self.newtype == Some("Quantity")
    }

    /// A quantity in its canonical form.
    fn quantity<E: Error>(self, text: &dyn fmt::Display) -> Result<V::Value, E> {
        let canonical = self.notes.canonical(text).map_err(E::custom)?;
        self.visitor.visit_string(canonical)
    }

    /// What the visitor says of a number.
    fn number<E: Error>(
        self,
        value: &dyn fmt::Display,
        visit: impl FnOnce(V) -> Result<V::Value, E>,
    ) -> Result<V::Value, E> {
        if self.is_quantity() {
            return self.quantity(value);
        }
        let Self { visitor, path, notes, expected, .. } = self;
        visit(visitor).inspect_err(|_| notes.refuse_number(path, type_name::<V::Value>(), expected, value))
    }

    /// What the visitor says of a text.
    fn text<E: Error>(self, text: &str, visit: impl FnOnce(V) -> Result<V::Value, E>) -> Result<V::Value, E> {
        if self.is_quantity() {
            return self.quantity(&text);
        }
        let Self { visitor, path, notes, .. } = self;
        visit(visitor).inspect_err(|_| notes.refuse_text(path, type_name::<V::Value>(), text))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watched<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        let Self { visitor, path, notes, .. } = self;
        visitor.visit_bool(value).inspect_err(|_| notes.refuse(path, type_name::<V::Value>(), "bool"))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.number(&value, |visitor| visitor.visit_i64(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.number(&value, |visitor| visitor.visit_u64(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.number(&value, |visitor| visitor.visit_f64(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.text(value, |visitor| visitor.visit_str(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.text(value, |visitor| visitor.visit_borrowed_str(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        self.visit_str(&value)
    }

    /// `null`: Go leaves the zero value where it is.
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        if self.is_quantity() {
            return self.visitor.visit_str("0");
        }
        let Self { visitor, path, notes, expected, strukt, .. } = self;
        match expected {
            Expected::Text => visitor.visit_str(""),
            Expected::Number => visitor.visit_u64(0),
            Expected::Bool => visitor.visit_bool(false),
            // That of a struct has no fields.
            Expected::Other if strukt.is_some() => visitor.visit_map(MapDeserializer::new(iter::empty::<((), ())>())),
            Expected::Other => {
                visitor.visit_unit().inspect_err(|_| notes.refuse(path, type_name::<V::Value>(), "null"))
            }
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Self { visitor, path, notes, newtype, .. } = self;
        visitor.visit_some(Track { inner, path, notes, newtype })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let Self { visitor, path, notes, newtype, .. } = self;
        visitor.visit_newtype_struct(Track { inner, path, notes, newtype })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.notes.enter()?;
        let entered = Cell::new(false);
        let sequence = Sequence { inner, parent: &self.path, index: 0, notes: self.notes, entered: &entered };
        let result = self.notes.read(|| self.visitor.visit_seq(sequence));
        if result.is_err() && !entered.get() {
            self.notes.refuse(self.path, type_name::<V::Value>(), "array");
        }
        result
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.notes.enter()?;
        let entered = Cell::new(false);
        let map = Map {
            inner,
            parent: &self.path,
            strukt: self.strukt,
            notes: self.notes,
            collecting: self.notes.collecting(),
            keys: Keys::default(),
            key: Cow::Borrowed(""),
            entered: &entered,
        };
        let result = self.notes.read(|| self.visitor.visit_map(map));
        if result.is_err() && !entered.get() {
            self.notes.refuse(self.path, type_name::<V::Value>(), "object");
        }
        result
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_enum(inner)
    }
}

struct Sequence<'a, 'r, A> {
    inner: A,
    parent: &'a Path<'a>,
    index: usize,
    notes: &'a Notes<'r>,
    entered: &'a Cell<bool>,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Sequence<'_, '_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.entered.set(true);
        let path = Path::Index { parent: self.parent, index: self.index };
        self.index += 1;
        self.notes.charge::<S::Value, _>()?;
        self.inner.next_element_seed(Seed { seed, path, notes: self.notes })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

struct Map<'a, 'r, 'de, A> {
    inner: A,
    parent: &'a Path<'a>,
    strukt: Option<&'static str>,
    notes: &'a Notes<'r>,
    collecting: bool,
    keys: Keys<'de>,
    /// The key whose value comes next.
    key: Cow<'de, str>,
    entered: &'a Cell<bool>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Map<'_, '_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.entered.set(true);
        if !self.collecting {
            return self.inner.next_key_seed(seed);
        }
        let found = self.inner.next_key_seed(KeySeed { seed, key: &mut self.key })?;
        if found.is_some() && !self.keys.insert(self.key.clone()) {
            let path = Path::Key { parent: self.parent, key: &self.key, owner: self.strukt };
            self.notes.duplicate(path);
        }
        Ok(found)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.notes.charge::<S::Value, _>()?;
        let path = Path::Key { parent: self.parent, key: &self.key, owner: self.strukt };
        self.inner.next_value_seed(Seed { seed, path, notes: self.notes })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The value at `path`.
struct Seed<'a, 'r, S> {
    seed: S,
    path: Path<'a>,
    notes: &'a Notes<'r>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, '_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(Track { inner, path: self.path, notes: self.notes, newtype: None })
    }
}
