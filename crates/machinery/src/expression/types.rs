//! The types that expressions are checked against.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, FixedOffset, NaiveDate};

use super::names::escape;
use crate::api_types::{ApiType, Cardinality, Type as ApiFieldType};
use crate::schema::format::Format;
use crate::schema::{self, Schema};

/// What an expression evaluates to, as far as it is known before.
#[derive(Debug, Clone)]
pub(super) enum Type<'a> {
    /// Not said yet, as the items of `[]`.
    Free,
    /// Only known when it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    Kind,
    List(Arc<Self>),
    Map(Arc<Self>, Arc<Self>),
    Optional(Arc<Self>),
    /// An object under a schema; whether it is a whole object of the API.
    Object(&'a Schema, bool),
    /// An object of one of upstream's types; whether it is a whole object of the API.
    Api(&'static ApiType, bool),
    /// An object with these fields.
    Fields(Arc<BTreeMap<String, Self>>),
    /// An object that the expression makes, of the type of that name.
    Message(Arc<str>),
    /// A type of one of the libraries.
    Library(&'static str),
    /// A type that a signature leaves open.
    Open(char),
}

impl Type<'_> {
    pub(super) fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    pub(super) fn optional(value: Self) -> Self {
        Self::Optional(Arc::new(value))
    }

    pub(super) fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// Whether nothing is known that could be wrong.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Free | Self::Dyn)
    }

    /// Whether its fields are known by name.
    pub(super) fn has_fields(&self) -> bool {
        matches!(self, Self::Object(..) | Self::Api(..) | Self::Fields(_))
    }
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Free | Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Kind => f.write_str("type"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Object(..) | Self::Fields(_) => f.write_str("object"),
            Self::Api(api_type, _) => f.write_str(api_type.name),
            Self::Message(name) => f.write_str(name),
            Self::Library(name) => f.write_str(name),
            Self::Open(name) => write!(f, "{name}"),
        }
    }
}

/// What a rule sees of values under a schema; nothing where the schema does not say what they are.
pub(super) fn of_schema(schema: &Schema, resource: bool) -> Option<Type<'_>> {
    if schema.is_int_or_string() {
        return Some(Type::Dyn);
    }
    Some(match schema.kind()? {
        schema::Type::Array => {
            let items = schema.items()?;
            Type::list(of_schema(items, items.is_embedded_resource())?)
        }
        schema::Type::Object => match schema.values() {
            Some(values) => Type::map(Type::String, of_schema(values, values.is_embedded_resource())?),
            None => Type::Object(schema, resource),
        },
        schema::Type::Boolean => Type::Bool,
        schema::Type::Integer => Type::Int,
        schema::Type::Number => Type::Double,
        schema::Type::String => match schema.format() {
            Some(Format::Byte) => Type::Bytes,
            Some(Format::Duration) => Type::Duration,
            Some(Format::Date | Format::DateTime) => Type::Timestamp,
            _ => Type::String,
        },
    })
}

/// What expressions of admission see of a custom resource, whose metadata is all there.
pub(super) fn of_custom(schema: &Schema) -> Type<'_> {
    let declared = schema.declared_fields().filter_map(|(name, property)| {
        let kind = of_schema(property, property.is_embedded_resource())?;
        Some([Some((name.to_owned(), kind.clone())), escape(name).map(|escaped| (escaped.into_owned(), kind))])
    });
    let mut fields: BTreeMap<String, Type<'_>> = declared.flatten().flatten().collect();
    for name in ["apiVersion", "kind"] {
        fields.insert(name.to_owned(), Type::String);
    }
    let metadata = ApiType::by_openapi_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    fields.insert("metadata".to_owned(), metadata.map_or(Type::Dyn, |metadata| Type::Api(metadata, false)));
    Type::Fields(Arc::new(fields))
}

/// A field of one of upstream's types; `whole` when it is of a whole object of the API. Upstream's schemas leave open what
/// quantities and embedded objects are.
pub(super) fn of_member(api_type: &'static ApiType, whole: bool, name: &str) -> Option<Type<'static>> {
    if whole && matches!(name, "apiVersion" | "kind") {
        return Some(Type::String);
    }
    let field = api_type.member(name)?;
    let kind = match field.kind {
        ApiFieldType::String => Type::String,
        ApiFieldType::Bool => Type::Bool,
        ApiFieldType::Int => Type::Int,
        ApiFieldType::Double => Type::Double,
        ApiFieldType::Bytes => Type::Bytes,
        ApiFieldType::Time { .. } => Type::Timestamp,
        ApiFieldType::Strings => Type::list(Type::String),
        ApiFieldType::Quantity | ApiFieldType::IntOrString | ApiFieldType::Raw => Type::Dyn,
        ApiFieldType::Message(id) if id.get().is_either => Type::Dyn,
        ApiFieldType::Message(id) => Type::Api(id.get(), false),
    };
    Some(match field.cardinality {
        Cardinality::Once => kind,
        Cardinality::List => Type::list(kind),
        Cardinality::Map => Type::map(Type::String, kind),
    })
}

/// What rules see of the metadata of an object.
pub(super) fn metadata() -> &'static Schema {
    static METADATA: LazyLock<Schema> = LazyLock::new(|| Schema::of_texts(&["name", "generateName"]));
    &METADATA
}

/// A time of format `date-time` or `date`.
pub(super) fn timestamp(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(text).ok().or_else(|| {
        let day = text.parse::<NaiveDate>().ok()?;
        Some(day.and_hms_opt(0, 0, 0)?.and_utc().fixed_offset())
    })
}

/// A duration as Go writes them: `1h30m`, `-1.5s`, `100ms`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::zero());
    }
    let mut nanoseconds = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(rest.len());
        nanoseconds += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast saturates")]
    let nanoseconds = nanoseconds.round() as i64;
    Some(Duration::nanoseconds(if negative { -nanoseconds } else { nanoseconds }))
}

/// The bytes that a text stands for; none where it is no base64.
pub(super) fn base64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expect) in [
            ("1h30m", Some(5400.0)),
            ("-1.5s", Some(-1.5)),
            ("100ms", Some(0.1)),
            ("0", Some(0.0)),
            ("", None),
            ("5", None),
            ("1d", None),
        ] {
            let found = duration(text).map(Duration::as_seconds_f64);
            assert_eq!(found, expect, "{text}");
        }
    }
}
