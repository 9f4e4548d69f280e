//! Webhooks: programs of the user's that change or refuse what is written, called over HTTPS.
//!
//! Which are called is decided here ([`super::scope`]), and what their answers mean ([`review`]); how they are reached is the
//! affair of the [`WebhookClient`] the registry is made with. Without configurations nothing of this costs
//! anything. Nobody is asked about the configurations themselves, so that a broken webhook can be removed, nor about
//! what the server writes to get started.

mod configured;
pub(crate) mod review;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use machinery::expression::admission;
use machinery::status::ApiError;
use serde_json::Value;

use super::Attributes;
use super::conditions::Facts;
use super::scope::Match;
use crate::Registry;
use crate::object::Object;
pub use configured::as_mutating;
pub(crate) use configured::{ClientConfig, Configured, ServiceTarget};
pub(super) use configured::{Hook, mutating, validating};

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

/// Whether there are any webhooks, as far as can be told.
pub(crate) fn any(registry: &Registry) -> bool {
    let none = |hooks: Result<Arc<Vec<Hook>>, ApiError>| hooks.is_ok_and(|hooks| hooks.is_empty());
    !none(configured::mutating(registry)) || !none(configured::validating(registry))
}

/// Whether a webhook is to be asked. Conditions that cannot be evaluated are a failure of the webhook. The facts for them are
/// kept for the next one, which is to forget them once the object has changed.
pub(super) fn concerns(
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    facts: &mut Option<Facts>,
) -> Result<bool, ApiError> {
    if !hook.scope.holds(attributes, object) {
        return Ok(false);
    }
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let facts = match facts {
        Some(facts) => facts,
        none => none.insert(Facts::new(attributes, object, &Match::AsAsked)?),
    };
    match hook.conditions.hold(facts.values(&admission::namespace(None), None)) {
        Ok(hold) => Ok(hold),
        Err(_) if hook.ignore_failure => Ok(false),
        Err(why) => {
            let name = attributes.object_name(object.or(attributes.old));
            Err(ApiError::forbidden(&attributes.info.group_resource, name, why))
        }
    }
}

/// Asks one webhook. `None` when it fails and that is to be ignored.
pub(super) async fn call(
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<Option<review::Answer>, ApiError> {
    // Upstream: one that has effects beyond its answer must not be asked what-if questions.
    if attributes.dry_run && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(ApiError::bad_request(why));
    }
    let request = review::Request::new(attributes, object)?;
    match attempt(attributes.registry, hook, &request).await {
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
    let answer = post(registry, &hook.client_config, request.body.clone()).await;
    let answer = answer.map_err(|why| format!("failed to call webhook: {why}"))?;
    review::Answer::read(&hook.name, &request.uid, &answer)
}

/// Posts a review to a webhook. The error says, as Go would, why there is no answer.
pub(crate) async fn post(registry: &Registry, client_config: &ClientConfig, body: Bytes) -> Result<Value, String> {
    let (url, address) = client_config.find(registry)?;
    let (timeout, ca_bundle) = (client_config.timeout, client_config.ca_bundle.clone());
    let call = WebhookCall { url: url.clone(), address, ca_bundle, body, timeout };
    let answer = match tokio::time::timeout(timeout, registry.0.webhook_client.call(call)).await {
        Ok(answer) => answer,
        Err(_) => Err("context deadline exceeded".to_owned()),
    };
    let body = answer.map_err(|why| format!("Post \"{url}?timeout={}s\": {why}", timeout.as_secs()))?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
