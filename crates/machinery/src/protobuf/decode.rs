//! Bodies as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{self, Fields, Malformed, Payload};
use super::{MAGIC, type_of};
use crate::api_types::{ApiType, Cardinality, Presence, Type, TypeId};
use crate::depth::{MAX_DEPTH, TooDeep};

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not protobuf, or not the envelope.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is more than an object may be: nested too deeply, or of too many parts.
    #[error("cannot read the protobuf body: {0}")]
    Bound(String),
    /// It is of another kind than the one that is written there.
    #[error("{kind} in version {version:?} cannot be handled as a {wanted}")]
    OtherKind {
        /// `apps/v1`.
        version: String,
        /// `Deployment`.
        kind: String,
        /// `DeleteOptions`.
        wanted: String,
    },
    /// It is of a kind that has no protobuf form here: custom resources never have one.
    #[error("{kind} of version {version} is not known as protobuf")]
    UnknownKind {
        /// `apps/v1`.
        version: String,
        /// `Deployment`.
        kind: String,
    },
}

/// The most messages in one body. An empty one takes two bytes, and some hundred as JSON in memory.
pub(super) const MAX_MESSAGES: usize = 250_000;

/// The JSON of a protobuf body, which must be an object of the kind `wanted`. What it holds is looked at only then: a route
/// decodes no types but its own.
///
/// # Errors
/// When it is no body, of another kind or one without a protobuf form, or beyond the bounds of an object.
pub fn to_json(body: &[u8], wanted: &str) -> Result<Vec<u8>, DecodeError> {
    decode(body, Some(wanted))
}

/// As [`to_json`], of whatever kind it is: for the audit log, which shows what there was.
///
/// # Errors
/// As [`to_json`].
pub fn any_to_json(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    decode(body, None)
}

fn decode(body: &[u8], wanted: Option<&str>) -> Result<Vec<u8>, DecodeError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(Malformed("the body does not begin with k8s\\0"))?;
    let (mut version, mut kind, mut object) = (String::new(), String::new(), &b""[..]);
    for field in Fields::of(envelope) {
        match field? {
            (1, Payload::Bytes(meta)) => {
                for field in Fields::of(meta) {
                    match field? {
                        (1, Payload::Bytes(text)) => version = wire::text(text)?.to_owned(),
                        (2, Payload::Bytes(text)) => kind = wire::text(text)?.to_owned(),
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(raw)) => object = raw,
            (3, Payload::Bytes([_, ..])) => return Err(Malformed("the object is encoded in another way").into()),
            _ => {}
        }
    }
    if let Some(wanted) = wanted
        && !kind.is_empty()
        && kind != wanted
    {
        return Err(DecodeError::OtherKind { version, kind, wanted: wanted.to_owned() });
    }
    let Some(api_type) = type_of(&version, &kind) else {
        return Err(DecodeError::UnknownKind { version, kind });
    };
    let mut json = Map::new();
    json.insert("apiVersion".to_owned(), version.into());
    json.insert("kind".to_owned(), kind.into());
    Decoder::default().message(object, api_type, &mut json)?;
    // A JSON value always encodes.
    Ok(serde_json::to_vec(&json).unwrap_or_default())
}

/// Where in a body the decoder is, and how much it has decoded.
#[derive(Default)]
pub(super) struct Decoder {
    /// How many messages are around the one at hand.
    depth: usize,
    messages: usize,
}

impl Decoder {
    /// Adds the fields of a message to an object.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        api_type: &ApiType,
        json: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        for field in Fields::of(bytes) {
            let (number, payload) = field?;
            // What a newer client knows and we do not is dropped, as upstream does.
            let Some(field) = api_type.field(number) else { continue };
            let name = field.name;
            match (field.cardinality, &payload) {
                (Cardinality::Once, Payload::Bytes(bytes)) if name.is_empty() => {
                    // An embedded struct: its fields are those of the object around it.
                    if let Some(embedded) = field.message() {
                        self.message(bytes, embedded, json)?;
                    }
                }
                (Cardinality::Once, _) => {
                    let value = self.value(payload, field.kind)?;
                    if field.presence != Presence::OmitZero || !is_zero(&value) {
                        json.insert(name.to_owned(), value);
                    }
                }
                (Cardinality::List, _) => {
                    let list = json.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                    if let Value::Array(list) = list {
                        self.push(list, payload, field.kind)?;
                    }
                }
                (Cardinality::Map, Payload::Bytes(entry)) => {
                    let (key, value) = self.entry_of(entry, field.kind)?;
                    let map = json.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    if let Value::Object(map) = map {
                        map.insert(key, value);
                    }
                }
                (Cardinality::Map, _) => return Err(Malformed("a field has the wrong wire type").into()),
            }
        }
        Ok(())
    }

    /// Adds an element to a list, or several numbers that are packed together.
    fn push(&mut self, list: &mut Vec<Value>, payload: Payload<'_>, kind: Type) -> Result<(), DecodeError> {
        match (payload, kind) {
            (Payload::Bytes(packed), Type::Int | Type::Bool) => {
                for number in wire::packed(packed) {
                    list.push(self.value(Payload::Varint(number?), kind)?);
                }
            }
            (payload, kind) => list.push(self.value(payload, kind)?),
        }
        Ok(())
    }

    fn entry_of(&mut self, entry: &[u8], kind: Type) -> Result<(String, Value), DecodeError> {
        let (mut key, mut content) = (String::new(), None);
        for field in Fields::of(entry) {
            match field? {
                (1, Payload::Bytes(text)) => key = wire::text(text)?.to_owned(),
                (2, payload) => content = Some(self.value(payload, kind)?),
                _ => {}
            }
        }
        let content = content.map_or_else(|| self.value(Payload::Bytes(b""), kind), Ok)?;
        Ok((key, content))
    }

    fn value(&mut self, payload: Payload<'_>, kind: Type) -> Result<Value, DecodeError> {
        Ok(match (kind, payload) {
            // Negative numbers are written as 64 bits in two's complement, also by 32-bit fields.
            (Type::Int, Payload::Varint(number)) => number.cast_signed().into(),
            (Type::Double, Payload::Double(number)) => number.into(),
            (Type::Bool, Payload::Varint(number)) => (number != 0).into(),
            (Type::String, Payload::Bytes(bytes)) => wire::text(bytes)?.into(),
            (Type::Bytes, Payload::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Type::Time { micro }, Payload::Bytes(bytes)) => time(bytes, micro)?,
            (Type::Quantity, Payload::Bytes(bytes)) => only(bytes)?.map_or(Ok("0"), wire::text)?.into(),
            (Type::IntOrString, Payload::Bytes(bytes)) => int_or_string(bytes)?,
            (Type::Strings, Payload::Bytes(bytes)) => {
                let mut list = Vec::new();
                for field in Fields::of(bytes) {
                    if let (1, payload) = field? {
                        list.push(self.value(payload, Type::String)?);
                    }
                }
                list.into()
            }
            (Type::Raw, Payload::Bytes(bytes)) => match only(bytes)? {
                Some(json) => serde_json::from_slice(json).map_err(|_| Malformed("embedded JSON is none"))?,
                None => Value::Null,
            },
            (Type::Message(id), Payload::Bytes(bytes)) => self.object(bytes, id)?,
            _ => return Err(Malformed("a field has the wrong wire type").into()),
        })
    }

    /// A message within the one at hand.
    fn object(&mut self, bytes: &[u8], id: TypeId) -> Result<Value, DecodeError> {
        let mut object = Map::new();
        let api_type = id.get();
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(DecodeError::Bound(format!("it has more than {MAX_MESSAGES} messages")));
        }
        // What is a schema or something else has no braces of its own in JSON.
        let level = usize::from(!api_type.is_either);
        self.depth += level;
        if self.depth >= MAX_DEPTH {
            return Err(DecodeError::Bound(TooDeep.to_string()));
        }
        self.message(bytes, api_type, &mut object)?;
        self.depth -= level;
        Ok(if api_type.is_either { either(object, api_type) } else { object.into() })
    }
}

