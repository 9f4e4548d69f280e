//! The scheduler's decisions as an API: `explain.coracle.dev/v1`, resource `decisions`, named like the pods they are about.
//!
//! They are no objects of the store: thousands a second may be made, each is of interest for minutes, and none has to
//! survive a restart. But they are asked for like objects, so that the same authentication and authorisation stand before
//! them and `kubectl get decisions` works.

use std::sync::Arc;

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};
use machinery::Verb;
use machinery::gvk::GroupResource;
use machinery::status::ApiError;
use scheduler::record::{Record, Records};
use serde_json::{Value, json};

const GROUP: &str = "explain.coracle.dev";
const VERSION: &str = "v1";
const RESOURCE: &str = "decisions";

/// The API over `records`.
pub(crate) fn extension(records: Records) -> AggregatedApi {
    let resource = AggregatedResource {
        name: RESOURCE.to_owned(),
        singular: "decision".to_owned(),
        kind: "Decision".to_owned(),
        namespaced: true,
        verbs: vec![Verb::Get, Verb::List],
        ..AggregatedResource::default()
    };
    AggregatedApi {
        group: GROUP,
        version: VERSION,
        service: Arc::new(Decisions { records, resources: [resource].into() }),
    }
}

struct Decisions {
    records: Records,
    resources: Arc<[AggregatedResource]>,
}

#[async_trait]
impl AggregatedService for Decisions {
    fn resources(&self, _group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        Arc::clone(&self.resources)
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        let prefix = format!("/apis/{GROUP}/{VERSION}/");
        let path = request.uri().path().strip_prefix(&prefix).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let table = wants_table(&request);
        let answer = match parts.as_slice() {
            [RESOURCE] => Ok(list(&self.records.list(None), table)),
            ["namespaces", namespace, RESOURCE] => Ok(list(&self.records.list(Some(namespace)), table)),
            ["namespaces", namespace, RESOURCE, name] => match self.records.get(namespace, name) {
                Some(record) if table => Ok(self::table(&[record])),
                Some(record) => Ok(object(&record)),
                None => Err(ApiError::not_found(&GroupResource::from_static(GROUP, RESOURCE), name)),
            },
            _ => Err(ApiError::no_such_resource()),
        };
        let (code, body) = match answer {
            Ok(body) => (200, body),
            Err(error) => (error.code, error.to_status()),
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        response
    }
}

fn wants_table(request: &Request<Bytes>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=Table"))
}

fn metadata(record: &Record) -> Value {
    json!({
        "name": record.name, "namespace": record.namespace, "uid": record.uid, "creationTimestamp": record.at,
    })
}

fn object(record: &Record) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Decision",
        "metadata": metadata(record), "decision": record,
    })
}

fn list(records: &[Record], as_table: bool) -> Value {
    if as_table {
        return table(records);
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DecisionList", "metadata": {},
        "items": records.iter().map(object).collect::<Vec<_>>(),
    })
}

fn table(records: &[Record]) -> Value {
    let column = |name: &str, type_: &str| json!({ "name": name, "type": type_, "format": if name == "Name" { "name" } else { "" }, "description": name, "priority": 0 });
    let row = |record: &Record| {
        json!({
            "cells": [record.name, record.node, record.feasible, record.nodes, record.took_micros, record.message],
            "object": { "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata(record) },
        })
    };
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": {},
        "columnDefinitions": [
            column("Name", "string"), column("Node", "string"), column("Feasible", "integer"),
            column("Nodes", "integer"), column("Micros", "integer"), column("Message", "string"),
        ],
        "rows": records.iter().map(row).collect::<Vec<_>>(),
    })
}
