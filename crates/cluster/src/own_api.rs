//! What the APIs of coracle's own that are served by this process have in common: paths, answers and tables.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use machinery::status::ApiError;
use serde_json::{Value, json};

/// The parts of a request's path behind that of its group and version.
pub(crate) fn path<'a>(request: &'a Request<Bytes>, group: &str, version: &str) -> Vec<&'a str> {
    let path = request.uri().path().strip_prefix(&format!("/apis/{group}/{version}/")).unwrap_or_default();
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The response with such an answer: 201 to what creates something.
pub(crate) fn response(method: &Method, answer: Result<Value, ApiError>) -> Response<Bytes> {
    let (code, body) = match answer {
        Ok(body) if method == Method::POST => (201, body),
        Ok(body) => (200, body),
        Err(error) => (error.code, error.to_status()),
    };
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Whether kubectl asks for a table.
pub(crate) fn wants_table(request: &Request<Bytes>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=Table"))
}

/// A table of columns, each a name and a type, and of rows: the cells of each, and the metadata of its object.
pub(crate) fn table(columns: &[(&str, &str)], rows: impl IntoIterator<Item = (Value, Value)>) -> Value {
    let column = |(name, type_): &(&str, &str)| json!({ "name": name, "type": type_, "format": if *name == "Name" { "name" } else { "" }, "description": name, "priority": 0 });
    let row = |(cells, metadata): (Value, Value)| {
        json!({
            "cells": cells,
            "object": { "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata },
        })
    };
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": {},
        "columnDefinitions": columns.iter().map(column).collect::<Vec<_>>(),
        "rows": rows.into_iter().map(row).collect::<Vec<_>>(),
    })
}
