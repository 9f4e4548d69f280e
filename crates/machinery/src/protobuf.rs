//! The protobuf form of the built-in kinds, as Go clients write and read them by default.
//!
//! Everything else works on JSON: what comes in is decoded to it ([`to_json`]), and what goes out is encoded from it
//! ([`mod@encode`]), in one pass over the bytes that the store holds. What the fields are says [`crate::api_types`].
//!
//! A body is the four bytes `k8s\0` and an envelope (`runtime.Unknown`) which names version and kind and holds the object
//! (apimachinery `pkg/runtime/serializer/protobuf/protobuf.go`).

mod decode;
mod encode;
mod json;
mod wire;

#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;

use crate::api_types::ApiType;

pub use decode::{DecodeError, any_to_json, to_json};
pub use encode::{EncodeError, Kind, encode, list_head, list_items, watch_event};
pub use wire::{Malformed, Message};

/// What every body begins with.
pub const MAGIC: &[u8] = b"k8s\0";

/// The type of a kind.
fn type_of(api_version: &str, kind: &str) -> Option<&'static ApiType> {
    match kind {
        // Options come under the version of whatever they are about.
        "DeleteOptions" => ApiType::by_openapi_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
        // Upstream writes none for the core group (apiserver `pkg/endpoints/discovery/util.go`).
        "APIVersions" | "APIResourceList" if api_version.is_empty() => ApiType::of_kind("v1", kind),
        _ => ApiType::of_kind(api_version, kind),
    }
}
