//! Names, hosts and numbers, with what a value may look like.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

macro_rules! label {
    () => {
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    };
}

macro_rules! dns {
    () => {
        concat!(label!(), r"(\.", label!(), ")*")
    };
}

const LABEL: &str = concat!("^", label!(), "$");
const DNS: &str = concat!("^", dns!(), "$");
const DNS_OR_NOTHING: &str = concat!("^$|^", dns!(), "$");
const KIND: &str = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
const HEADER: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
const DOMAIN_AND_PATH: &str = concat!("^", dns!(), r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$");
const ADDRESS_TYPE: &str = concat!("^Hostname|IPAddress|NamedAddress|", dns!(), r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$");
const PROTOCOL: &str = concat!("^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|", dns!(), r"\/[A-Za-z0-9]+$");
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
const ORIGIN: &str = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)";
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// What a condition is about.
pub(super) const CONDITION_TYPE: &str = concat!("^(", dns!(), "/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$");
/// A host, whose first label may be `*`.
pub(super) const HOST: &str = concat!(r"^(\*\.)?", dns!(), "$");
/// The key of a label or annotation.
pub(super) const QUALIFIED_NAME: &str = concat!("^(", dns!(), "/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$");

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident { $($key:tt = $value:tt),* })*) => {
        $(
            $(#[$doc])*
            #[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
            #[serde(transparent)]
            #[schemars(extend($($key = $value),*))]
            pub struct $name(pub String);
        )*
    };
}

texts! {
    /// The name of an object.
    ObjectName { "minLength" = 1, "maxLength" = 253 }
    /// The name of a namespace.
    Namespace { "minLength" = 1, "maxLength" = 63, "pattern" = LABEL }
    /// An API group; that of Services and Secrets is empty.
    Group { "maxLength" = 253, "pattern" = DNS_OR_NOTHING }
    /// A kind of objects.
    Kind { "minLength" = 1, "maxLength" = 63, "pattern" = KIND }
    /// The name of a part of an object.
    SectionName { "minLength" = 1, "maxLength" = 253, "pattern" = DNS }
    /// A host, or all hosts below a domain: `*.example.com`.
    Hostname { "minLength" = 1, "maxLength" = 253, "pattern" = HOST }
    /// One host.
    PreciseHostname { "minLength" = 1, "maxLength" = 253, "pattern" = DNS }
    /// The name of a controller: a domain and a path.
    ControllerName { "minLength" = 1, "maxLength" = 253, "pattern" = DOMAIN_AND_PATH }
    /// A protocol: HTTP, HTTPS, TLS, TCP, UDP, or one of an implementation's own with its domain.
    Protocol { "minLength" = 1, "maxLength" = 255, "pattern" = PROTOCOL }
    /// What kind of address it is: IPAddress, Hostname, NamedAddress, or one of an implementation's own with its domain.
    AddressType { "minLength" = 1, "maxLength" = 253, "pattern" = ADDRESS_TYPE }
    /// The name of a header or of a parameter of a query.
    HeaderName { "minLength" = 1, "maxLength" = 256, "pattern" = HEADER }
    /// The value of a header.
    HeaderValue { "minLength" = 1, "maxLength" = 4096 }
    /// The value of an annotation or an option.
    AnnotationValue { "minLength" = 0, "maxLength" = 4096 }
    /// The value of a label.
    LabelValue { "minLength" = 0, "maxLength" = 63, "pattern" = LABEL_VALUE }
    /// A scheme and a host, or `*`.
    Origin { "minLength" = 1, "maxLength" = 253, "pattern" = ORIGIN }
    /// A time, as in `1m30s`.
    Duration { "pattern" = DURATION }
}

/// A port.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq)]
#[serde(transparent)]
#[schemars(extend("minimum" = 1, "maximum" = 65535))]
pub struct Port(pub i32);

/// For `#[schemars(with = "...")]`: the status of a redirection.
#[derive(Debug)]
pub struct RedirectCode;

impl JsonSchema for RedirectCode {
    fn schema_name() -> Cow<'static, str> {
        "RedirectCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "enum": [301, 302, 303, 307, 308] })
    }
}
