//! Create, update, patch and delete: bodies and options in, the outcome out.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use machinery::field::{FieldError, Path};
use machinery::status::ApiError;
use machinery::yaml;
use registry::request::invalid_options;
use registry::write::check_manager;
use registry::{DeleteRequest, FieldValidation, PatchType, Subresource, WriteOptions, Written};
use serde::de::IgnoredAny;
use tokio::sync::Semaphore;

use super::{Call, read, table};
use crate::body::{LIMIT, RequestBody};
use crate::negotiate::{self, Input, Output, Shape};
use crate::protobuf::{self, DecodeError};
use crate::respond::{self, Answer};
use crate::tokens::{self, Tokens};

/// YAML of this size, in bytes, is read within some milliseconds.
const SMALL_YAML: usize = 16 * 1024;

pub(super) async fn create(call: &Call<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    let (output, options) = prepare(call, "CreateOptions")?;
    let body = object(&call.parts.headers, body, &call.resource().info().kind).await?;
    let written = call.registry.create(&call.target, &body, &options).await?;
    answer(call, None, output, &written)
}

pub(super) async fn update(
    call: &Call<'_>,
    subresource: Option<Subresource>,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let (output, options) = prepare(call, "UpdateOptions")?;
    let kind = if subresource == Some(Subresource::Scale) { "Scale" } else { &call.resource().info().kind };
    let body = object(&call.parts.headers, body, kind).await?;
    let written = call.registry.update(&call.target, subresource, &body, &options).await?;
    answer(call, subresource, output, &written)
}

pub(super) async fn patch(
    call: &Call<'_>,
    subresource: Option<Subresource>,
    body: RequestBody,
) -> Result<Answer, ApiError> {
    let kind = PatchType::from_media_type(negotiate::media_type(&call.parts.headers))?;
    let (output, mut options) = prepare(call, "PatchOptions")?;
    let force = call.query.optional_flag("force");
    let mut body = body.read().await?;
    if kind == PatchType::Apply {
        // Who applies has to say who they are.
        options.field_manager = call.query.text("fieldManager").to_owned();
        options.force = force == Some(true);
        let json = apart(&body).await?;
        body = json.map_err(|why| ApiError::bad_request(format!("error decoding YAML: {why}")))?;
    } else if force.is_some() {
        let error = FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch");
        return Err(invalid_options("PatchOptions", error));
    }
    let written = call.registry.patch(&call.target, subresource, kind, &body, &options).await?;
    answer(call, subresource, output, &written)
}

pub(super) async fn bind(call: &Call<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    let (output, options) = prepare(call, "CreateOptions")?;
    let body = object(&call.parts.headers, body, "Binding").await?;
    let written = call.registry.bind(&call.target, &body, &options).await?;
    made(call, output, written.body, &written.warnings)
}

/// A token for a service account.
pub(super) async fn token(call: &Call<'_>, tokens: &Tokens, body: RequestBody) -> Result<Answer, ApiError> {
    let (output, options) = prepare(call, "CreateOptions")?;
    let body = object(&call.parts.headers, body, "TokenRequest").await?;
    let mut warnings = Vec::new();
    let answer = tokens::request::create(tokens, &call.target, &body, &options, &mut warnings).await?;
    made(call, output, answer.into(), &warnings)
}

/// A delete that asks the pod's budget first.
pub(super) async fn evict(call: &Call<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    let (output, options) = prepare(call, "CreateOptions")?;
    let body = object(&call.parts.headers, body, "Eviction").await?;
    let written = call.registry.evict(&call.target, &body, &options).await?;
    made(call, output, written.body, &written.warnings)
}

pub(super) async fn delete(call: &Call<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    let output = negotiate::output(&call.parts.headers, call.outcome())?;
    let request = delete_request(call, body).await?;
    let deleted = call.registry.delete(&call.target, &request).await?;
    let status = if deleted.accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = respond::json(status, output.encoding, call.pretty(), deleted.body)?;
    respond::warn(&mut response, &deleted.warnings);
    Ok(response)
}

pub(super) async fn delete_collection(call: &Call<'_>, body: RequestBody) -> Result<Answer, ApiError> {
    let output = negotiate::output(&call.parts.headers, call.outcome())?;
    let request = delete_request(call, body).await?;
    let listed = read::list_request(call)?;
    let body = call.registry.delete_collection(&call.target, &listed, &request).await?;
    respond::json(StatusCode::OK, output.encoding, call.pretty(), body)
}