/// A schema or something else: the schema where there is one. What says neither is `false`, which is left out by `message`,
/// where the something else is a condition, and otherwise nothing (apiextensions `pkg/apis/apiextensions/v1/marshal.go`).
fn either(mut object: Map<String, Value>, api_type: &ApiType) -> Value {
    let other = |object: Map<String, Value>| object.into_iter().next().map(|(_, value)| value);
    let neither = || match api_type.members().iter().any(|member| member.field.kind == Type::Bool) {
        true => false.into(),
        false => Value::Null,
    };
    object.remove("schema").or_else(|| other(object)).unwrap_or_else(neither)
}

/// What Go's JSON leaves out of a field that is marked so.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        // An empty struct is written as `{}`, and means nothing other than no struct.
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// The one field of a message that wraps a string or bytes.
fn only(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut found = None;
    for field in Fields::of(bytes) {
        if let (1, Payload::Bytes(bytes)) = field? {
            found = Some(bytes);
        }
    }
    Ok(found)
}

/// The first second of the first year that RFC 3339 has, since 1970.
const YEAR_ZERO: i64 = -62_167_219_200;

/// Seconds and nanoseconds since 1970; an empty message is no time.
fn time(bytes: &[u8], micro: bool) -> Result<Value, Malformed> {
    const RANGE: Malformed = Malformed("a time is out of range");
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0_i64, 0_i64);
    for field in Fields::of(bytes) {
        match field? {
            (1, Payload::Varint(number)) => seconds = number.cast_signed(),
            (2, Payload::Varint(number)) => nanoseconds = number.cast_signed(),
            _ => {}
        }
    }
    if seconds < YEAR_ZERO {
        return Err(RANGE);
    }
    if !micro {
        return Ok(Timestamp::from_second(seconds).map_err(|_| RANGE)?.to_string().into());
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| RANGE)?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| RANGE)?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut is_string, mut number, mut string) = (false, 0_i64, "");
    for field in Fields::of(bytes) {
        match field? {
            (1, Payload::Varint(kind)) => is_string = kind == 1,
            (2, Payload::Varint(value)) => number = value.cast_signed(),
            (3, Payload::Bytes(text)) => string = wire::text(text)?,
            _ => {}
        }
    }
    Ok(if is_string { string.into() } else { number.into() })
}
