//! Objects as protobuf, straight from their JSON.
//!
//! One pass over the bytes: no tree is built, and what is written goes into one buffer. A message stands behind its length,
//! which is known only after it; so one byte is kept free for it, and what is longer than one byte can say is moved. The
//! fields come in the order of the JSON rather than of their numbers, and an embedded struct once for each of its fields,
//! which are merged by whoever reads them: both are what the format allows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;

use super::json::{Broken, Json};
use super::wire::Message;
use super::{MAGIC, type_of};
use crate::api_types::{ApiType, Cardinality, Field, Member, Type};

/// Why an object cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// What is encoded is no JSON, or no object of that type.
    #[error("cannot write an object as protobuf: {0}")]
    Broken(&'static str),
    /// Its kind has no protobuf form.
    #[error("{kind} of version {version} has no protobuf form")]
    UnknownKind {
        /// `example.com/v1`.
        version: String,
        /// `Widget`.
        kind: String,
    },
}

impl From<Broken> for EncodeError {
    fn from(Broken(what): Broken) -> Self {
        Self::Broken(what)
    }
}

/// What an object is encoded as.
#[derive(Debug, Clone, Copy)]
pub struct Kind<'a> {
    api_version: &'a str,
    kind: &'a str,
    /// What objects of it are made of.
    pub api_type: &'static ApiType,
}

impl<'a> Kind<'a> {
    /// A kind by its name.
    ///
    /// # Errors
    /// When the kind has no protobuf form.
    pub fn new(api_version: &'a str, kind: &'a str) -> Result<Self, EncodeError> {
        let api_type = type_of(api_version, kind)
            .ok_or_else(|| EncodeError::UnknownKind { version: api_version.to_owned(), kind: kind.to_owned() })?;
        Ok(Self { api_version, kind, api_type })
    }

    /// The kind that an object says it is of.
    fn of(object: &'a [u8]) -> Result<Self, EncodeError> {
        let mut json = Json::new(object);
        let (mut api_version, mut kind) = (None, None);
        json.enter(b'{')?;
        while (api_version.is_none() || kind.is_none()) && json.more(b'}')? {
            let name = json.key()?;
            let value = json.skip()?;
            match &*name {
                b"apiVersion" => api_version = unquoted(value),
                b"kind" => kind = unquoted(value),
                _ => {}
            }
        }
        Self::new(api_version.unwrap_or_default(), kind.unwrap_or_default())
    }

    /// The start of a body, up to the bytes of the object.
    fn begin(&self, out: &mut Message) {
        out.raw(MAGIC);
        out.nested(1, |out| {
            out.bytes(1, self.api_version.as_bytes());
            out.bytes(2, self.kind.as_bytes());
        });
    }
}

/// The body of a response, from an object's JSON.
///
/// # Errors
/// When the kind has no protobuf form, or the object is not of its kind.
pub fn encode(object: &[u8]) -> Result<Bytes, EncodeError> {
    let mut out = Message::with_capacity(object.len());
    body(&mut out, Kind::of(object)?, object)?;
    Ok(out.into_vec().into())
}

fn body(out: &mut Message, kind: Kind<'_>, object: &[u8]) -> Result<(), EncodeError> {
    kind.begin(out);
    let raw = out.open(2);
    Encoder { json: Json::new(object), out }.message(kind.api_type)?;
    out.close(raw);
    Ok(())
}

/// An event of a watch as a frame: its length in four bytes, the most significant first, and a `WatchEvent` that holds the
/// object as a body of its own (apimachinery `pkg/util/framer/framer.go`).
///
/// # Errors
/// When the kind has no protobuf form, or the object is not of its kind.
pub fn watch_event(event: &str, object: &[u8]) -> Result<Bytes, EncodeError> {
    let kind = Kind::of(object)?;
    let mut out = Message::with_capacity(object.len());
    out.raw(&[0; 4]);
    out.bytes(1, event.as_bytes());
    let extension = out.open(2);
    let raw = out.open(1);
    body(&mut out, kind, object)?;
    out.close(raw);
    out.close(extension);
    out.into_frame().ok_or(EncodeError::Broken("it is longer than a frame"))
}

