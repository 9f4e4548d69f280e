//! apiregistration.k8s.io/v1 APIService: who answers a version of an API group, and where it stands in discovery.
//!
//! Upstream: kube-aggregator `pkg/apis/apiregistration/validation/validation.go` and `pkg/registry/apiservice/strategy.go`.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService as Object, APIServiceCondition, APIServiceStatus, ServiceReference,
};
use machinery::field::{ErrorList, Path};
use machinery::phase::ConditionStatus;
use machinery::validate;
use registry::kind::{
    Column, Context, Descriptor, Kind, MetadataReset, NameRule, Subresource, cell_age, cell_name, status_apart,
};
use registry::meta;
use serde_json::Value;

use crate::check::{self, Report};
use crate::common::{list, text};

/// The API group.
pub const GROUP: &str = "apiregistration.k8s.io";
/// The resource part of the store's keys.
pub const API_SERVICES: &str = "apiregistration.k8s.io/apiservices";
/// The condition that says whether requests can be answered.
pub const AVAILABLE: &str = "Available";

/// The port of a service that says none.
const HTTPS: i32 = 443;

/// APIServices.
pub(crate) struct APIService;

impl Kind for APIService {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        categories: &["api-extensions"],
        subresources: &[Subresource::Status],
        status_reset: MetadataReset::Nothing,
        names: NameRule::PathSegment,
        ..Descriptor::cluster(GROUP, "v1", "APIService", "apiservices")
    };

    fn default(object: &mut Object) {
        if let Some(service) = object.spec.as_mut().and_then(|spec| spec.service.as_mut()) {
            service.port.get_or_insert(HTTPS);
        }
    }

    fn prepare_create(object: &mut Object, context: &Context<'_>) {
        let mut status = APIServiceStatus::default();
        if service(object).is_none() {
            status.conditions = Some(vec![local(context.now)]);
        }
        object.status = Some(status);
    }

    status_apart!();

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = object.spec.clone().unwrap_or_default();
        let (group, version) = (text(&spec.group), text(&spec.version));
        let (name, required) = (text(&object.metadata.name), format!("{version}.{group}"));
        if name != required && validate::path_segment(name).is_empty() {
            let path = Path::new("metadata").child("name");
            errors.invalid(&path, name, format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
        }
        let path = Path::new("spec");
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.required(&path.child("group"), why);
        }
        if !group.is_empty() {
            check::dns_subdomain(&mut errors, &path.child("group"), group);
        }
        errors.messages(&path.child("version"), version, validate::dns1035_label(version));
        for (field, value, most) in [
            ("groupPriorityMinimum", spec.group_priority_minimum, 20_000),
            ("versionPriority", spec.version_priority, 1000),
        ] {
            if value <= 0 || value > most {
                errors.invalid(&path.child(field), value, format!("must be positive and less than {most}"));
            }
        }
        let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
        let insecure = spec.insecure_skip_tls_verify == Some(true);
        let insecure_path = path.child("insecureSkipTLSVerify");
        let Some(service) = &spec.service else {
            if bundle > 0 {
                let why = "local APIServices may not have a caBundle";
                errors.invalid(&path.child("caBundle"), format!("{bundle} bytes"), why);
            }
            if insecure {
                errors.invalid(&insecure_path, true, "local APIServices may not have insecureSkipTLSVerify");
            }
            return errors;
        };
        let path = path.child("service");
        for (field, value) in [("namespace", text(&service.namespace)), ("name", text(&service.name))] {
            if value.is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        let port = service.port.unwrap_or(HTTPS);
        let wrong = validate::port_number(port.into());
        if !wrong.is_empty() {
            errors.invalid(&path.child("port"), port, format!("port is not valid: {}", wrong.join(",")));
        }
        if insecure && bundle > 0 {
            errors.invalid(&insecure_path, true, "may not be true if caBundle is present");
        }
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("status").child("conditions");
        for (index, condition) in conditions(new).iter().enumerate() {
            let known = ["True", "False", "Unknown"];
            if !known.contains(&condition.status.as_str()) {
                errors.not_supported(&path.index(index).child("status"), &condition.status, &known);
            }
        }
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("Service", "The reference to the service that hosts this API endpoint."),
            Column::string("Available", "Whether this service is available."),
            Column::age(),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let host = service(object).map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", text(&service.namespace), text(&service.name)),
        );
        vec![cell_name(&object.metadata), host.into(), available(object).into(), cell_age(&object.metadata, now)]
    }
}

