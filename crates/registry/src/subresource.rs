//! What is below an object and is more than the object again: scale and binding; and where a pod runs, for the
//! streams that the API server passes on to its node.

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::{GroupKind, GroupResource};
use machinery::status::{ApiError, MODIFIED};
use serde_json::json;
use store::Entry;

use crate::Registry;
use crate::decode::Report;
use crate::kind::{Reservation, ScaleView, Subresource};
use crate::meta;
use crate::ops::Object;
use crate::request::{Target, WriteOptions, Written};
use crate::table::Resource;
use crate::write::{
    ATTEMPTS, Change, Draft, Patch, Revision, decode_other, owners_of_replicas, report_for, uid_mismatch,
};

/// OpenAPI definition of a Scale, for strategic patches.
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Where a container of a pod runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLocation {
    /// The pod's uid.
    pub uid: String,
    /// The node it is bound to, once it is.
    pub node: Option<String>,
    /// The container asked for, or the only (or default) one.
    pub container: String,
}

impl Registry {
    /// The `scale` of a workload.
    ///
    /// # Errors
    /// As [`Registry::get`]; 404 where there is no such subresource.
    pub async fn scale(&self, target: &Target) -> Result<Bytes, ApiError> {
        let entry = self.get(target, "").await?;
        self.scale_of(target, &entry)
    }

    pub(crate) fn scale_of(&self, target: &Target, entry: &Entry) -> Result<Bytes, ApiError> {
        let object = target.resource.load(&entry.value).map_err(ApiError::internal)?;
        encode(&scale(&target.resource, object.as_ref(), entry)?)
    }

    pub(crate) async fn update_scale(
        &self,
        target: &Target,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut report = report_for(options);
        let asked: Scale = decode_other(body, &mut report, options)?;
        self.set_scale(target, options, report.into_findings(), ATTEMPTS, |_, _| Ok((asked.clone(), None))).await
    }

    pub(crate) async fn patch_scale(
        &self,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.set_scale(target, options, Vec::new(), ATTEMPTS, |current, _| {
            let patched = patch.apply(&encode(current)?, SCALE)?;
            Ok((decode_other(&patched, &mut Report::ignore(), options)?, None))
        })
        .await
    }

    /// Server-side apply of a Scale: it owns the number of replicas of the workload.
    pub(crate) async fn apply_scale(
        &self,
        target: &Target,
        config: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let asked: Scale = decode_other(config, &mut Report::ignore(), options)?;
        self.set_scale(target, options, Vec::new(), ATTEMPTS, |_, entry| {
            let owners = owners_of_replicas(target, entry, replicas(&asked), options)?;
            Ok((asked.clone(), Some(owners)))
        })
        .await
    }

    async fn set_scale(
        &self,
        target: &Target,
        options: &WriteOptions,
        mut warnings: Vec<String>,
        attempts: usize,
        asked: impl Fn(&Scale, &Entry) -> Result<(Scale, Option<String>), ApiError> + Send,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        let revision = Revision::new(target, Some(Subresource::Scale), options, attempts);
        let outcome = self
            .revise(&revision, &mut warnings, |entry, old, _| {
                let current = scale(resource, old, entry)?;
                let (asked, owners) = asked(&current, entry)?;
                check_scale(target, &asked, &current)?;
                let mut new = old.boxed_clone();
                resource.set_scale(new.as_mut(), replicas(&asked));
                Ok(Draft { new, owners })
            })
            .await?;
        let object = resource.load(&outcome.stored).map_err(ApiError::internal)?;
        let version = object.meta().resource_version.clone();
        let scale = encode(&scale_at(resource, object.as_ref(), version)?)?;
        Ok(Written { body: scale.clone(), stored: scale, created: false, warnings })
    }