/// Some items of a list, one behind the other; `item` is the type of each.
///
/// # Errors
/// When an object is not of its kind.
pub fn list_items<'a>(item: &ApiType, objects: impl Iterator<Item = &'a Bytes> + Clone) -> Result<Bytes, EncodeError> {
    // Names of fields and punctuation are half of most objects.
    let mut out = Message::with_capacity(objects.clone().map(Bytes::len).sum::<usize>() * 5 / 8);
    for object in objects {
        let start = out.open(2);
        Encoder { json: Json::new(object), out: &mut out }.message(item)?;
        out.close(start);
    }
    // Without what was reserved and not needed: it may be long until the client has read all of it.
    Ok(out.into_vec().into_boxed_slice().into())
}

/// What stands before the items of a list, which take `length` bytes; `metadata` is the JSON of the list's own.
///
/// # Errors
/// When the metadata is none.
pub fn list_head(list: Kind<'_>, metadata: &[u8], length: usize) -> Result<Bytes, EncodeError> {
    let mut own = Message::with_capacity(metadata.len());
    let member = list.api_type.members().iter().find(|member| member.field.name == "metadata");
    let member = member.ok_or(EncodeError::Broken("it is no list"))?;
    Encoder { json: Json::new(metadata), out: &mut own }.member(member)?;
    let mut head = Message::with_capacity(own.len() + 64);
    list.begin(&mut head);
    head.head(2, own.len() + length);
    head.raw(own.as_slice());
    Ok(head.into_vec().into())
}

/// A string without escapes.
fn unquoted(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()?.strip_prefix('"')?.strip_suffix('"')
}

struct Encoder<'j, 'o> {
    json: Json<'j>,
    out: &'o mut Message,
}

impl Encoder<'_, '_> {
    /// The fields of an object.
    fn message(&mut self, api_type: &ApiType) -> Result<(), EncodeError> {
        self.json.enter(b'{')?;
        let mut next = 0;
        while self.json.more(b'}')? {
            let name = self.json.key()?;
            match api_type.member_from(&name, &mut next) {
                Some(member) => self.member(member)?,
                // The kind stands in the envelope; of metadata, what is not asked for.
                None => _ = self.json.skip()?,
            }
        }
        Ok(())
    }

    /// A field of an object, within the structs in which it is embedded.
    fn member(&mut self, Member { embedded_in, field }: &Member) -> Result<(), EncodeError> {
        match &**embedded_in {
            [] => self.field(field),
            [outermost, inner @ ..] => {
                let start = self.out.open(*outermost);
                let inner: Vec<_> = inner.iter().map(|number| self.out.open(*number)).collect();
                self.field(field)?;
                inner.into_iter().rev().for_each(|start| self.out.close(start));
                self.out.close(start);
                Ok(())
            }
        }
    }

    fn field(&mut self, field: &Field) -> Result<(), EncodeError> {
        if self.is_null()? {
            return Ok(());
        }
        let number = field.number;
        match field.cardinality {
            Cardinality::Once => self.value(number, field.kind),
            Cardinality::List => {
                self.json.enter(b'[')?;
                while self.json.more(b']')? {
                    match self.is_null()? {
                        true => self.zero(number, field.kind),
                        false => self.value(number, field.kind)?,
                    }
                }
                Ok(())
            }
            Cardinality::Map => {
                self.json.enter(b'{')?;
                while self.json.more(b'}')? {
                    let entry = self.out.open(number);
                    let key = self.json.key()?;
                    self.out.bytes(1, &key);
                    if !self.is_null()? {
                        self.value(2, field.kind)?;
                    }
                    self.out.close(entry);
                }
                Ok(())
            }
        }
    }

