//! What is below an object and is more than the object again: scale and binding; and where a pod runs, for the
//! streams that the API server passes on to its node.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::{ErrorList, FieldError, Path};
use machinery::gvk::{GroupKind, GroupResource};
use machinery::status::{ApiError, MODIFIED};
use serde_json::{Value, json};
use store::Entry;

use crate::Registry;
use crate::admission::Codec;
use crate::decode::Report;
use crate::kind::{ScaleView, Subresource};
use crate::meta;
use crate::object::{Object, cast, cast_mut};
use crate::pipeline::decode::{self, report_for};
use crate::pipeline::{Action, Patch, Propose, Proposed, Stored, Write, fields_of_replicas};
use crate::request::{Target, WriteOptions, Written};
use crate::table::Resource;
use crate::write::uid_mismatch;

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
        encode(&scale(&target.resource, object.as_ref())?)
    }

    pub(crate) async fn update_scale(
        &self,
        target: &Target,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let mut report = report_for(options);
        let asked: Scale = decode::other(body, &mut report, options)?;
        let findings = report.into_findings();
        self.set_scale(target, options, false, |_, warnings| {
            warnings.extend(findings.iter().cloned());
            Ok(asked.clone())
        })
        .await
    }

    pub(crate) async fn patch_scale(
        &self,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.set_scale(target, options, false, |current, _| {
            let patched = patch.apply(&encode(current)?, SCALE)?;
            decode::other(&patched, &mut Report::ignore(), options)
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
        let asked: Scale = decode::other(config, &mut Report::ignore(), options)?;
        self.set_scale(target, options, true, |_, _| Ok(asked.clone())).await
    }

    /// Updates a workload by what `propose` makes of its Scale. Admission is shown the workload as its Scale, as upstream
    /// (`ScaleREST` in `pkg/registry/apps/deployment/storage/storage.go`). Whoever `applies` the Scale owns the number of
    /// replicas.
    async fn set_scale(
        &self,
        target: &Target,
        options: &WriteOptions,
        applies: bool,
        propose: impl Fn(&Scale, &mut Vec<String>) -> Result<Scale, ApiError> + Send + Sync,
    ) -> Result<Written, ApiError> {
        let resource = &target.resource;
        let codec = ScaleOf(target);
        let write = Write::new(self, Action::Update, target, Some(Subresource::Scale), options).shown_as(&codec);
        let mut proposal = Propose(|old: Option<&Stored>, warnings: &mut Vec<String>| {
            let old = old.ok_or_else(|| ApiError::internal("there is nothing to scale"))?;
            let current = scale(resource, old.object.as_ref())?;
            let proposed = propose(&current, warnings)?;
            check_scale(target, &proposed, &current)?;
            let managed_fields = applies.then(|| fields_of_replicas(&write, old, replicas(&proposed))).transpose()?;
            let mut new = old.object.boxed_clone();
            resource.strategy().set_scale(new.as_mut(), replicas(&proposed))?;
            Ok(Proposed { object: Some(new), managed_fields })
        });
        let completed = self.run(&write, &mut proposal).await?;
        let object = resource.load(&completed.stored()?.0).map_err(ApiError::internal)?;
        let body = encode(&scale(resource, object.as_ref())?)?;
        Ok(Written { body: body.clone(), stored: body, created: false, warnings: completed.warnings })
    }

    /// Binds a pod to a node: the body is a `Binding`. The target is the pod, or the collection `bindings`, whose pod the body
    /// names (upstream: `LegacyREST` in `pkg/registry/core/pod/storage/storage.go`). Answers with a `Status` of success.
    ///
    /// # Errors
    /// 404 when there is no such pod, 409 when it is bound or being deleted, 422 for a target that is no node.
    pub async fn bind(&self, target: &Target, body: &[u8], options: &WriteOptions) -> Result<Written, ApiError> {
        let mut report = report_for(options);
        let binding: Binding = decode::other(body, &mut report, options)?;
        let mut warnings = report.into_findings();
        let pod = match target.resource.info().stands_for {
            Some((plural, _)) => {
                let resources = self.resources();
                let pods = resources.get("", "v1", plural).ok_or_else(ApiError::no_such_resource)?;
                let name = binding.metadata.name.as_deref().filter(|name| !name.is_empty());
                let name = name.ok_or_else(|| ApiError::bad_request("Name parameter required."))?;
                Target::object(pods, target.namespace.as_str(), name)
            }
            None => target.clone(),
        };
        let validate = |binding: &mut Binding| {
            let errors = validate_binding(binding);
            let kind = GroupKind::from_static("", "Binding");
            if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&kind, &pod.name, &errors)) }
        };
        let binding =
            self.admit_subresource(target, Subresource::Binding, binding, options, &mut warnings, validate).await?;
        let now = Timestamp::now();
        self.guaranteed_update(&pod, ("bind", options), |_, object| {
            assign(cast_mut(object)?, &binding, now)
                .map_err(|why| ApiError::conflict(&GroupResource::from_static("", "pods/binding"), &pod.name, why))
        })
        .await?;
        Ok(success(warnings))
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
        let pod: &Pod = cast(object.as_ref())?;
        let container = choose_container(pod, name, container)?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        Ok(PodLocation { uid: pod.metadata.uid.clone().unwrap_or_default(), node, container })
    }
}

/// The `Status` that answers who created something which is not stored.
pub(crate) fn success(warnings: Vec<String>) -> Written {
    let status: Value =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    let body = Bytes::from(status.to_string());
    Written { stored: body.clone(), body, created: true, warnings }
}

fn encode(scale: &Scale) -> Result<Bytes, ApiError> {
    serde_json::to_vec(scale).map(Bytes::from).map_err(ApiError::internal)
}

/// A workload as admission sees it when its `scale` is written.
struct ScaleOf<'a>(&'a Target);

impl Codec for ScaleOf<'_> {
    fn encode(&self, object: &dyn Object) -> Result<Value, ApiError> {
        serde_json::to_value(scale(&self.0.resource, object)?).map_err(ApiError::internal)
    }

    fn decode(&self, patched: &[u8], current: &dyn Object) -> Result<Box<dyn Object>, ApiError> {
        let asked: Scale = crate::decode::decode(patched, &mut Report::ignore()).map_err(ApiError::internal)?;
        check_scale(self.0, &asked, &scale(&self.0.resource, current)?)?;
        let mut new = current.boxed_clone();
        self.0.resource.strategy().set_scale(new.as_mut(), replicas(&asked))?;
        Ok(new)
    }

    /// A Scale has none.
    fn labels<'o>(&self, _object: &'o dyn Object) -> Option<&'o BTreeMap<String, String>> {
        None
    }
}

/// The Scale of a workload.
fn scale(resource: &Resource, object: &dyn Object) -> Result<Scale, ApiError> {
    let view = resource.strategy().scale(object)?.filter(|_| resource.info().has(Subresource::Scale));
    let ScaleView { replicas, current, selector } = view.ok_or_else(ApiError::no_such_resource)?;
    let meta = object.meta();
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
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
