//! Which field of which type has which number, as upstream's types say in their tags.
//!
//! The facts are in text files, one for each API group, and are read at first use. A file has a line for each kind and a
//! paragraph for each type, with a line for each field: number, name in JSON (`+` for an embedded struct, whose fields are
//! those of the object around it), type.
//!
//! ```text
//! = policy/v1 Eviction policy.v1.Eviction
//! policy.v1.Eviction
//!   1 metadata meta.v1.ObjectMeta
//!   2 deleteOptions *meta.v1.DeleteOptions
//! ```
//!
//! `either` after the name of a type says that its JSON is that of whichever of its fields is there.
//!
//! `[]` before a type is a list, `{}` a map from strings. Go writes the zero of a field even where JSON would not have it:
//! only with `*` (a pointer) or `!` (never left out) does a zero say something.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The fields of a type, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Shape {
    fields: Vec<Field>,
    /// In JSON it is whichever of its fields is there.
    pub(super) either: bool,
}

impl Shape {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &self.fields[index])
    }
}

#[cfg(test)]
impl Shape {
    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter()
    }
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    /// Its name in JSON; none for an embedded struct.
    pub(super) name: Option<&'static str>,
    pub(super) repeat: Repeat,
    pub(super) presence: Presence,
    pub(super) kind: Type,
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Once,
    List,
    Map,
}

/// Whether a zero on the wire says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    UnlessZero,
}

/// The type of a field, or of the elements of a list or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Bool,
    Int,
    Double,
    Bytes,
    Time {
        micro: bool,
    },
    Quantity,
    IntOrString,
    /// A message that holds nothing but a list of strings, which is what it is in JSON.
    Strings,
    /// Embedded JSON.
    Raw,
    Message(&'static str),
}

#[derive(Default)]
struct Facts {
    kinds: HashMap<(&'static str, &'static str), &'static str>,
    shapes: HashMap<&'static str, Shape>,
}

/// The type of a kind.
pub(super) fn of_kind(version: &str, kind: &str) -> Option<&'static Shape> {
    // Options come under the version of whatever they are about.
    let name = match kind {
        "DeleteOptions" => "meta.v1.DeleteOptions",
        _ => FACTS.kinds.get(&(version, kind))?,
    };
    shape(name)
}

/// A type by its name.
pub(super) fn shape(name: &str) -> Option<&'static Shape> {
    FACTS.shapes.get(name)
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| {
    let mut facts = Facts::default();
    for file in FILES {
        read(file, &mut facts);
    }
    facts
});

fn read(file: &'static str, facts: &mut Facts) {
    let mut shape: Option<&mut Shape> = None;
    for line in file.lines() {
        if let Some(kind) = line.strip_prefix("= ") {
            let mut words = kind.split(' ');
            if let (Some(version), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) {
                facts.kinds.insert((version, kind), name);
            }
        } else if let Some(field) = line.strip_prefix("  ") {
            if let Some((shape, field)) = shape.as_mut().zip(read_field(field)) {
                shape.fields.push(field);
                shape.fields.sort_by_key(|field| field.number);
            }
        } else {
            let (name, either) = line.strip_suffix(" either").map_or((line, false), |name| (name, true));
            let entry = facts.shapes.entry(name).or_default();
            entry.either = either;
            shape = Some(entry);
        }
    }
}

fn read_field(line: &'static str) -> Option<Field> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let name = words.next().filter(|name| *name != "+");
    let kind = words.next()?;
    let (repeat, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Repeat::List, kind),
        (_, Some(kind)) => (Repeat::Map, kind),
        _ => (Repeat::Once, kind),
    };
    let (presence, kind) = match kind.strip_prefix(['*', '!']) {
        Some(kind) => (Presence::Always, kind),
        None => (Presence::UnlessZero, kind),
    };
    let kind = match kind {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "time" => Type::Time { micro: false },
        "microtime" => Type::Time { micro: true },
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "strings" => Type::Strings,
        "raw" => Type::Raw,
        message => Type::Message(message),
    };
    Some(Field { number, name, repeat, presence, kind })
}

const FILES: &[&str] = &[
    include_str!("types/meta.facts"),
    include_str!("types/core.facts"),
    include_str!("types/apps.facts"),
    include_str!("types/batch.facts"),
    include_str!("types/autoscaling.facts"),
    include_str!("types/policy.facts"),
    include_str!("types/networking.facts"),
    include_str!("types/discovery.facts"),
    include_str!("types/events.facts"),
    include_str!("types/coordination.facts"),
    include_str!("types/rbac.facts"),
    include_str!("types/storage.facts"),
    include_str!("types/scheduling.facts"),
    include_str!("types/node.facts"),
    include_str!("types/admissionregistration.facts"),
    include_str!("types/authentication.facts"),
    include_str!("types/authorization.facts"),
    include_str!("types/apiextensions.facts"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_hold_together() {
        let facts = &*FACTS;
        for ((version, kind), name) in &facts.kinds {
            assert!(facts.shapes.contains_key(name), "{version} {kind} is of the unknown type {name}");
        }
        for (name, shape) in &facts.shapes {
            for field in &shape.fields {
                if let Type::Message(message) = field.kind {
                    assert!(facts.shapes.contains_key(message), "{name} {field:?}");
                }
                assert!(field.name.is_some() || field.repeat == Repeat::Once, "{name} {field:?}");
            }
            assert!(shape.fields.windows(2).all(|pair| pair[0].number < pair[1].number), "{name} has a number twice");
        }
    }
}