    /// Whether the value is `null`, which is passed over then.
    fn is_null(&mut self) -> Result<bool, EncodeError> {
        let null = self.json.peek()? == b'n';
        if null {
            self.json.skip()?;
        }
        Ok(null)
    }

    /// An element of a list that says nothing, but counts.
    fn zero(&mut self, number: u32, kind: Type) {
        match kind {
            Type::Bool | Type::Int => self.out.varint(number, 0),
            Type::Double => self.out.double(number, 0.0),
            _ => self.out.bytes(number, b""),
        }
    }

    fn value(&mut self, number: u32, kind: Type) -> Result<(), EncodeError> {
        match kind {
            Type::String => self.out.bytes(number, &self.json.string()?),
            Type::Bool => self.out.varint(number, u64::from(self.json.scalar()? == "true")),
            Type::Int => self.out.varint(number, integer(self.json.scalar()?)?.cast_unsigned()),
            Type::Double => {
                let value = self.json.scalar()?.parse().map_err(|_| EncodeError::Broken("a number is none"))?;
                self.out.double(number, value);
            }
            Type::Bytes => {
                let bytes = STANDARD.decode(self.json.string()?);
                self.out.bytes(number, &bytes.map_err(|_| EncodeError::Broken("bytes are no base64"))?);
            }
            Type::Time { micro } => {
                let time = time(&self.json.string()?)?;
                let start = self.out.open(number);
                self.out.varint(1, time.as_second().cast_unsigned());
                // Of a time in seconds upstream drops the rest (apimachinery `pkg/apis/meta/v1/time_proto.go`).
                if micro {
                    self.out.varint(2, i64::from(time.subsec_nanosecond()).cast_unsigned());
                }
                self.out.close(start);
            }
            Type::Quantity => {
                let start = self.out.open(number);
                match self.json.peek()? {
                    b'"' => self.out.bytes(1, &self.json.string()?),
                    _ => self.out.bytes(1, self.json.scalar()?.as_bytes()),
                }
                self.out.close(start);
            }
            Type::IntOrString => {
                let start = self.out.open(number);
                if self.json.peek()? == b'"' {
                    self.out.varint(1, 1);
                    self.out.bytes(3, &self.json.string()?);
                } else {
                    self.out.varint(2, integer(self.json.scalar()?)?.cast_unsigned());
                }
                self.out.close(start);
            }
            Type::Strings => {
                let start = self.out.open(number);
                self.json.enter(b'[')?;
                while self.json.more(b']')? {
                    self.out.bytes(1, &self.json.string()?);
                }
                self.out.close(start);
            }
            Type::Raw => {
                let start = self.out.open(number);
                self.out.bytes(1, self.json.skip()?);
                self.out.close(start);
            }
            Type::Message(id) => {
                let (start, api_type) = (self.out.open(number), id.get());
                if api_type.is_either {
                    self.either(api_type)?;
                } else {
                    self.message(api_type)?;
                }
                self.out.close(start);
            }
        }
        Ok(())
    }

    /// What is a schema or something else: in JSON an object is the schema.
    fn either(&mut self, api_type: &ApiType) -> Result<(), EncodeError> {
        let is_schema = self.json.peek()? == b'{';
        for Member { field, .. } in api_type.members() {
            match (is_schema, field.name == "schema") {
                (true, true) | (false, false) => self.field(field)?,
                // Where there may be a schema, something is allowed (apiextensions `pkg/apis/apiextensions/v1/marshal.go`).
                (true, false) if field.kind == Type::Bool => self.out.varint(field.number, 1),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A whole number, which may be written with a fraction of zero.
fn integer(text: &str) -> Result<i64, EncodeError> {
    const NONE: EncodeError = EncodeError::Broken("a number is none");
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let number: f64 = text.parse().map_err(|_| NONE)?;
    #[expect(clippy::cast_possible_truncation, reason = "what is lost is not there or out of range")]
    Ok(number as i64)
}

fn time(text: &[u8]) -> Result<Timestamp, EncodeError> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    text.ok_or(EncodeError::Broken("a time is none"))
}
