//! flowcontrol.apiserver.k8s.io/v1 FlowSchema. The rules are those of upstream's `pkg/apis/flowcontrol/validation/validation.go`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema as Object, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule,
    ServiceAccountSubject, Subject,
};
use machinery::field::{ErrorList, Path};
use registry::kind::{Column, Descriptor, Kind, MetadataReset, Subresource, cell_age, cell_name, spec_and_status};
use serde_json::Value;

use super::{EXEMPT, GROUP, bootstrap};
use crate::check::{Report, dns_label, dns_subdomain};
use crate::common::{list, text};

/// Upstream: `pkg/apis/flowcontrol/v1/defaults.go`.
const DEFAULT_PRECEDENCE: i32 = 1_000;
/// Upstream: `FlowSchemaMaxMatchingPrecedence` in `pkg/apis/flowcontrol/types.go`.
const MAX_PRECEDENCE: i32 = 10_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// FlowSchemas.
pub(crate) struct FlowSchema;

impl Kind for FlowSchema {
    type Object = Object;

    const DESCRIPTOR: Descriptor = Descriptor {
        subresources: &[Subresource::Status],
        status_reset: MetadataReset::Everything,
        ..Descriptor::cluster(GROUP, "v1", "FlowSchema", "flowschemas")
    };

    spec_and_status!();

    fn default(object: &mut Object) {
        let spec = object.spec.get_or_insert_default();
        if spec.matching_precedence.unwrap_or_default() == 0 {
            spec.matching_precedence = Some(DEFAULT_PRECEDENCE);
        }
    }

    fn validate(object: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let (path, name) = (Path::new("spec"), text(&object.metadata.name));
        let empty = FlowSchemaSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        validate_spec(&mut errors, &path, name, spec);
        if let Some(fixed) = bootstrap::mandatory_flow_schema(name)
            && *spec != fixed
        {
            errors.invalid(&path, spec, format!("spec of '{name}' must equal the fixed value"));
        }
        validate_conditions(&mut errors, object);
        errors
    }

    fn validate_status(new: &Object, _old: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        validate_conditions(&mut errors, new);
        errors
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::name(),
            Column::string("PriorityLevel", "The priority level of the requests that match."),
            Column::integer(
                "MatchingPrecedence",
                "Which schema counts of those that match: the one with the lowest number.",
            ),
            Column::string("DistinguisherMethod", "What tells the flows of a schema apart."),
            Column::age(),
            Column::string("MissingPL", "Whether there is no priority level of that name."),
        ]
    }

    fn row(object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.spec.as_ref();
        let level = spec.map_or("", |spec| &spec.priority_level_configuration.name);
        let method = spec.and_then(|spec| spec.distinguisher_method.as_ref());
        let conditions = object.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
        let dangling = conditions.iter().find(|condition| condition.type_.as_deref() == Some("Dangling"));
        vec![
            cell_name(&object.metadata),
            level.into(),
            spec.and_then(|spec| spec.matching_precedence).unwrap_or_default().into(),
            method.map_or("<none>", |method| &method.type_).into(),
            cell_age(&object.metadata, now),
            dangling.map_or("?", |condition| text(&condition.status)).into(),
        ]
    }
}