    /// Binds a pod to a node: the body is a `Binding`. Answers with a `Status` of success.
    ///
    /// # Errors
    /// 404 when there is no such pod, 409 when it is bound or being deleted, 422 for a target that is no node.
    pub async fn bind(&self, target: &Target, body: &[u8], options: &WriteOptions) -> Result<Bytes, ApiError> {
        let binding: Binding = decode_other(body, &mut report_for(options), options)?;
        let errors = validate_binding(&binding);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&GroupKind::from_static("", "Binding"), &target.name, &errors));
        }
        let now = Timestamp::now();
        self.rewrite(target, ATTEMPTS, options.dry_run, None, |_, old| {
            let mut new = old.boxed_clone();
            let pod = new.as_any_mut().downcast_mut::<Pod>();
            let pod = pod.ok_or_else(ApiError::no_such_resource)?;
            assign(pod, &binding, now).map_err(|why| {
                ApiError::conflict(&GroupResource::from_static("", "pods/binding"), &target.name, why)
            })?;
            Ok(Change::Put { new, reservation: Reservation::none(), owners: None })
        })
        .await?;
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        Ok(status.to_string().into())
    }

    /// Where a container of a pod runs; without a name, its only container or the one its annotation
    /// `kubectl.kubernetes.io/default-container` names.
    ///
    /// # Errors
    /// 404 when there is no such pod, 400 when the container is unclear or unknown.
    pub fn pod_location(&self, namespace: &str, name: &str, container: Option<&str>) -> Result<PodLocation, ApiError> {
        let resources = self.resources();
        let pods = resources.get("", "v1", "pods").ok_or_else(ApiError::no_such_resource)?;
        let entry = self.find(&Target::object(pods, namespace, name))?;
        let object = pods.load(&entry.value).map_err(ApiError::internal)?;
        let pod = object.as_any().downcast_ref::<Pod>().ok_or_else(ApiError::no_such_resource)?;
        let container = choose_container(pod, name, container)?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        Ok(PodLocation { uid: pod.metadata.uid.clone().unwrap_or_default(), node, container })
    }
}

fn encode(scale: &Scale) -> Result<Bytes, ApiError> {
    serde_json::to_vec(scale).map(Bytes::from).map_err(ApiError::internal)
}

fn scale(resource: &Resource, object: &dyn Object, entry: &Entry) -> Result<Scale, ApiError> {
    scale_at(resource, object, Some(entry.revision.to_string()))
}

fn scale_at(resource: &Resource, object: &dyn Object, version: Option<String>) -> Result<Scale, ApiError> {
    let view = resource.scale(object).filter(|_| resource.info().has(Subresource::Scale));
    let ScaleView { replicas, current, selector } = view.ok_or_else(ApiError::no_such_resource)?;
    let meta = object.meta();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: version,
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(replicas) }),
        status: Some(ScaleStatus { replicas: current, selector: (!selector.is_empty()).then_some(selector) }),
    })
}

fn replicas(scale: &Scale) -> i32 {
    scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()
}

/// What a Scale must say to be accepted: a number of replicas that makes sense, of the workload as it is.
fn check_scale(target: &Target, asked: &Scale, current: &Scale) -> Result<(), ApiError> {
    let info = target.resource.info();
    let (meta, found) = (&asked.metadata, &current.metadata);
    if let Some(name) = meta.name.as_deref().filter(|name| !name.is_empty() && *name != target.name) {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    if let Some(uid) = meta.uid.as_deref().filter(|uid| !uid.is_empty() && meta.uid != found.uid) {
        let why = uid_mismatch(uid, found.uid.as_deref().unwrap_or_default());
        return Err(ApiError::conflict(&info.group_resource, &target.name, why));
    }
    let version = meta.resource_version.as_deref().unwrap_or_default();
    if !version.is_empty() && Some(version) != found.resource_version.as_deref() {
        return Err(ApiError::conflict(&info.group_resource, &target.name, MODIFIED));
    }
    if replicas(asked) < 0 {
        let path = Path::new("spec").child("replicas");
        let error = FieldError::invalid(&path, replicas(asked), "must be greater than or equal to 0");
        let kind = GroupKind::from_static("autoscaling", "Scale");
        return Err(ApiError::invalid(&kind, &target.name, &ErrorList(vec![error])));
    }
    Ok(())
}

fn validate_binding(binding: &Binding) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("target");
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    errors
}

/// Puts a pod on a node. The error says why it cannot be.
fn assign(pod: &mut Pod, binding: &Binding, now: Timestamp) -> Result<(), String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let Some(asked) = binding.metadata.uid.as_deref().filter(|asked| !asked.is_empty() && *asked != uid) {
        return Err(uid_mismatch(asked, uid));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let Some(spec) = &mut pod.spec else { return Err(format!("pod {name} has no spec")) };
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Err(format!("pod {name} is already assigned to node {node:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.target.name);
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    let status = pod.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(meta::time(now)),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|condition| condition.type_ == scheduled.type_) {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}

fn choose_container(pod: &Pod, name: &str, asked: Option<&str>) -> Result<String, ApiError> {
    let Some(spec) = &pod.spec else {
        return Err(ApiError::bad_request(format!("pod {name} has no containers")));
    };
    let main: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    let ephemeral: Vec<&str> =
        spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str()).collect();
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        if [&main, &init, &ephemeral].iter().any(|names| names.contains(&asked)) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let annotations = pod.metadata.annotations.as_ref();
    let default = annotations.and_then(|all| all.get("kubectl.kubernetes.io/default-container"));
    if let Some(default) = default.filter(|default| main.contains(&default.as_str())) {
        return Ok(default.clone());
    }
    match main.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        several => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", several.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}
