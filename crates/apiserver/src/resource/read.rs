//! Get and list.

use std::collections::VecDeque;

use bytes::Bytes;
use http::StatusCode;
use machinery::GroupKind;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::status::{ApiError, Reason};
use registry::{ListPage, ListRequest, Selection, Subresource, VersionMatch};
use serde_json::json;

use super::{Call, table};
use crate::body::ResponseBody;
use crate::negotiate::{self, Encoding, Metadata, Output, Shape};
use crate::past::AsOf;
use crate::protobuf;
use crate::respond::{self, Answer};

pub(super) async fn get(call: &Call<'_>) -> Result<Answer, ApiError> {
    let output = of_an_object(call)?;
    let entry = match call.parts.extensions.get() {
        Some(AsOf(revision)) => call.registry.get_at(&call.target, *revision).await?,
        None => call.registry.get(&call.target, call.query.text("resourceVersion")).await?,
    };
    match output.shape {
        Shape::Object | Shape::Discovery(_) => {
            let body = call.registry.body(call.resource(), &entry)?;
            respond::json(StatusCode::OK, output.encoding, call.pretty(), body)
        }
        _ => shaped(call, StatusCode::OK, output, &entry.value),
    }
}

/// The form of the answer of one object, which is no list of metadata.
fn of_an_object(call: &Call<'_>) -> Result<Output, ApiError> {
    let output = negotiate::output(&call.parts.headers, call.objects())?;
    if output.shape == Shape::Metadata(Metadata::List) {
        let kind = go_type(call, &call.resource().info().kind);
        return Err(unlike(format!("PartialObjectMetadataList, but the requested object is not a list ({kind})")));
    }
    Ok(output)
}

/// 406: the form that was chosen is not one of what was asked for. No further one is tried, as upstream does
/// (`asPartialObjectMetadata` and its sibling in apiserver `pkg/endpoints/handlers/response.go`).
fn unlike(requested: String) -> ApiError {
    ApiError::new(406, Reason::NotAcceptable, format!("you requested {requested}"))
}

/// What upstream's errors call a kind: by the package of its internal type.
fn go_type(call: &Call<'_>, kind: &str) -> String {
    let info = call.resource().info();
    if info.custom {
        return format!("*unstructured.Unstructured{}", if kind == &*info.kind { "" } else { "List" });
    }
    let package = match info.group.split('.').next() {
        None | Some("" | "events") => "core",
        Some(package) => package,
    };
    format!("*{package}.{kind}")
}

pub(super) async fn subresource(call: &Call<'_>, subresource: Subresource) -> Result<Answer, ApiError> {
    let output = of_an_object(call)?;
    let version = call.query.text("resourceVersion");
    let body = match (output.shape, subresource) {
        (Shape::Table, Subresource::Scale) => {
            table::scale(&call.registry.get_subresource(&call.target, subresource, version).await?)?
        }
        (Shape::Table | Shape::Metadata(_), _) => {
            let entry = call.registry.get(&call.target, version).await?;
            return shaped(call, StatusCode::OK, output, &entry.value);
        }
        _ => call.registry.get_subresource(&call.target, subresource, version).await?,
    };
    respond::json(StatusCode::OK, output.encoding, call.pretty(), body)
}

/// One object as it was asked for, from the bytes in the store.
pub(super) fn shaped(call: &Call<'_>, status: StatusCode, output: Output, stored: &[u8]) -> Result<Answer, ApiError> {
    let body = match output.shape {
        Shape::Table => {
            let metadata = json!({ "resourceVersion": table::resource_version(stored) });
            let include = table::Include::of(call.query)?;
            let mut table = table::Writer::new(call.registry, call.resource(), include);
            table.begin(&metadata, true)?;
            table.row(stored)?;
            table.end()
        }
        _ => call.registry.partial_metadata(stored),
    };
    respond::json(status, output.encoding, call.pretty(), body)
}