/// Who answers, where that is not the API server itself.
fn service(object: &Object) -> Option<&ServiceReference> {
    object.spec.as_ref()?.service.as_ref()
}

/// The conditions of an APIService.
#[must_use]
pub fn conditions(object: &Object) -> &[APIServiceCondition] {
    object.status.as_ref().map_or(&[], |status| list(&status.conditions))
}

/// The condition of what the API server answers itself.
#[must_use]
pub fn local(now: Timestamp) -> APIServiceCondition {
    APIServiceCondition {
        type_: AVAILABLE.to_owned(),
        status: ConditionStatus::True.to_string(),
        reason: Some("Local".to_owned()),
        message: Some("Local APIServices are always available".to_owned()),
        last_transition_time: Some(meta::time(now)),
    }
}

/// What kubectl shows: `True`, or `False (MissingEndpoints)`.
fn available(object: &Object) -> String {
    let condition = conditions(object).iter().find(|condition| condition.type_ == AVAILABLE);
    match condition {
        Some(condition) if condition.status == ConditionStatus::True => condition.status.clone(),
        Some(condition) => format!("{} ({})", condition.status, text(&condition.reason)),
        None => String::new(),
    }
}

/// Where a version of a group stands in discovery: groups of a higher priority first, and of a group the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// `spec.groupPriorityMinimum`.
    pub group: i32,
    /// `spec.versionPriority`.
    pub version: i32,
}

/// Of the versions that a CustomResourceDefinition defines (upstream: `pkg/controlplane/controller/crdregistration`).
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };

/// Of the group that describes the others, which has no APIService itself (upstream: kube-aggregator
/// `pkg/apiserver/apiserver.go`).
const REGISTRATION: Priority = Priority { group: 20_000, version: 18 };

/// Where built-in versions stand. Upstream: `DefaultGenericAPIServicePriorities` in
/// `pkg/controlplane/apiserver/aggregator.go`, and `cmd/kube-apiserver/app/aggregator.go`.
const BUILT_IN: [(&str, &str, i32, i32); 23] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("autoscaling", "v1", 17_500, 15),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16_700, 12),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("resource.k8s.io", "v1", 16_200, 20),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("internal.apiserver.k8s.io", "v1alpha1", 16_000, 9),
];

/// Where a version of a built-in group stands; `None` for any other, and for [`GROUP`] itself, which no APIService is about.
#[must_use]
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let row = BUILT_IN.iter().find(|row| row.0 == group && row.1 == version)?;
    Some(Priority { group: row.2, version: row.3 })
}

/// Where a version stands that no APIService is about.
#[must_use]
pub fn priority(group: &str, version: &str) -> Priority {
    if group == GROUP { REGISTRATION } else { built_in(group, version).unwrap_or(CUSTOM) }
}

/// Which of two versions comes first where their priorities are the same: the greater one. Released versions are greater than
/// betas, these than alphas, and what is no version of Kubernetes is less than any.
///
/// Upstream: apimachinery `pkg/version/helpers.go` (`CompareKubeAwareVersionStrings`).
#[must_use]
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    match (stability(one), stability(other)) {
        (None, None) => other.cmp(one),
        (one, other) => one.cmp(&other),
    }
}

/// How stable a version is, and its numbers: of `v1beta2` 1, 1 and 2.
fn stability(version: &str) -> Option<(u8, u64, u64)> {
    let (major, rest) = number(version.strip_prefix('v')?)?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, rest) = match rest.strip_prefix("beta") {
        Some(rest) => (1, rest),
        None => (0, rest.strip_prefix("alpha")?),
    };
    let (minor, rest) = number(rest)?;
    rest.is_empty().then_some((stability, major, minor))
}

