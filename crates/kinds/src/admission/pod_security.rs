//! PodSecurity: pods keep to the Pod Security Standard that the labels of their namespace ask for (KEP-2579;
//! `plugin/pkg/admission/security/podsecurity`, `staging/src/k8s.io/pod-security-admission`).
//!
//! | mode | what happens to what violates the standard |
//! |---|---|
//! | `enforce` | a pod is refused |
//! | `warn` | the client is warned of a pod, and of a workload by its template |
//! | `audit` | the event in the audit log is annotated, of a pod, and of a workload by its template |
//!
//! Without labels everything is allowed, unless the `configuration` says otherwise. `policy` reads the labels, `checks` has the standards, `namespaces` what is said to
//! whoever changes the labels.

mod checks;
mod configuration;
mod namespaces;
mod policy;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Container, Pod, PodTemplate, PodTemplateSpec, ReplicationController};
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, Operation, PODS, no_object, object_of};
use registry::audit::{annotate, is_audited};
use registry::kind::Subresource;
use registry::object::{Object, cast};

use self::checks::{PodView, details, evaluate};
pub use self::configuration::PodSecurityConfiguration;
use self::policy::{Level, Policy};
use crate::common::{entry, list, text};
use crate::namespace::NAME_LABEL;

/// The resource part of the store's keys of namespaces.
const NAMESPACES: &str = "core/namespaces";
/// The resources whose objects have a template of pods (`admission.go`, `defaultPodSpecResources`).
const WORKLOADS: [&str; 8] = [
    "core/replicationcontrollers",
    "core/podtemplates",
    "apps/replicasets",
    "apps/deployments",
    "apps/statefulsets",
    "apps/daemonsets",
    "batch/jobs",
    "batch/cronjobs",
];

/// Annotations of audit events (`api/constants.go`).
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const ENFORCE_POLICY: &str = "pod-security.kubernetes.io/enforce-policy";
const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

/// The plugin.
pub(super) struct PodSecurity {
    configuration: PodSecurityConfiguration,
}

/// The plugin that nobody has configured.
pub(super) static DEFAULT: PodSecurity = PodSecurity::new(PodSecurityConfiguration::DEFAULT);

impl PodSecurity {
    pub(super) const fn new(configuration: PodSecurityConfiguration) -> Self {
        Self { configuration }
    }
}

#[async_trait]
impl AdmissionPlugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let storage = &*attributes.info.storage;
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        writes
            && match attributes.subresource {
                None => storage == PODS || storage == NAMESPACES || WORKLOADS.contains(&storage),
                // The others do not change what a pod may do.
                Some(Subresource::EphemeralContainers) => storage == PODS,
                Some(_) => false,
            }
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let storage = &*attributes.info.storage;
        if storage == NAMESPACES {
            return namespaces::validate(&self.configuration, attributes, object_of(object)?, warnings).await;
        }
        let PodSecurityConfiguration { defaults, exemptions } = &self.configuration;
        if let Some(dimension) = exemptions.covering(&attributes.user.name, attributes.namespace) {
            annotate(EXEMPT, || dimension.to_owned());
            return Ok(());
        }
        let Policy { enforce, audit, warn } = policy_of(*defaults, attributes)?;
        let is_pod = storage == PODS;
        if is_pod {
            annotate(ENFORCE_POLICY, || enforce.to_string());
        }
        let audits = audit.level > Level::Privileged && is_audited();
        if warn.level == Level::Privileged && !audits && (!is_pod || enforce.level == Level::Privileged) {
            return Ok(());
        }
        let object = object.ok_or_else(no_object)?;
        let Some(pod) = view(attributes, object)? else { return Ok(()) };
        if audits {
            let violations = evaluate(audit, &pod);
            if !violations.is_empty() {
                annotate(AUDIT_VIOLATIONS, || {
                    format!("would violate PodSecurity \"{audit}\": {}", details(&violations))
                });
            }
        }
        if is_pod {
            let violations = evaluate(enforce, &pod);
            if !violations.is_empty() {
                let why = format!("violates PodSecurity \"{enforce}\": {}", details(&violations));
                return Err(attributes.forbidden(object, why));
            }
        }
        // What has just passed need not be looked at again.
        let violations = if is_pod && warn == enforce { Vec::new() } else { evaluate(warn, &pod) };
        if !violations.is_empty() {
            warnings.push(format!("would violate PodSecurity \"{warn}\": {}", details(&violations)));
        }
        Ok(())
    }
}

