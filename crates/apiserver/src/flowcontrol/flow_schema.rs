//! Which FlowSchema a request matches, and which flow of it the request belongs to.
//!
//! The schemas are in a table, in the order in which they match, that is replaced as a whole when the objects change. Those whose
//! priority level is missing are not in it. The rules are those of upstream's apiserver `pkg/util/flowcontrol/rule.go`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::Metadata;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema as Object, FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use registry::User;
use registry::optional::{list, text};
use registry::user::ACCOUNT_PREFIX;
use serde::de::DeserializeOwned;
use store::Store;

use super::metrics::{Counts, Metrics, SchemaMetrics};
use super::priority_level::{PriorityLevel, PriorityLevels};
use crate::authz::{Attributes, Target};

pub(super) const FLOW_SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
pub(super) const PRIORITY_LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// The name of the mandatory schema that matches what no other does.
const CATCH_ALL: &str = "catch-all";

/// All flow schemas with their levels.
#[derive(Debug)]
pub(super) struct Table {
    /// In the order in which they match.
    schemas: Vec<Arc<FlowSchema>>,
    levels: Arc<PriorityLevels>,
    /// Nobody can choose a name whose flow shares its queues with that of another.
    hasher: RandomState,
}

/// A flow schema whose level is there.
#[derive(Debug)]
pub(super) struct FlowSchema {
    pub(super) uid: HeaderValue,
    pub(super) metrics: SchemaMetrics,
    name: String,
    matching_precedence: i32,
    distinguisher: Distinguisher,
    rules: Vec<PolicyRulesWithSubjects>,
    levels: Arc<PriorityLevels>,
    level: usize,
}

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    /// All requests are one flow.
    None,
    User,
    Namespace,
}

impl Table {
    /// The table of what is stored now, and of what is mandatory where it is not stored. Levels that have not changed since
    /// `before` stay as they are.
    pub(super) fn new(store: &Store, seats: u32, before: Option<&Self>, metrics: &Metrics) -> Self {
        let (schemas, levels) = kinds::flowcontrol::mandatory();
        let (schemas, levels) = (read(store, FLOW_SCHEMAS, schemas), read(store, PRIORITY_LEVELS, levels));
        let levels = PriorityLevels::new(&levels, seats, before.map(|table| &table.levels));
        let schemas = schemas.iter().filter_map(|object| FlowSchema::new(object, &levels, metrics));
        let mut schemas: Vec<_> = schemas.map(Arc::new).collect();
        // Upstream: of two with the same precedence the name decides.
        schemas
            .sort_by(|one, other| (one.matching_precedence, &one.name).cmp(&(other.matching_precedence, &other.name)));
        let hasher = before.map_or_else(RandomState::new, |table| table.hasher.clone());
        Self { schemas, levels, hasher }
    }

    /// The schema of a request: the first that matches. One of somebody in neither of the groups that everybody is in
    /// matches none, and is caught as well.
    pub(super) fn classify(&self, attributes: &Attributes<'_>) -> Option<&Arc<FlowSchema>> {
        let catch_all = || self.schemas.iter().rfind(|schema| schema.name == CATCH_ALL);
        self.schemas.iter().find(|schema| schema.matches(attributes)).or_else(catch_all)
    }

    /// The hash of the flow that a request belongs to.
    pub(super) fn flow(&self, schema: &FlowSchema, attributes: &Attributes<'_>) -> u64 {
        self.hasher.hash_one((&schema.name, schema.distinguisher(attributes)))
    }

    pub(super) fn levels(&self) -> &PriorityLevels {
        &self.levels
    }