pub(super) async fn list(call: &Call<'_>, encoded_lists: &protobuf::Portions) -> Result<Answer, ApiError> {
    let output = negotiate::output(&call.parts.headers, call.objects())?;
    let include = table::Include::of(call.query)?;
    if output.shape == Shape::Metadata(Metadata::Object) {
        let list = go_type(call, &call.resource().info().list_kind);
        return Err(unlike(format!("PartialObjectMetadata, but the requested object is a list ({list})")));
    }
    let page = call.registry.list(&call.target, &list_request(call)?).await?;
    if output.encoding == Encoding::Protobuf {
        let body = protobuf_list(call, output.shape, &page, encoded_lists).await?;
        return Ok(respond::with_type(StatusCode::OK, protobuf::MEDIA_TYPE, body));
    }
    let pieces = match output.shape {
        Shape::Object | Shape::Discovery(_) => call.registry.list_pieces(call.resource(), &page)?,
        Shape::Metadata(_) => metadata(call, &page),
        Shape::Table => {
            let mut table = table::Writer::new(call.registry, call.resource(), include);
            table.begin(&page.metadata(), true)?;
            // What has to be converted is, all at once; an object of another version is a row as well.
            if call.resource().info().custom && call.resource().converts() {
                for body in call.registry.bodies(call.resource(), &page)? {
                    table.row(&body)?;
                }
            } else {
                for entry in &page.entries {
                    table.row(&entry.value)?;
                }
            }
            VecDeque::from([table.end()])
        }
    };
    if output.encoding == Encoding::Json && !call.pretty() {
        let kind = output.encoding.content_type();
        return Ok(respond::with_type(StatusCode::OK, kind, ResponseBody::pieces(pieces)));
    }
    let whole: Vec<u8> = pieces.iter().flatten().copied().collect();
    respond::json(StatusCode::OK, output.encoding, call.pretty(), whole.into())
}

/// Reads the query of a list.
pub(super) fn list_request(call: &Call<'_>) -> Result<ListRequest, ApiError> {
    let query = call.query;
    if query.optional_flag("sendInitialEvents").is_some() {
        let path = Path::new("sendInitialEvents");
        let error = FieldError::forbidden(&path, "sendInitialEvents is forbidden for list");
        let kind = GroupKind::from_static("meta.k8s.io", "ListOptions");
        return Err(ApiError::invalid(&kind, "", &ErrorList(vec![error])));
    }
    // A list ends by itself, and yet the parameter has to be a number.
    query.integer("timeoutSeconds")?;
    let continue_token = query.text("continue").to_owned();
    let (resource_version, version_match) = match call.parts.extensions.get() {
        // Of a further page the token says it.
        Some(AsOf(revision)) if continue_token.is_empty() => (revision.to_string(), Some(VersionMatch::Exact)),
        Some(AsOf(_)) => (String::new(), None),
        None => {
            let version_match = VersionMatch::parse(query.text("resourceVersionMatch"))?;
            (query.text("resourceVersion").to_owned(), version_match)
        }
    };
    Ok(ListRequest {
        selection: Selection::parse(query.text("labelSelector"), query.text("fieldSelector"))?,
        // Upstream takes a negative limit as none.
        limit: query.integer("limit")?.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0),
        continue_token,
        resource_version,
        version_match,
    })
}

fn metadata(call: &Call<'_>, page: &ListPage) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::with_capacity(page.entries.len() * 2 + 2);
    let (kind, metadata) = ("PartialObjectMetadataList", page.metadata());
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"meta.k8s.io/v1","metadata":{metadata},"items":["#);
    pieces.push_back(Bytes::from(head));
    for (index, entry) in page.entries.iter().enumerate() {
        if index > 0 {
            pieces.push_back(Bytes::from_static(b","));
        }
        pieces.push_back(call.registry.partial_metadata(&entry.value));
    }
    pieces.push_back(Bytes::from_static(b"]}"));
    pieces
}

/// A list in protobuf, encoded from its objects' own bytes.
async fn protobuf_list(
    call: &Call<'_>,
    shape: Shape,
    page: &ListPage,
    kept: &protobuf::Portions,
) -> Result<ResponseBody, ApiError> {
    let info = call.resource().info();
    let (list, item, bodies) = match shape {
        Shape::Metadata(_) => {
            let stored = page.entries.iter().map(|entry| entry.value.clone()).collect();
            (("meta.k8s.io/v1", "PartialObjectMetadataList"), ("meta.k8s.io/v1", "PartialObjectMetadata"), stored)
        }
        _ => {
            let bodies = call.registry.bodies(call.resource(), page)?;
            ((&*info.api_version, &*info.list_kind), (&*info.api_version, &*info.kind), bodies)
        }
    };
    let kind = |(api_version, kind)| protobuf::Kind::new(api_version, kind).map_err(ApiError::internal);
    let (list, item) = (kind(list)?, kind(item)?.api_type);
    let metadata = page.metadata().to_string();
    let objects = page.entries.iter().zip(bodies);
    let objects = objects.map(|(entry, json)| kept.item((&entry.key, entry.revision), json)).collect();
    let list = protobuf::List::new(list, item, metadata.as_bytes(), objects, kept).await.map_err(ApiError::internal)?;
    Ok(ResponseBody::sized_stream(list.length(), list.into_stream()))
}
