//! MutatingAdmissionWebhook: runs the mutating webhooks, one after the other
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`).

use std::sync::Arc;

use async_trait::async_trait;
use machinery::patch;
use machinery::status::ApiError;
use serde_json::Value;

use super::webhook::{Hook, call, concerns, mutating};
use super::{AdmissionPlugin, Attributes, Reinvocation, scope};
use crate::object::Object;

/// The admission plugin of that name.
pub struct MutatingAdmissionWebhook;

#[async_trait]
impl AdmissionPlugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !mutating(attributes.registry).is_ok_and(|hooks| hooks.is_empty()) && !scope::is_exempt(attributes)
    }

    fn reinvokes(&self) -> bool {
        true
    }

    async fn admit_again(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Box<dyn Object>>,
        warnings: &mut Vec<String>,
        reinvocation: &mut Reinvocation,
    ) -> Result<bool, ApiError> {
        let round = &mut reinvocation.webhooks;
        let hooks = match &round.configured {
            Some(hooks) => Arc::clone(hooks),
            None => Arc::clone(round.configured.insert(mutating(attributes.registry)?)),
        };
        round.begin(attributes, borrowed(&object))?;
        let (mut changed, mut facts) = (false, None);
        for (index, hook) in hooks.iter().enumerate() {
            if round.asks(&index) && concerns(hook, attributes, borrowed(&object), &mut facts)? {
                let changes = call_mutating(hook, attributes, object.as_deref_mut(), warnings).await?;
                round.note(index, changes, hook.reinvoke);
                if changes {
                    (changed, facts) = (true, None);
                }
            }
        }
        round.end(attributes, borrowed(&object))?;
        Ok(changed)
    }
}

fn borrowed<'o>(object: &'o Option<&mut Box<dyn Object>>) -> Option<&'o dyn Object> {
    object.as_deref().map(|object| &**object)
}

/// Asks one webhook, and returns whether it changed the object. Without an object, as in a DELETE, it may only refuse.
async fn call_mutating(
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: Option<&mut Box<dyn Object>>,
    warnings: &mut Vec<String>,
) -> Result<bool, ApiError> {
    let Some(answer) = call(hook, attributes, borrowed(&object), warnings).await? else {
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
    *object = attributes.codec.decode(patched.to_string().as_bytes(), object.as_ref())?;
    Ok(true)
}