    /// What has been counted of the requests of a level.
    pub(super) fn counts(&self, level: &PriorityLevel) -> Counts {
        let schemas = self.schemas.iter().filter(|schema| std::ptr::eq(schema.level(), level));
        schemas.fold(Counts::default(), |sum, schema| sum + schema.metrics.counts())
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = &SchemaMetrics> {
        self.schemas.iter().map(|schema| &schema.metrics)
    }
}

/// The stored objects that can be read, and the mandatory ones that are not among them.
fn read<T>(store: &Store, resource: &str, mandatory: Vec<T>) -> Vec<T>
where
    T: Metadata<Ty = ObjectMeta> + DeserializeOwned,
{
    let snapshot = store.snapshot(resource);
    let stored = snapshot.iter().filter_map(|entry| {
        let object = serde_json::from_slice(&entry.value);
        object.inspect_err(|error| tracing::warn!(key = ?entry.key, %error, "a stored object cannot be read")).ok()
    });
    let mut objects: Vec<T> = stored.collect();
    for object in mandatory {
        if !objects.iter().any(|stored| stored.metadata().name == object.metadata().name) {
            objects.push(object);
        }
    }
    objects
}

impl FlowSchema {
    /// `None` when its level is missing.
    pub(super) fn new(object: &Object, levels: &Arc<PriorityLevels>, metrics: &Metrics) -> Option<Self> {
        let empty = FlowSchemaSpec::default();
        let spec = object.spec.as_ref().unwrap_or(&empty);
        let (name, level_name) = (text(&object.metadata.name), &spec.priority_level_configuration.name);
        let method = spec.distinguisher_method.as_ref().map_or("", |method| &method.type_);
        Some(Self {
            level: levels.find(level_name)?,
            uid: HeaderValue::from_str(text(&object.metadata.uid)).unwrap_or_else(|_| HeaderValue::from_static("")),
            metrics: metrics.of(name, level_name),
            name: name.to_owned(),
            matching_precedence: spec.matching_precedence.unwrap_or_default(),
            distinguisher: match method {
                "ByUser" => Distinguisher::User,
                "ByNamespace" => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: list(&spec.rules).to_vec(),
            levels: Arc::clone(levels),
        })
    }

    pub(super) fn levels(&self) -> &PriorityLevels {
        &self.levels
    }

    pub(super) fn level(&self) -> &PriorityLevel {
        self.levels.level(self.level)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What tells the flow of a request apart from the others of the schema.
    pub(super) fn distinguisher<'a>(&self, attributes: &Attributes<'a>) -> &'a str {
        match (self.distinguisher, attributes.target) {
            (Distinguisher::User, _) => attributes.user.name.as_str(),
            (Distinguisher::Namespace, Target::Resource { namespace, .. }) => namespace,
            _ => "",
        }
    }

    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| is_subject(subject, attributes.user))
                && match attributes.target {
                    Target::Resource { .. } => {
                        list(&rule.resource_rules).iter().any(|rule| is_about_resource(rule, attributes))
                    }
                    Target::Path(path) => {
                        list(&rule.non_resource_rules).iter().any(|rule| is_about_path(rule, attributes, path))
                    }
                }
        })
    }
}

fn is_subject(subject: &Subject, user: &User) -> bool {
    let is = |name: &str, wanted: &str| wanted == "*" || wanted == name;
    match (&subject.user, &subject.group, &subject.service_account) {
        (Some(wanted), ..) => is(&user.name, &wanted.name),
        (_, Some(wanted), _) => wanted.name == "*" || user.is_in(&wanted.name),
        (.., Some(wanted)) => {
            let account = user.name.strip_prefix(ACCOUNT_PREFIX).and_then(|account| account.split_once(':'));
            account.is_some_and(|(namespace, name)| namespace == wanted.namespace && is(name, &wanted.name))
        }
        _ => false,
    }
}

fn is_about_resource(rule: &ResourcePolicyRule, attributes: &Attributes<'_>) -> bool {
    let Target::Resource { group, resource, subresource, namespace, .. } = attributes.target else { return false };
    let is_resource = |wanted: &String| match wanted.split_once('/') {
        Some((wanted, below)) => wanted == resource && below == subresource,
        None => wanted == "*" || (wanted == resource && subresource.is_empty()),
    };
    has(&rule.verbs, attributes.verb.as_str())
        && rule.resources.iter().any(is_resource)
        && has(&rule.api_groups, group)
        && match namespace {
            "" => rule.cluster_scope == Some(true),
            namespace => has(list(&rule.namespaces), namespace),
        }
}

fn is_about_path(rule: &NonResourcePolicyRule, attributes: &Attributes<'_>, path: &str) -> bool {
    let is_path = |wanted: &String| {
        let prefix = wanted.trim_end_matches('*').trim_end_matches('/');
        let below = path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        wanted == "*" || wanted == path || below
    };
    has(&rule.verbs, attributes.verb.as_str()) && rule.non_resource_urls.iter().any(is_path)
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == "*" || value == wanted)
}
