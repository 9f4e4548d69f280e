//! Upstream's API types: what their Go definitions say that the Rust types of `k8s-openapi` do not carry.
//!
//! For each field of each built-in type that is served: its protobuf field number and type, the patch strategy and merge key
//! of strategic merge patches, and the list and map types of server-side apply. The last two differ: the ports of a Service
//! merge by `port` in the one and by `port` and `protocol` in the other.
//!
//! The facts are in text files, one for each API group, which are read once at first use. Upstream's are the struct tags of
//! `staging/src/k8s.io/api/GROUP/VERSION/types.go` and the `generated.proto` beside it.
//!
//! ```text
//! package io.k8s.api.core.v1 v1
//! Pod kind
//!   1 metadata meta.v1.ObjectMeta
//!   2 spec PodSpec
//! PodSpec
//!   1 volumes []Volume; patch merge,retainKeys by name; list map by name
//!   7 nodeSelector {}string; map atomic
//! SecretKeySelector atomic
//!   1 + LocalObjectReference
//! ```
//!
//! - `package` names the OpenAPI package of the types below it and their `apiVersion`.
//! - A type is a `kind` when objects of it are served or taken as they are (by another `apiVersion` where one follows),
//!   `atomic` when server-side apply replaces it as a whole, and `either` when its JSON is that of the one field it has.
//! - A field has a number, its name in JSON and a type. `+` for a name is an embedded struct, whose fields are those of the
//!   object around it. `[]` is a list and `{}` a map from strings; `*` is a pointer and `!` what JSON never leaves out: of any
//!   other field a zero is the same as nothing. A type of another package is written with the end of the package's name.
//! - A key of a list map may have a default: `protocol=TCP`. What has no rule follows the general one: objects are merged
//!   field by field, lists are replaced.

mod read;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

/// How server-side apply, and every client that merges lists, treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// A map, keyed by [`Field::list_map_keys`].
    Map,
}

/// How often a field occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Cardinality {
    /// Once.
    #[default]
    Once,
    /// Any number of times: a list.
    List,
    /// Any number of times, as entries of a map from strings.
    Map,
}

/// Whether the zero of a field's type says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Presence {
    /// A zero is left out of JSON: `omitempty`.
    #[default]
    OmitZero,
    /// The field is never left out.
    Always,
    /// A pointer: the field is left out when it is `nil`, and a zero says something.
    Pointer,
}

/// The type of a field, or of the elements or values of a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `string`.
    String,
    /// `bool`.
    Bool,
    /// `int32` or `int64`.
    Int,
    /// `float64`.
    Double,
    /// `[]byte`, in JSON as base64.
    Bytes,
    /// `metav1.Time` or `metav1.MicroTime`, in JSON as RFC 3339.
    Time {
        /// Whether it has microseconds.
        micro: bool,
    },
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// A message that holds nothing but a list of strings, which is what it is in JSON (`authorizationv1.ExtraValue`).
    Strings,
    /// Embedded JSON: `runtime.RawExtension`, `apiextensionsv1.JSON`, `metav1.FieldsV1`.
    Raw,
    /// A struct.
    Message(TypeId),
}

/// A type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeId(u16);

impl TypeId {
    /// What the table says of it.
    #[inline]
    #[must_use]
    pub fn get(self) -> &'static ApiType {
        &TABLE.types[usize::from(self.0)]
    }
}

/// A field of an [`ApiType`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The protobuf field number.
    pub number: u32,
    /// The name in JSON; empty for an embedded struct.
    pub name: &'static str,
    /// How often it occurs.
    pub cardinality: Cardinality,
    /// Whether a zero says something.
    pub presence: Presence,
    /// The type of the value, or of the elements or values of a list or map.
    pub kind: Type,
    /// Strategic merge: the list is merged, by [`Self::patch_merge_key`] or as a set of scalars.
    pub patch_merge: bool,
    /// Strategic merge: the value is replaced as a whole.
    pub patch_replace: bool,
    /// Strategic merge: clients send `$retainKeys` with the value.
    pub patch_retain_keys: bool,
    /// Strategic merge: the field that identifies an element.
    pub patch_merge_key: Option<&'static str>,
    /// Server-side apply: how the list is treated.
    pub list_type: ListType,
    /// Server-side apply: the keys of a list map as they are written in the table.
    keys: &'static str,
    /// Server-side apply: whether the map or object is replaced as a whole (`true`) or by fields in spite of its type (`false`).
    pub map_atomic: Option<bool>,
}

