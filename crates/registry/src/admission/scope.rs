//! Which writes a webhook or a policy is about
//! (`staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/predicates`, `.../plugin/policy/matching/matching.go`).

use k8s_openapi::api::admissionregistration::v1::{MatchResources, NamedRuleWithOperations, RuleWithOperations};
use machinery::selector::{LabelSelector, LabelSelectorError};
use machinery::status::ApiError;
use store::Entry;

use super::{Attributes, NAMESPACES, Operation};
use crate::kind::Subresource;
use crate::object::Object;
use crate::request::Target;
use crate::table::{Resource, ResourceInfo};
use crate::user::MASTERS;

/// Who the server itself is.
const SERVER: &str = "system:apiserver";

/// What no webhook is asked about. Upstream (`pkg/admission/plugin/webhook/predicates/rules`): a webhook must not stand in
/// the way of its own removal. Deviation: nor is one asked about what the server itself writes to get started.
pub(crate) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.info.group == "admissionregistration.k8s.io" || is_own(attributes)
}

/// Whether the server itself writes. Its name alone says nothing: whoever makes certificates or tokens may give it away.
pub(crate) fn is_own(attributes: &Attributes<'_>) -> bool {
    attributes.user.name == SERVER && attributes.user.is_in(MASTERS)
}

/// A rule, and the names of the objects that it is about: all of them where there are none.
pub(crate) struct Rule {
    rule: RuleWithOperations,
    names: Vec<String>,
}

impl From<RuleWithOperations> for Rule {
    fn from(rule: RuleWithOperations) -> Self {
        Self { rule, names: Vec::new() }
    }
}

impl From<NamedRuleWithOperations> for Rule {
    fn from(rule: NamedRuleWithOperations) -> Self {
        let NamedRuleWithOperations { api_groups, api_versions, operations, resource_names, resources, scope } = rule;
        let rule = RuleWithOperations { api_groups, api_versions, operations, resources, scope };
        Self { rule, names: resource_names.unwrap_or_default() }
    }
}

/// What a webhook or a policy wants to be asked about.
pub(crate) struct Scope {
    pub(crate) rules: Vec<Rule>,
    /// What it does not want to be asked about, in spite of its rules.
    pub(crate) excluded: Vec<Rule>,
    /// Whether it is about all resources where it has no rules.
    pub(crate) unruled: bool,
    /// Whether other versions of the same resource are meant as well.
    pub(crate) equivalent: bool,
    pub(crate) namespaces: LabelSelector,
    pub(crate) objects: LabelSelector,
}

/// How a request is within a scope.
pub(crate) enum Match {
    /// As it is.
    AsAsked,
    /// As a request for the same objects in another group or version.
    Equivalent(Resource),
}

impl Match {
    /// Whether both are in the same group and version.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AsAsked, Self::AsAsked) => true,
            (Self::Equivalent(row), Self::Equivalent(other)) => row.info().api_version == other.info().api_version,
            _ => false,
        }
    }

    /// The row of the group and version, where these are others than asked for.
    pub(crate) fn row(&self) -> Option<&Resource> {
        match self {
            Self::AsAsked => None,
            Self::Equivalent(row) => Some(row),
        }
    }
}

impl Scope {
    /// What a policy or a binding says it is about.
    pub(crate) fn of_policy(resources: MatchResources) -> Result<Self, LabelSelectorError> {
        let rules = |rules: Option<Vec<NamedRuleWithOperations>>| rules.into_iter().flatten().map(Rule::from).collect();
        Ok(Self {
            rules: rules(resources.resource_rules),
            excluded: rules(resources.exclude_resource_rules),
            unruled: true,
            equivalent: resources.match_policy.as_deref() != Some("Exact"),
            namespaces: selector(resources.namespace_selector)?,
            objects: selector(resources.object_selector)?,
        })
    }

    /// Whether a write is within it.
    pub(crate) fn holds(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
        self.matches(attributes, object).is_some()
    }