/// The digits at the beginning, and what follows them.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{CREATED, check_defaults, errors, object, row, with};

    fn remote() -> Value {
        json!({
            "metadata": { "name": "v1beta1.metrics.k8s.io", "creationTimestamp": CREATED },
            "spec": {
                "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "insecureSkipTLSVerify": true, "service": { "name": "metrics-server", "namespace": "kube-system" },
            },
        })
    }

    #[test]
    fn a_service_listens_on_443() {
        let expect = with(remote(), "/spec/service/port", json!(443));
        check_defaults::<APIService>(remote(), &expect);
    }

    #[test]
    fn what_is_refused() {
        let check = |pointer: &str, value: Value, expect: &[&str]| {
            assert_eq!(errors::<APIService>(with(remote(), pointer, value)), expect, "{pointer}");
        };
        check("/spec/caBundle", Value::Null, &[]);
        check(
            "/metadata/name",
            json!("metrics"),
            &[
                r#"metadata.name: Invalid value: "metrics": must be `spec.version+"."+spec.group`: "v1beta1.metrics.k8s.io""#,
            ],
        );
        let legacy = with(with(remote(), "/spec/group", Value::Null), "/metadata/name", json!("v1beta1."));
        let why = "spec.group: Required value: only v1 may have an empty group and it better be legacy kube";
        assert_eq!(errors::<APIService>(legacy), [why]);
        check(
            "/spec/groupPriorityMinimum",
            json!(20_001),
            &["spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000"],
        );
        check(
            "/spec/versionPriority",
            json!(0),
            &["spec.versionPriority: Invalid value: 0: must be positive and less than 1000"],
        );
        check(
            "/spec/service",
            json!({ "port": 70_000 }),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            ],
        );
        check(
            "/spec/service",
            Value::Null,
            &["spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify"],
        );
        check(
            "/spec/caBundle",
            json!("aGVsbG8="),
            &["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
        );
    }

    #[test]
    fn conditions_are_true_false_or_unknown() {
        let condition = json!([{ "type": "Available", "status": "Maybe" }]);
        let new = object::<APIService>(with(remote(), "/status", json!({ "conditions": condition })));
        let errors: Vec<String> = APIService::validate_status(&new, &object::<APIService>(remote()))
            .iter()
            .map(ToString::to_string)
            .collect();
        let expect =
            r#"status.conditions[0].status: Unsupported value: "Maybe": supported values: "True", "False", "Unknown""#;
        assert_eq!(errors, [expect]);
    }

    #[test]
    fn rows() {
        let with_condition =
            |object: Value, condition: Value| with(object, "/status", json!({ "conditions": [condition] }));
        let missing = json!({ "type": "Available", "status": "False", "reason": "MissingEndpoints" });
        let cells = |service: &str, available: &str| {
            [json!("v1beta1.metrics.k8s.io"), json!(service), json!(available), json!("10m")]
        };
        let metrics_server = "kube-system/metrics-server";
        assert_eq!(row::<APIService>(remote()), cells(metrics_server, ""));
        let unavailable = with_condition(remote(), missing);
        assert_eq!(row::<APIService>(unavailable), cells(metrics_server, "False (MissingEndpoints)"));
        let own = with(remote(), "/spec/service", Value::Null);
        let condition = serde_json::to_value(local(Timestamp::UNIX_EPOCH)).expect("JSON");
        assert_eq!(row::<APIService>(with_condition(own, condition)), cells("Local", "True"));
    }

    #[test]
    fn versions_in_their_order() {
        let ordered = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut sorted = ordered;
        sorted.reverse();
        sorted.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(sorted, ordered);
        assert_eq!(compare_versions("v1", "v1"), Ordering::Equal);
    }

    #[test]
    fn every_built_in_version_has_its_place_and_none_is_shared() {
        for resource in crate::all() {
            let info = resource.info();
            if info.group != GROUP {
                assert!(built_in(&info.group, &info.version).is_some(), "{} has no priority", info.api_version);
            }
        }
        for (index, row) in BUILT_IN.iter().enumerate() {
            assert!(!BUILT_IN[..index].iter().any(|other| (other.0, other.1) == (row.0, row.1)), "{row:?} twice");
        }
    }
}