impl Field {
    /// The value of the OpenAPI extension `x-kubernetes-patch-strategy`.
    #[must_use]
    pub fn patch_strategy(&self) -> Option<&'static str> {
        match (self.patch_merge, self.patch_retain_keys, self.patch_replace) {
            (true, true, _) => Some("merge,retainKeys"),
            (true, false, _) => Some("merge"),
            (false, true, _) => Some("retainKeys"),
            (false, false, true) => Some("replace"),
            (false, false, false) => None,
        }
    }

    /// Server-side apply: the fields that identify an element of a list map, and what each is when an element leaves it out.
    pub fn list_map_keys(&self) -> impl Iterator<Item = (&'static str, Option<&'static str>)> + use<> {
        let keys = self.keys.split(',').filter(|key| !key.is_empty());
        keys.map(|key| key.split_once('=').map_or((key, None), |(key, default)| (key, Some(default))))
    }

    /// The struct that the field, or an element of the list, is. The keys of a map are no fields.
    #[must_use]
    pub fn message(&self) -> Option<&'static ApiType> {
        match (self.cardinality, self.kind) {
            (Cardinality::Once | Cardinality::List, Type::Message(id)) => Some(id.get()),
            _ => None,
        }
    }

    /// Whether the field is there in every object, even an empty one: in Go it is a struct, or a list without `omitempty`.
    #[must_use]
    pub fn is_always_there(&self) -> bool {
        match self.cardinality {
            Cardinality::Once => matches!(self.kind, Type::Message(_)) && self.presence != Presence::Pointer,
            Cardinality::List => self.presence == Presence::Always,
            Cardinality::Map => false,
        }
    }
}

/// A field as JSON has it: an object has the fields of its embedded structs as its own.
#[derive(Clone, Debug)]
pub struct Member {
    /// The numbers of the embedded structs around the field, from the outermost inwards.
    pub embedded_in: Box<[u32]>,
    /// The field.
    pub field: Field,
}

/// A Go struct of upstream's API.
#[derive(Clone, Debug, Default)]
pub struct ApiType {
    /// The package in OpenAPI: `io.k8s.api.core.v1`.
    pub package: &'static str,
    /// The name: `PodSpec`.
    pub name: &'static str,
    /// Server-side apply replaces objects of it as a whole.
    pub is_atomic: bool,
    /// In JSON it is whichever of its fields is there.
    pub is_either: bool,
    /// Sorted by number.
    fields: Vec<Field>,
    /// Sorted by the name in JSON.
    members: Vec<Member>,
}

impl ApiType {
    /// The type with this name in OpenAPI: `io.k8s.api.core.v1.PodSpec`.
    #[must_use]
    pub fn by_openapi_name(name: &str) -> Option<&'static Self> {
        TABLE.by_name.get(&name.rsplit_once('.')?).map(|id| id.get())
    }

    /// The type of objects of this kind.
    #[must_use]
    pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Self> {
        TABLE.by_kind.get(&(api_version, kind)).map(|id| id.get())
    }

    /// The field with this number, which may be an embedded struct.
    #[must_use]
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &self.fields[index])
    }

    /// All fields as JSON has them, sorted by name.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The field with this name in JSON.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Field> {
        let found = self.members.binary_search_by(|member| member.field.name.cmp(name));
        found.ok().map(|index| &self.members[index].field)
    }

    /// The field with this name in JSON, looked for from `next` on, which is set behind it: the members of an object mostly
    /// come in the order of their names.
    #[inline]
    #[must_use]
    pub fn member_from(&self, name: &[u8], next: &mut usize) -> Option<&Member> {
        let (before, behind) = self.members.split_at_checked(*next)?;
        let is_it = |member: &Member| member.field.name.as_bytes() == name;
        let found = match behind.iter().position(is_it) {
            Some(index) => before.len() + index,
            None => before.iter().position(is_it)?,
        };
        *next = found + 1;
        self.members.get(found)
    }
}

/// All types of the table.
pub fn all() -> impl Iterator<Item = &'static ApiType> {
    TABLE.types.iter()
}

/// The kinds of the table: `apiVersion`, kind, and the type of the objects.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str, &'static ApiType)> {
    TABLE.by_kind.iter().map(|((api_version, kind), id)| (*api_version, *kind, id.get()))
}

#[derive(Default)]
struct Table {
    types: Vec<ApiType>,
    by_name: HashMap<(&'static str, &'static str), TypeId>,
    by_kind: HashMap<(&'static str, &'static str), TypeId>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read::table(FILES));

const FILES: &[&str] = &[
    include_str!("api_types/meta.types"),
    include_str!("api_types/core.types"),
    include_str!("api_types/apps.types"),
    include_str!("api_types/batch.types"),
    include_str!("api_types/autoscaling.types"),
    include_str!("api_types/policy.types"),
    include_str!("api_types/networking.types"),
    include_str!("api_types/discovery.types"),
    include_str!("api_types/events.types"),
    include_str!("api_types/coordination.types"),
    include_str!("api_types/rbac.types"),
    include_str!("api_types/storage.types"),
    include_str!("api_types/scheduling.types"),
    include_str!("api_types/flowcontrol.types"),
    include_str!("api_types/node.types"),
    include_str!("api_types/certificates.types"),
    include_str!("api_types/admissionregistration.types"),
    include_str!("api_types/authentication.types"),
    include_str!("api_types/authorization.types"),
    include_str!("api_types/apiextensions.types"),
    include_str!("api_types/apiregistration.types"),
    include_str!("api_types/apidiscovery.types"),
];