/// The policy of the namespace of a request. Labels that are wrong have been refused, unless they are older than this.
fn policy_of(defaults: Policy, attributes: &Attributes<'_>) -> Result<Policy, ApiError> {
    let namespaces = attributes.registry.store().snapshot(NAMESPACES);
    let Some(namespace) = namespaces.get("", attributes.namespace) else {
        return Err(ApiError::internal(format!("failed to lookup namespace {:?}", attributes.namespace)));
    };
    // Every namespace has the label of its name. Where it is missing, none could be read.
    if namespace.attributes.label(NAME_LABEL).is_none() {
        return Err(ApiError::internal(format!("cannot read the labels of namespace {:?}", attributes.namespace)));
    }
    Ok(Policy::from_labels(defaults, |key| namespace.attributes.label(key)).0)
}

/// The pod, or template of pods, that a request writes; none where nothing changes that the standards are about.
fn view<'o>(attributes: &Attributes<'_>, object: &'o dyn Object) -> Result<Option<PodView<'o>>, ApiError> {
    let template: Option<&PodTemplateSpec> = match &*attributes.info.storage {
        PODS => {
            let pod: &Pod = cast(object)?;
            let old = attributes.old.map(cast::<Pod>).transpose()?;
            return Ok(match &pod.spec {
                Some(spec) if old.is_none_or(|old| is_significant_update(pod, old)) => {
                    Some(PodView { annotations: &pod.metadata.annotations, spec })
                }
                _ => None,
            });
        }
        "core/podtemplates" => cast::<PodTemplate>(object)?.template.as_ref(),
        "core/replicationcontrollers" => {
            cast::<ReplicationController>(object)?.spec.as_ref().and_then(|spec| spec.template.as_ref())
        }
        "apps/replicasets" => cast::<ReplicaSet>(object)?.spec.as_ref().and_then(|spec| spec.template.as_ref()),
        "apps/deployments" => cast::<Deployment>(object)?.spec.as_ref().map(|spec| &spec.template),
        "apps/statefulsets" => cast::<StatefulSet>(object)?.spec.as_ref().map(|spec| &spec.template),
        "apps/daemonsets" => cast::<DaemonSet>(object)?.spec.as_ref().map(|spec| &spec.template),
        "batch/jobs" => cast::<Job>(object)?.spec.as_ref().map(|spec| &spec.template),
        "batch/cronjobs" => {
            let job = cast::<CronJob>(object)?.spec.job_template.spec.as_ref();
            job.map(|job| &job.template)
        }
        _ => None,
    };
    Ok(template.and_then(PodView::of_template))
}

/// Whether an update of a pod changes something that the standards are about: images, annotations of seccomp, ephemeral
/// containers (`admission.go`, `isSignificantPodUpdate`). A pod that is older than its namespace's labels can be labelled,
/// and let go of, all the same.
fn is_significant_update(new: &Pod, old: &Pod) -> bool {
    let annotation_changes = |key: &str| entry(&new.metadata.annotations, key) != entry(&old.metadata.annotations, key);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return true };
    let changes = |name: &str, image: &Option<String>, old_image: &Option<String>| {
        text(image) != text(old_image) || annotation_changes(&format!("{}{name}", checks::SECCOMP_CONTAINER))
    };
    let list_changes = |new: &[Container], old: &[Container]| {
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| changes(&new.name, &new.image, &old.image))
    };
    annotation_changes(checks::SECCOMP_POD)
        || list_changes(&new.containers, &old.containers)
        || list_changes(list(&new.init_containers), list(&old.init_containers))
        || list(&new.ephemeral_containers).iter().any(|container| {
            let old = list(&old.ephemeral_containers).iter().find(|old| old.name == container.name);
            old.is_none_or(|old| changes(&container.name, &container.image, &old.image))
        })
}
