//! DefaultTolerationSeconds: a pod stays for a while on a node that is not ready or not reachable
//! (`plugin/pkg/admission/defaulttolerationseconds/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use machinery::status::ApiError;
use machinery::well_known::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use registry::admission::{AdmissionPlugin, Attributes, PODS, object_of_mut};
use registry::object::Object;

use crate::common::{list, text};

/// How long a pod stays there.
const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = [TAINT_NOT_READY, TAINT_UNREACHABLE];

/// The plugin.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl AdmissionPlugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(PODS) || attributes.updates(PODS)
    }

    async fn admit(
        &self,
        _attributes: &Attributes<'_>,
        object: Option<&mut Box<dyn Object>>,
        _warnings: &mut Vec<String>,
    ) -> Result<bool, ApiError> {
        let pod: &mut Pod = object_of_mut(object)?;
        Ok(tolerate(pod.spec.get_or_insert_default()))
    }
}

/// Adds the tolerations that the pod does not have. Answers whether there were any.
fn tolerate(spec: &mut PodSpec) -> bool {
    let before = list(&spec.tolerations).len();
    for taint in TAINTS {
        let tolerates = |toleration: &Toleration| {
            [taint, ""].contains(&text(&toleration.key)) && ["NoExecute", ""].contains(&text(&toleration.effect))
        };
        if !list(&spec.tolerations).iter().any(tolerates) {
            spec.tolerations.get_or_insert_default().push(Toleration {
                key: Some(taint.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(SECONDS),
                value: None,
            });
        }
    }
    list(&spec.tolerations).len() > before
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn tolerations_for_a_node_in_trouble() {
        let own = json!({
            "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5,
        });
        let mut spec: PodSpec = from_value(json!({ "containers": [], "tolerations": [own] })).expect("spec");
        assert!(tolerate(&mut spec));
        assert!(!tolerate(&mut spec));
        let given = json!({
            "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
        });
        assert_eq!(serde_json::to_value(&spec.tolerations).expect("JSON"), json!([own, given]));
    }
}