    /// Whether a write is within it, and as what.
    pub(crate) fn matches(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Option<Match> {
        let found = self.matches_anywhere(attributes, object)?;
        self.holds_namespace(attributes, object).then_some(found)
    }

    /// The same, whatever the namespace of the request is.
    pub(crate) fn matches_anywhere(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Option<Match> {
        let found = if self.rules.is_empty() && self.unruled {
            Match::AsAsked
        } else {
            self.first(&self.rules, attributes, object)?
        };
        let within = objects_fit(self, attributes, object) && self.first(&self.excluded, attributes, object).is_none();
        within.then_some(found)
    }

    /// Whether the namespace of a request is within it.
    pub(crate) fn holds_namespace(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
        namespace_fits(self, attributes, object.or(attributes.old))
    }

    /// How a request fits the first rule that it does fit.
    fn first(&self, rules: &[Rule], attributes: &Attributes<'_>, object: Option<&dyn Object>) -> Option<Match> {
        // Most rules are about other resources, whatever the version.
        let mut about = rules.iter().filter(|rule| is_about(rule, attributes, object)).peekable();
        about.peek()?;
        let about: Vec<&Rule> = about.collect();
        let in_version = |info: &ResourceInfo| about.iter().any(|rule| is_in_version(&rule.rule, info));
        if in_version(attributes.info) {
            return Some(Match::AsAsked);
        }
        if !self.equivalent {
            return None;
        }
        // Another group and version of the same objects is as good, unless it is to be exactly this one.
        let resources = attributes.registry.resources();
        let mut equal = resources.iter().filter(|row| row.info().storage == attributes.info.storage);
        equal.find(|row| in_version(row.info())).map(|row| Match::Equivalent(Resource::clone(row)))
    }
}

/// One that is left out selects everything.
pub(crate) fn selector(
    selector: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
) -> Result<LabelSelector, LabelSelectorError> {
    LabelSelector::from_object(Some(&selector.unwrap_or_default()))
}

fn one_of(values: &Option<Vec<String>>, value: &str) -> bool {
    values.iter().flatten().any(|known| known == "*" || known == value)
}

/// Whether a rule is about what is done to the resource, in some group and version. A resource has the same name in all.
fn is_about(Rule { rule, names }: &Rule, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => !attributes.namespace.is_empty(),
        Some("Cluster") => attributes.namespace.is_empty(),
        _ => true,
    };
    let subresource = attributes.subresource.map(Subresource::name).unwrap_or_default();
    let resource = rule.resources.iter().flatten().any(|resource| {
        let (name, below) = resource.split_once('/').unwrap_or((resource, ""));
        (name == "*" || name == attributes.info.plural) && (below == subresource || below == "*")
    });
    let named =
        || names.is_empty() || names.iter().any(|name| name == attributes.object_name(object.or(attributes.old)));
    resource && scope && one_of(&rule.operations, attributes.operation.as_str()) && named()
}

fn is_in_version(rule: &RuleWithOperations, info: &ResourceInfo) -> bool {
    one_of(&rule.api_groups, &info.group) && one_of(&rule.api_versions, &info.version)
}

/// The namespace of the object, or the object where it is one; other objects of the cluster always fit.
fn namespace_fits(scope: &Scope, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
    let is_namespace = &*attributes.info.storage == NAMESPACES;
    if scope.namespaces.is_everything() || (attributes.namespace.is_empty() && !is_namespace) {
        return true;
    }
    if is_namespace {
        return scope.namespaces.matches_option(object.and_then(|object| object.meta().labels.as_ref()));
    }
    let entry = namespace_of(attributes);
    scope.namespaces.matches_by(|name| entry.as_ref()?.attributes.label(name))
}

/// The namespace that a request is about objects of, as it is stored.
pub(crate) fn namespace_of(attributes: &Attributes<'_>) -> Option<std::sync::Arc<Entry>> {
    if attributes.namespace.is_empty() || &*attributes.info.storage == NAMESPACES {
        return None;
    }
    let resources = attributes.registry.resources();
    let place = Target::object(resources.get("", "v1", "namespaces")?, "", attributes.namespace);
    attributes.registry.lookup(&place)
}

/// Why nobody can tell what a request is about: its namespace is not there.
pub(crate) fn missing_namespace(attributes: &Attributes<'_>) -> Option<ApiError> {
    let within = !attributes.namespace.is_empty() && &*attributes.info.storage != NAMESPACES;
    if !within || namespace_of(attributes).is_some() {
        return None;
    }
    let resources = attributes.registry.resources();
    let namespaces = resources.get("", "v1", "namespaces")?;
    Some(ApiError::not_found(&namespaces.info().group_resource, attributes.namespace))
}

/// Upstream: the object as it is or as it will be, one of both is enough. The options of a connection can have no labels, so
/// no selector selects them.
fn objects_fit(scope: &Scope, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
    let selected = |object: &dyn Object| scope.objects.matches_option(attributes.codec.labels(object));
    scope.objects.is_everything()
        || (attributes.operation != Operation::Connect && [object, attributes.old].into_iter().flatten().any(selected))
}
