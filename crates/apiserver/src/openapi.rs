//! OpenAPI documents, generated from the types of the kinds and `machinery`'s table of merge rules.
//!
//! kubectl reads them to validate a manifest, to explain a kind, and to find out whether the server validates fields itself
//! (the query parameter `fieldValidation` of an operation):
//!
//! | path | form | read by |
//! |---|---|---|
//! | `/openapi/v3` | index: a URL with a content hash for each group and version | kubectl ≥ 1.27 |
//! | `/openapi/v3/...` | OpenAPI 3.0, JSON | kubectl ≥ 1.27: `apply`, `create`, `edit`, `explain` |
//! | `/openapi/v2` | Swagger 2.0, JSON or protobuf (gnostic's `openapi.v2.Document`) | `apply` and `edit` (protobuf), older clients |
//!
//! A document is built when it is first asked for, and kept as bytes only.

mod operations;
mod protobuf;
mod schemas;

use registry::Resources;
use serde_json::{Map, Value, json};

use crate::aggregator::Snapshot;
use crate::catalog::{self, Served};

/// The two versions of OpenAPI, which differ in where things are and how references are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

impl Dialect {
    /// What references begin with.
    const fn definitions(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    /// A reference to a definition.
    fn reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.definitions()) })
    }
}

/// Media types of the protobuf form of v2 which clients ask for. The older one is no legal media type, so that what they
/// get is called by the newer one, which all of them can parse.
pub(crate) const PROTOBUF_V2: [&str; 2] =
    [PROTOBUF_V2_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];
/// The media type of the protobuf form of v2.
pub(crate) const PROTOBUF_V2_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The documents of this server in `/openapi/v3`: `api/v1`, `apis/apps/v1`.
pub(crate) fn v3_names(resources: &Resources, aggregated: &Snapshot) -> Vec<String> {
    let served = own(resources, aggregated);
    let of_group = |(group, versions): (&str, Vec<&str>)| {
        let prefix = if group.is_empty() { "api".to_owned() } else { format!("apis/{group}") };
        versions.into_iter().map(move |version| format!("{prefix}/{version}")).collect::<Vec<_>>()
    };
    catalog::groups(&served).into_iter().flat_map(of_group).collect()
}

/// What this server answers, and no other.
fn own<'a>(resources: &'a Resources, aggregated: &Snapshot) -> Vec<Served<'a>> {
    let mut served = catalog::all(resources);
    served.retain(|entry| aggregated.find(entry.group, entry.version).is_none());
    served
}

/// The index `/openapi/v3`, of documents with where they are, their hashes included.
pub(crate) fn v3_index(documents: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let paths: Map<String, Value> = documents.map(|(name, url)| (name, json!({ "serverRelativeURL": url }))).collect();
    encode(&json!({ "paths": paths }))
}

/// One document of `/openapi/v3`, by its name; `None` when there is none of that name.
pub(crate) fn v3(resources: &Resources, name: &str) -> Option<Vec<u8>> {
    let (group, version) = match name.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        _ => return None,
    };
    let mut served = catalog::all(resources);
    served.retain(|entry| entry.group == group && entry.version == version);
    if served.is_empty() {
        return None;
    }
    let schemas = schemas::definitions(&served, Dialect::V3);
    let paths = operations::paths(&served, Dialect::V3);
    Some(encode(&json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": { "schemas": schemas },
    })))
}

/// The whole of `/openapi/v2` as JSON.
pub(crate) fn v2(resources: &Resources, aggregated: &Snapshot) -> Vec<u8> {
    encode(&v2_value(resources, aggregated))
}

/// The whole of `/openapi/v2` as protobuf.
pub(crate) fn v2_protobuf(resources: &Resources, aggregated: &Snapshot) -> Vec<u8> {
    protobuf::document(&v2_value(resources, aggregated))
}

fn v2_value(resources: &Resources, aggregated: &Snapshot) -> Value {
    let served = own(resources, aggregated);
    let mut document = json!({
        "swagger": "2.0",
        "info": info(),
        "paths": operations::paths(&served, Dialect::V2),
        "definitions": schemas::definitions(&served, Dialect::V2),
    });
    for part in aggregated.remotes.iter().filter_map(|remote| remote.documents.openapi_v2.as_ref()) {
        part.add_to(&mut document);
    }
    document
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": crate::version::GIT_VERSION })
}

/// A JSON value always encodes.
fn encode(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
