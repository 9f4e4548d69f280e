//! ValidatingAdmissionWebhook: runs the validating webhooks, all at once
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/validating/dispatcher.go`).

use async_trait::async_trait;
use futures::future::join_all;
use machinery::status::ApiError;

use super::webhook::{call, concerns, validating};
use super::{AdmissionPlugin, Attributes, scope};
use crate::object::Object;

/// The admission plugin of that name.
pub struct ValidatingAdmissionWebhook;

#[async_trait]
impl AdmissionPlugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !validating(attributes.registry).is_ok_and(|hooks| hooks.is_empty()) && !scope::is_exempt(attributes)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let hooks = validating(attributes.registry)?;
        let (mut concerned, mut facts) = (Vec::new(), None);
        for hook in hooks.iter() {
            if concerns(hook, attributes, object, &mut facts)? {
                concerned.push(hook);
            }
        }
        let calls = concerned.into_iter().map(|hook| async move {
            let mut warnings = Vec::new();
            (call(hook, attributes, object, &mut warnings).await, warnings)
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
}
