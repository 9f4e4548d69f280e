//! MutatingAdmissionWebhook: runs the mutating webhooks, one after the other
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go`).

use async_trait::async_trait;
use machinery::patch;
use machinery::status::ApiError;
use serde_json::Value;

use super::webhook::{Hook, call, concerns, mutating};
use super::{AdmissionPlugin, Attributes, scope};
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

    async fn admit(
        &self,
        attributes: &Attributes<'_>,
        mut object: Option<&mut Box<dyn Object>>,
        warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let hooks = mutating(attributes.registry)?;
        let mut last_change = None;
        let mut called = vec![false; hooks.len()];
        for (index, hook) in hooks.iter().enumerate() {
            if concerns(hook, attributes, borrowed(&object))? {
                called[index] = true;
                if call_mutating(hook, attributes, object.as_deref_mut(), warnings).await? {
                    last_change = Some(index);
                }
            }
        }
        // A webhook whose `reinvocationPolicy` is `IfNeeded` is called again when a later one changed the object.
        if let Some(last) = last_change {
            for (index, hook) in hooks.iter().enumerate() {
                let again = hook.reinvoke && (index < last || (index != last && called[index]));
                if again && concerns(hook, attributes, borrowed(&object))? {
                    call_mutating(hook, attributes, object.as_deref_mut(), warnings).await?;
                }
            }
        }
        Ok(last_change.is_some())
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