/// What every write has to say before its body is read.
fn prepare(call: &Call<'_>, kind: &'static str) -> Result<(Output, WriteOptions), ApiError> {
    let output = negotiate::output(&call.parts.headers, call.objects())?;
    let options = WriteOptions {
        dry_run: call.query.dry_run(kind)?,
        field_validation: FieldValidation::parse(call.query.text("fieldValidation"), kind)?,
        field_manager: call.field_manager(),
        force: false,
        user: Arc::clone(&call.user),
    };
    check_manager(call.query.text("fieldManager"), kind)?;
    Ok((output, options))
}

/// The answer to the creation of something that is not stored.
fn made(call: &Call<'_>, output: Output, body: Bytes, warnings: &[String]) -> Result<Answer, ApiError> {
    let mut response = respond::json(StatusCode::CREATED, output.encoding, call.pretty(), body)?;
    respond::warn(&mut response, warnings);
    Ok(response)
}

fn answer(
    call: &Call<'_>,
    subresource: Option<Subresource>,
    output: Output,
    written: &Written,
) -> Result<Answer, ApiError> {
    let status = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = match (output.shape, subresource) {
        (Shape::Object | Shape::Discovery(_), _) => {
            respond::json(status, output.encoding, call.pretty(), written.body.clone())
        }
        // What was written is a Scale, which has columns of its own.
        (Shape::Table, Some(Subresource::Scale)) => {
            respond::json(status, output.encoding, call.pretty(), table::scale(&written.body)?)
        }
        _ => read::shaped(call, status, output, &written.stored),
    }?;
    respond::warn(&mut response, &written.warnings);
    Ok(response)
}

/// The body of a write as JSON. Of protobuf, whose kinds share their decoder, only the kind that is written is read.
///
/// # Errors
/// 415 for a format that is not read, 400 for YAML or protobuf that is none or of another kind, 413 for too much.
pub(super) async fn object(headers: &HeaderMap, body: RequestBody, kind: &str) -> Result<Bytes, ApiError> {
    let input = negotiate::input(headers)?;
    let body = body.read().await?;
    match input {
        Input::Json => Ok(body),
        Input::Yaml => {
            let json = apart(&body).await?;
            json.map_err(|why| ApiError::bad_request(format!("error converting YAML to JSON: {why}")))
        }
        // The options of a DELETE are often none at all.
        Input::Protobuf if body.is_empty() => Ok(body),
        Input::Protobuf => match protobuf::to_json(&body, kind) {
            Ok(json) => Ok(json.into()),
            Err(DecodeError::UnknownKind { .. }) => Err(ApiError::unsupported_media_type(&negotiate::OFFERED)),
            Err(error) => Err(ApiError::bad_request(error.to_string())),
        },
    }
}

/// As [`json`], where it holds up nobody: a large text takes a second to read, so one of them at a time is read on a thread of its
/// own. Small ones do not wait for these, but for each other.
async fn apart(body: &Bytes) -> Result<Result<Bytes, String>, ApiError> {
    static SMALL: Semaphore = Semaphore::const_new(1);
    static LARGE: Semaphore = Semaphore::const_new(1);
    // Applied configurations are called YAML and are JSON, mostly.
    if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return Ok(Ok(body.clone()));
    }
    let turns = if body.len() <= SMALL_YAML { &SMALL } else { &LARGE };
    // Nobody closes the semaphores, which would be the only error.
    let _turn = turns.acquire().await;
    let body = body.clone();
    tokio::task::spawn_blocking(move || json(&body)).await.map_err(ApiError::internal)
}

/// YAML, or JSON, as JSON. The error says where it is none.
pub(crate) fn json(yaml: &[u8]) -> Result<Bytes, String> {
    yaml::to_json(yaml, LIMIT).map(Bytes::from)
}

/// The options of a DELETE: those of the body, or, when there is none, those of the query.
async fn delete_request(call: &Call<'_>, body: RequestBody) -> Result<DeleteRequest, ApiError> {
    let body = object(&call.parts.headers, body, "DeleteOptions").await?;
    let mut request = if body.iter().all(u8::is_ascii_whitespace) {
        let query = call.query;
        let request = DeleteRequest {
            grace_period: query.integer("gracePeriodSeconds")?,
            propagation: query
                .get("propagationPolicy")
                .filter(|policy| !policy.is_empty())
                .map(DeleteRequest::parse_propagation)
                .transpose()?,
            orphan_dependents: query.optional_flag("orphanDependents"),
            dry_run: query.dry_run("DeleteOptions")?,
            ..DeleteRequest::default()
        };
        request.check()?;
        request
    } else {
        DeleteRequest::from_body(&body)?
    };
    request.user = Arc::clone(&call.user);
    request.field_manager = call.field_manager();
    Ok(request)
}
