//! The protobuf form of a Swagger 2.0 document: gnostic's `openapi.v2.Document`, which is all that client-go asks for at
//! `/openapi/v2`. Only what our documents contain is written; numbers are the field numbers of `OpenAPIv2.proto`.

use serde_json::{Map, Value};

use crate::protobuf;

/// A message, built field by field.
#[derive(Default)]
struct Message(protobuf::Message);

impl Message {
    fn bytes(mut self, field: u32, bytes: &[u8]) -> Self {
        self.0.bytes(field, bytes);
        self
    }

    fn message(self, field: u32, message: &Message) -> Self {
        self.bytes(field, message.0.as_slice())
    }

    /// A string; not there and empty are the same.
    fn text(self, field: u32, value: Option<&Value>) -> Self {
        match value.and_then(Value::as_str) {
            Some(text) if !text.is_empty() => self.bytes(field, text.as_bytes()),
            _ => self,
        }
    }

    fn texts(self, field: u32, value: Option<&Value>) -> Self {
        let texts = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        texts.fold(self, |message, text| message.bytes(field, text.as_bytes()))
    }

    fn flag(mut self, field: u32, value: Option<&Value>) -> Self {
        if value.and_then(Value::as_bool) == Some(true) {
            self.0.varint(field, 1);
        }
        self
    }

    /// The members whose names begin with `x-`, in the order of their names.
    fn extensions(self, field: u32, object: &Value) -> Self {
        let members = object.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
        members.fold(self, |message, (name, value)| {
            // JSON is YAML.
            let any = Message::default().bytes(2, value.to_string().as_bytes());
            message.message(field, &named(name, &any))
        })
    }

    /// The members of an object as (name, value) pairs.
    fn members(self, field: u32, object: Option<&Value>, encode: fn(&Value) -> Message) -> Self {
        let members = object.and_then(Value::as_object).into_iter().flat_map(Map::iter);
        members.fold(self, |message, (name, value)| message.message(field, &named(name, &encode(value))))
    }
}

fn named(name: &str, value: &Message) -> Message {
    Message::default().bytes(1, name.as_bytes()).message(2, value)
}

/// The whole document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let info = Message::default().text(1, document["info"].get("title")).text(2, document["info"].get("version"));
    let paths = Message::default().members(2, document.get("paths"), path_item);
    let definitions = Message::default().members(1, document.get("definitions"), schema);
    Message::default()
        .text(1, document.get("swagger"))
        .message(2, &info)
        .message(8, &paths)
        .message(9, &definitions)
        .0
        .into_vec()
}

fn path_item(item: &Value) -> Message {
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];
    let message = methods.into_iter().fold(Message::default(), |message, (method, field)| match item.get(method) {
        Some(value) => message.message(field, &operation(value)),
        None => message,
    });
    parameters(message, 9, item)
}

fn operation(value: &Value) -> Message {
    let message = Message::default()
        .texts(1, value.get("tags"))
        .text(3, value.get("description"))
        .text(5, value.get("operationId"))
        .texts(6, value.get("produces"))
        .texts(7, value.get("consumes"));
    let responses = Message::default().members(1, value.get("responses"), response);
    parameters(message, 8, value).message(9, &responses).texts(10, value.get("schemes")).extensions(13, value)
}

fn response(value: &Value) -> Message {
    let message = Message::default().text(1, value.get("description"));
    let message = match value.get("schema") {
        Some(value) => message.message(2, &Message::default().message(1, &schema(value))),
        None => message,
    };
    Message::default().message(1, &message)
}

fn parameters(message: Message, field: u32, owner: &Value) -> Message {
    let parameters = owner.get("parameters").and_then(Value::as_array);
    parameters
        .into_iter()
        .flatten()
        .fold(message, |message, value| message.message(field, &Message::default().message(1, &parameter(value))))
}

fn parameter(value: &Value) -> Message {
    let base = |required: u32, place: u32, description: u32, name: u32| {
        Message::default()
            .flag(required, value.get("required"))
            .text(place, value.get("in"))
            .text(description, value.get("description"))
            .text(name, value.get("name"))
    };
    match value["in"].as_str() {
        Some("body") => {
            let message = Message::default()
                .text(1, value.get("description"))
                .text(2, value.get("name"))
                .text(3, value.get("in"))
                .flag(4, value.get("required"))
                .message(5, &schema(&value["schema"]));
            Message::default().message(1, &message)
        }
        Some("path") => {
            let message = base(1, 2, 3, 4).text(5, value.get("type")).flag(19, value.get("uniqueItems"));
            Message::default().message(2, &Message::default().message(4, &message))
        }
        _ => {
            let message = base(1, 2, 3, 4).text(6, value.get("type")).flag(20, value.get("uniqueItems"));
            Message::default().message(2, &Message::default().message(3, &message))
        }
    }
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default()
        .text(1, value.get("$ref"))
        .text(2, value.get("format"))
        .text(3, value.get("title"))
        .text(4, value.get("description"))
        .texts(19, value.get("required"));
    for choice in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message = message.message(20, &Message::default().bytes(2, choice.to_string().as_bytes()));
    }
    message = match value.get("additionalProperties") {
        None => message,
        Some(Value::Bool(_)) => message.message(21, &Message::default().flag(2, value.get("additionalProperties"))),
        Some(values) => message.message(21, &Message::default().message(1, &schema(values))),
    };
    if let Some(kind) = value.get("type") {
        let kinds = if kind.is_array() {
            Message::default().texts(1, Some(kind))
        } else {
            Message::default().text(1, Some(kind))
        };
        message = message.message(22, &kinds);
    }
    if let Some(items) = value.get("items") {
        message = message.message(23, &Message::default().message(1, &schema(items)));
    }
    for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        message = message.message(24, &schema(part));
    }
    if value.get("properties").is_some() {
        message = message.message(25, &Message::default().members(1, value.get("properties"), schema));
    }
    message.extensions(31, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_those_of_the_wire_format() {
        let value = json!({
            "type": "object",
            "description": "d",
            "required": ["a"],
            "properties": { "a": { "type": "string" } },
            "x-y": [1],
        });
        let expect = [
            &b"\x22\x01d"[..],                                                  // description
            b"\x9a\x01\x01a",                                                   // required
            b"\xb2\x01\x08\x0a\x06object",                                      // type { value }
            b"\xca\x01\x12\x0a\x10\x0a\x01a\x12\x0b\xb2\x01\x08\x0a\x06string", // properties { a: type { value } }
            b"\xfa\x01\x0c\x0a\x03x-y\x12\x05\x12\x03[1]",                      // extension { name, value { yaml } }
        ];
        assert_eq!(schema(&value).0.into_vec(), expect.concat());
    }

    #[test]
    fn long_lengths_take_more_bytes() {
        let text = "x".repeat(300);
        let message = schema(&json!({ "description": text })).0.into_vec();
        assert_eq!(message[..3], [0x22, 0xac, 0x02]);
        assert_eq!(message.len(), 303);
    }
}
