//! The Table representation: what `kubectl get` prints.

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use machinery::field::{FieldError, Path};
use machinery::status::ApiError;
use registry::kind::{Column, cell_age, cell_name};
use registry::{Registry, Resource};
use serde_json::{Value, json};

use crate::query::Query;

/// What comes along with each row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    /// Nothing.
    None,
    /// The object's metadata.
    Metadata,
    /// The object.
    Object,
}

impl Include {
    /// Reads `includeObject`.
    ///
    /// # Errors
    /// 400 for an unknown word.
    pub(super) fn of(query: &Query<'_>) -> Result<Self, ApiError> {
        match query.text("includeObject") {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => {
                let choices = "must be 'Metadata', 'Object', 'None', or empty";
                let error = FieldError::invalid(&Path::new("includeObject"), other, choices);
                Err(ApiError::bad_request(format!("Unable to convert to Table as requested: {error}")))
            }
        }
    }
}

/// Writes a Table piece by piece.
pub(super) struct Writer<'a> {
    registry: &'a Registry,
    resource: &'a Resource,
    include: Include,
    now: Timestamp,
    rows: usize,
    out: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(registry: &'a Registry, resource: &'a Resource, include: Include) -> Self {
        Self { registry, resource, include, now: Timestamp::now(), rows: 0, out: Vec::with_capacity(4096) }
    }

    /// Everything before the rows. In a watch only the first Table has columns.
    pub(super) fn begin(&mut self, metadata: &Value, columns: bool) -> Result<(), ApiError> {
        self.text(r#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#);
        self.json(metadata)?;
        self.text(r#","columnDefinitions":"#);
        let columns = columns.then(|| self.resource.columns());
        self.json(&columns)?;
        self.text(r#","rows":["#);
        Ok(())
    }

    /// The row of an object, from the bytes in the store.
    pub(super) fn row(&mut self, stored: &[u8]) -> Result<(), ApiError> {
        if self.rows > 0 {
            self.text(",");
        }
        self.rows += 1;
        let cells = self.registry.row(self.resource, stored, self.now)?;
        self.text(r#"{"cells":"#);
        self.json(&cells)?;
        match self.include {
            Include::None => self.text(r#","object":null"#),
            Include::Metadata => {
                self.text(r#","object":"#);
                self.out.extend_from_slice(&self.registry.partial_metadata(stored));
            }
            Include::Object => {
                self.text(r#","object":"#);
                let served = self.resource.served(&Bytes::copy_from_slice(stored)).map_err(ApiError::internal)?;
                self.out.extend_from_slice(&served);
            }
        }
        self.text("}");
        Ok(())
    }

    /// The finished Table.
    pub(super) fn end(mut self) -> Bytes {
        self.text("]}");
        self.out.into()
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn json(&mut self, value: &impl serde::Serialize) -> Result<(), ApiError> {
        serde_json::to_writer(&mut self.out, value).map_err(ApiError::internal)
    }
}

/// A Scale as a Table of its own.
pub(super) fn scale(body: &[u8]) -> Result<Bytes, ApiError> {
    let scale: Scale = serde_json::from_slice(body).map_err(ApiError::internal)?;
    let columns = [
        Column::name(),
        Column::integer("Desired", "Number of desired pods."),
        Column::integer("Available", "Number of pods there are."),
        Column::age(),
    ];
    let cells = [
        cell_name(&scale.metadata),
        scale.spec.and_then(|spec| spec.replicas).unwrap_or_default().into(),
        scale.status.map(|status| status.replicas).unwrap_or_default().into(),
        cell_age(&scale.metadata, Timestamp::now()),
    ];
    let object = json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": scale.metadata });
    let table = json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": { "resourceVersion": scale.metadata.resource_version },
        "columnDefinitions": columns,
        "rows": [{ "cells": cells, "object": object }],
    });
    Ok(table.to_string().into())
}

/// The resourceVersion within the bytes of an object.
pub(super) fn resource_version(stored: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        resource_version: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Option<Version>,
    }
    let head = serde_json::from_slice::<Head>(stored).ok();
    head.and_then(|head| head.metadata?.resource_version).unwrap_or_default()
}
