//! Webhooks: programs of the user's that change or refuse what is written, called over HTTPS.
//!
//! Which are called is decided here ([`super::scope`]), and what their answers mean ([`review`]); how they are reached is the
//! affair of the [`WebhookClient`] the registry is made with. Without configurations nothing of this costs
//! anything. Nobody is asked about the configurations themselves, so that a broken webhook can be removed, nor about
//! what the server writes to get started.

mod configured;
pub(crate) mod review;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use machinery::expression::TOTAL_LIMIT;
use machinery::patch;
use machinery::status::ApiError;
use serde_json::Value;

use super::conditions::Facts;
use super::{Attributes, scope};
use crate::Registry;
use crate::ops::Object;
use configured::Hook;

pub(crate) use configured::{Configured, Place, Service};

/// A request to a webhook.
#[derive(Debug, Clone)]
pub struct WebhookCall {
    /// Where, with the name its certificate must have.
    pub url: String,
    /// Where that is, if it is not to be looked up: an endpoint of a service.
    pub address: Option<SocketAddr>,
    /// Who vouches for the certificate, in PEM; empty for those whom the machine trusts.
    pub ca_bundle: Vec<u8>,
    /// The AdmissionReview, in JSON.
    pub body: Bytes,
    /// How long it may take.
    pub timeout: Duration,
}

/// Calls webhooks.
pub trait WebhookClient: Send + Sync + 'static {
    /// Posts the body and answers with that of the response; or says, as Go would, why there is none.
    fn call(&self, call: WebhookCall) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Runs the mutating webhooks, one after the other, and returns whether one of them changed the object. Without an object,
/// as in a DELETE, they may only refuse.
pub(super) async fn mutate(
    registry: &Registry,
    attributes: &Attributes<'_>,
    mut object: Option<&mut Box<dyn Object>>,
    old: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<bool, ApiError> {
    let hooks = configured::mutating(registry);
    if hooks.is_empty() || scope::is_exempt(attributes) {
        return Ok(false);
    }
    let mut last_change = None;
    let mut called = vec![false; hooks.len()];
    for (index, hook) in hooks.iter().enumerate() {
        if concerns(registry, hook, attributes, borrowed(&object), old)? {
            called[index] = true;
            if call_mutating(registry, hook, attributes, object.as_deref_mut(), old, warnings).await? {
                last_change = Some(index);
            }
        }
    }
    // Who wants to see what others did afterwards is asked once more.
    if let Some(last) = last_change {
        for (index, hook) in hooks.iter().enumerate() {
            let again = hook.reinvoke && (index < last || (index != last && called[index]));
            if again && concerns(registry, hook, attributes, borrowed(&object), old)? {
                call_mutating(registry, hook, attributes, object.as_deref_mut(), old, warnings).await?;
            }
        }
    }
    Ok(last_change.is_some())
}

fn borrowed<'o>(object: &'o Option<&mut Box<dyn Object>>) -> Option<&'o dyn Object> {
    object.as_deref().map(|object| &**object)
}

async fn call_mutating(
    registry: &Registry,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&mut Box<dyn Object>>,
    old: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<bool, ApiError> {
    let Some(answer) = call(registry, hook, attributes, borrowed(&object), old, warnings).await? else {
        return Ok(false);
    };
    let is_change = |operations: &Value| operations.as_array().is_none_or(|operations| !operations.is_empty());
    let Some(operations) = answer.patch.filter(is_change) else { return Ok(false) };
    let Some(object) = object else {
        let name = &hook.name;
        return Err(ApiError::internal(format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        )));
    };
    let before = attributes.codec.encode(object.as_ref())?;
    let patched = patch::json_patch(&before, &operations).map_err(|error| ApiError::internal(error.to_string()))?;
    if patched == before {
        return Ok(false);
    }
    *object = attributes.codec.decode(patched.to_string().as_bytes())?;
    Ok(true)
}

/// Whether there are any webhooks.
pub(crate) fn any(registry: &Registry) -> bool {
    !configured::mutating(registry).is_empty() || !configured::validating(registry).is_empty()
}

/// Runs the validating webhooks, all at once.
pub(super) async fn validate(
    registry: &Registry,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let hooks = configured::validating(registry);
    if hooks.is_empty() || scope::is_exempt(attributes) {
        return Ok(());
    }
    let mut concerned = Vec::new();
    for hook in hooks.iter() {
        if concerns(registry, hook, attributes, object, old)? {
            concerned.push(hook);
        }
    }
    let calls = concerned.into_iter().map(|hook| async move {
        let mut warnings = Vec::new();
        (call(registry, hook, attributes, object, old, &mut warnings).await, warnings)
    });
    let mut refusal = None;
    for (answer, mut own) in join_all(calls).await {
        warnings.append(&mut own);
        if let Err(error) = answer {
            refusal.get_or_insert(error);
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Whether a webhook is to be asked. Conditions that cannot be evaluated are a failure of the webhook.
fn concerns(
    registry: &Registry,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
) -> Result<bool, ApiError> {
    if !hook.scope.holds(registry, attributes, object, old) {
        return Ok(false);
    }
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    match hook.conditions.hold(&Facts::new(attributes, object, old)?.variables(), &mut TOTAL_LIMIT.clone()) {
        Ok(hold) => Ok(hold),
        Err(_) if hook.ignore_failure => Ok(false),
        Err(why) => {
            let name = attributes.object_name(object.or(old));
            Err(ApiError::forbidden(&attributes.info.group_resource, name, why))
        }
    }
}

/// Asks one webhook. `None` when it fails and that is to be ignored.
async fn call(
    registry: &Registry,
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    old: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<Option<review::Answer>, ApiError> {
    // Upstream: one that has effects beyond its answer must not be asked what-if questions.
    if attributes.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(ApiError::bad_request(why));
    }
    let request = review::Request::new(attributes, object, old)?;
    match attempt(registry, hook, &request).await {
        Ok(answer) => {
            warnings.extend(answer.warnings.iter().cloned());
            match answer.refusal {
                Some(refusal) => Err(refusal),
                None => Ok(Some(answer)),
            }
        }
        Err(why) if hook.ignore_failure => {
            tracing::warn!(webhook = hook.name, %why, "a webhook failed, which its configuration ignores");
            Ok(None)
        }
        Err(why) => Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name))),
    }
}

async fn attempt(registry: &Registry, hook: &Hook, request: &review::Request) -> Result<review::Answer, String> {
    let answer = post(registry, &hook.place, request.body.clone()).await;
    let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
    review::Answer::read(&hook.name, &request.uid, &answer)
}

/// Posts a review to a webhook. The error says, as Go would, why there is no answer.
pub(crate) async fn post(registry: &Registry, place: &Place, body: Bytes) -> Result<Value, String> {
    let (url, address) = place.find(registry)?;
    let (timeout, ca_bundle) = (place.timeout, place.ca_bundle.clone());
    let call = WebhookCall { url: url.clone(), address, ca_bundle, body, timeout };
    let answer = match tokio::time::timeout(timeout, registry.0.webhook_client.call(call)).await {
        Ok(answer) => answer,
        Err(_) => Err("context deadline exceeded".to_owned()),
    };
    let body = answer.map_err(|why| format!("Post \"{url}?timeout={}s\": {why}", timeout.as_secs()))?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