fn validate_spec(errors: &mut ErrorList, path: &Path, name: &str, spec: &FlowSchemaSpec) {
    let (precedence, at) = (spec.matching_precedence.unwrap_or_default(), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errors.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != EXEMPT {
        errors.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = &spec.distinguisher_method
        && !["ByNamespace", "ByUser"].contains(&method.type_.as_str())
    {
        errors.not_supported(
            &path.child("distinguisherMethod").child("type"),
            &method.type_,
            &["ByNamespace", "ByUser"],
        );
    }
    let (level, at) = (&spec.priority_level_configuration.name, path.child("priorityLevelConfiguration").child("name"));
    if level.is_empty() {
        errors.required(&at, "must reference a priority level");
    } else {
        dns_subdomain(errors, &at, level);
    }
    for (index, rule) in list(&spec.rules).iter().enumerate() {
        validate_rule(errors, &path.child("rules").index(index), rule);
    }
}

fn validate_rule(errors: &mut ErrorList, path: &Path, rule: &PolicyRulesWithSubjects) {
    if rule.subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (index, subject) in rule.subjects.iter().enumerate() {
        validate_subject(errors, &path.child("subjects").index(index), subject);
    }
    let (resources, others) = (list(&rule.resource_rules), list(&rule.non_resource_rules));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (index, rule) in resources.iter().enumerate() {
        validate_resource_rule(errors, &path.child("resourceRules").index(index), rule);
    }
    for (index, rule) in others.iter().enumerate() {
        validate_non_resource_rule(errors, &path.child("nonResourceRules").index(index), rule);
    }
}

fn validate_subject(errors: &mut ErrorList, path: &Path, subject: &Subject) {
    // The member that each kind has, and whether it is there.
    let members = [
        ("User", "user", subject.user.is_some()),
        ("Group", "group", subject.group.is_some()),
        ("ServiceAccount", "serviceAccount", subject.service_account.is_some()),
    ];
    if !members.iter().any(|(kind, ..)| *kind == subject.kind) {
        errors.not_supported(&path.child("kind"), &subject.kind, &["Group", "ServiceAccount", "User"]);
        return;
    }
    for (kind, member, is_there) in members {
        match (kind == subject.kind, is_there) {
            (true, false) => {
                errors.required(&path.child(member), &format!("{member} is required when subject kind is '{kind}'"));
            }
            (false, true) => errors
                .forbidden(&path.child(member), format!("{member} is forbidden when subject kind is not '{kind}'")),
            _ => {}
        }
    }
    let named = [
        ("user", subject.user.as_ref().map(|user| &user.name)),
        ("group", subject.group.as_ref().map(|group| &group.name)),
    ];
    for (member, name) in named {
        if name.is_some_and(String::is_empty) {
            errors.required(&path.child(member).child("name"), "");
        }
    }
    if let Some(account) = &subject.service_account {
        validate_account(errors, &path.child("serviceAccount"), account);
    }
}

fn validate_account(errors: &mut ErrorList, path: &Path, account: &ServiceAccountSubject) {
    match account.name.as_str() {
        "" => errors.required(&path.child("name"), ""),
        "*" => {}
        name => dns_subdomain(errors, &path.child("name"), name),
    }
    if account.namespace.is_empty() {
        errors.required(&path.child("namespace"), "must specify namespace for service account");
    } else {
        dns_label(errors, &path.child("namespace"), &account.namespace);
    }
}

fn validate_resource_rule(errors: &mut ErrorList, path: &Path, rule: &ResourcePolicyRule) {
    validate_verbs(errors, path, &rule.verbs);
    for (member, values, one, other) in [
        ("apiGroups", &rule.api_groups, "api group", "api groups"),
        ("resources", &rule.resources, "resource", "resources"),
    ] {
        if values.is_empty() {
            errors.required(&path.child(member), &format!("resource rules must supply at least one {one}"));
        } else if values.len() > 1 && has_wildcard(values) {
            errors.invalid(&path.child(member), values, format!("if '*' is present, must not specify other {other}"));
        }
    }
    let (namespaces, path) = (list(&rule.namespaces), path.child("namespaces"));
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        errors.required(&path, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if has_wildcard(namespaces) {
        if namespaces.len() > 1 {
            errors.invalid(&path, namespaces, "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            for message in machinery::validate::dns_label(namespace) {
                let message = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.invalid(&path.index(index), namespace, message);
            }
        }
    }
}

fn validate_non_resource_rule(errors: &mut ErrorList, path: &Path, rule: &NonResourcePolicyRule) {
    validate_verbs(errors, path, &rule.verbs);
    let (urls, path) = (&rule.non_resource_urls, path.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.required(&path, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(urls) {
        if urls.len() > 1 {
            errors.invalid(&path, urls, "if '*' is present, must not specify other non-resource URLs");
        }
    } else {
        for (index, url) in urls.iter().enumerate() {
            if let Some(fault) = url_fault(url) {
                errors.invalid(&path.index(index), url, fault);
            }
        }
    }
}

fn validate_verbs(errors: &mut ErrorList, path: &Path, verbs: &[String]) {
    let path = path.child("verbs");
    if verbs.is_empty() {
        errors.required(&path, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            errors.invalid(&path, verbs, "if '*' is present, must not specify other verbs");
        }
    } else if let Some(unknown) = verbs.iter().find(|verb| !VERBS.contains(&verb.as_str())) {
        errors.not_supported(&path, unknown, &VERBS);
    }
}

fn has_wildcard(values: &[String]) -> bool {
    values.iter().any(|value| value == "*")
}

/// What is wrong with a path that is no resource's: it may end in `/*`.
fn url_fault(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

fn validate_conditions(errors: &mut ErrorList, object: &Object) {
    let conditions = object.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
    let path = Path::new("status").child("conditions");
    condition_types(errors, &path, conditions.iter().map(|condition| text(&condition.type_)));
}

/// Conditions of a status, each type of which there may be once.
pub(crate) fn condition_types<'a>(errors: &mut ErrorList, path: &Path, types: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for (index, kind) in types.enumerate() {
        let path = path.index(index).child("type");
        if !seen.insert(kind) {
            errors.duplicate(&path, kind);
        }
        if kind.is_empty() {
            errors.required(&path, "must not be empty");
        }
    }
}
