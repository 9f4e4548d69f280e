//! Which writes a webhook or a policy is about.

use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;

use machinery::selector::LabelSelector;

use super::{Attributes, Operation};
use crate::kind::Subresource;
use crate::object::Object;
use crate::request::Target;
use crate::table::ResourceInfo;

/// Who the server itself is.
const SERVER: &str = "system:apiserver";

/// What no webhook is asked about. Upstream (`pkg/admission/plugin/webhook/predicates/rules`): a webhook must not stand in
/// the way of its own removal. Deviation: nor is one asked about what the server itself writes to get started.
pub(crate) fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.info.group == "admissionregistration.k8s.io" || attributes.user.name == SERVER
}

/// What a webhook or a policy wants to be asked about.
pub(crate) struct Scope {
    pub(crate) rules: Vec<RuleWithOperations>,
    /// Whether other versions of the same resource are meant as well.
    pub(crate) equivalent: bool,
    pub(crate) namespaces: LabelSelector,
    pub(crate) objects: LabelSelector,
}

impl Scope {
    /// Whether a write is within it.
    pub(crate) fn holds(&self, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
        let info = attributes.info;
        let resources = attributes.registry.resources();
        // Another group and version of the same objects is as good, unless it is to be exactly this one.
        let equal = resources.iter().filter(|row| self.equivalent && row.info().storage == info.storage);
        let infos: Vec<&ResourceInfo> = std::iter::once(info).chain(equal.map(|row| row.info())).collect();
        let ruled = self.rules.iter().any(|rule| infos.iter().any(|info| rule_fits(rule, info, attributes)));
        ruled && namespace_fits(self, attributes, object.or(attributes.old)) && objects_fit(self, attributes, object)
    }
}

fn rule_fits(rule: &RuleWithOperations, info: &ResourceInfo, attributes: &Attributes<'_>) -> bool {
    let one_of =
        |values: &Option<Vec<String>>, value: &str| values.iter().flatten().any(|known| known == "*" || known == value);
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => !attributes.namespace.is_empty(),
        Some("Cluster") => attributes.namespace.is_empty(),
        _ => true,
    };
    let subresource = attributes.subresource.map(Subresource::name).unwrap_or_default();
    let resource = rule.resources.iter().flatten().any(|resource| {
        let (name, below) = resource.split_once('/').unwrap_or((resource, ""));
        (name == "*" || name == info.plural) && (below == subresource || below == "*")
    });
    one_of(&rule.operations, attributes.operation.as_str())
        && one_of(&rule.api_groups, &info.group)
        && one_of(&rule.api_versions, &info.version)
        && resource
        && scope
}

/// The namespace of the object, or the object where it is one; other objects of the cluster always fit.
fn namespace_fits(scope: &Scope, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
    let is_namespace = &*attributes.info.storage == "core/namespaces";
    if scope.namespaces.is_everything() || (attributes.namespace.is_empty() && !is_namespace) {
        return true;
    }
    if is_namespace {
        return scope.namespaces.matches_option(object.and_then(|object| object.meta().labels.as_ref()));
    }
    let resources = attributes.registry.resources();
    let Some(namespaces) = resources.get("", "v1", "namespaces") else { return true };
    let place = Target::object(namespaces, "", attributes.namespace);
    let entry = attributes.registry.lookup(&place);
    let label = |name: &str| {
        let labels = &entry.as_ref()?.attributes.labels;
        labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    };
    scope.namespaces.matches_by(label)
}

/// Upstream: the object as it is or as it will be, one of both is enough. The options of a connection can have no labels, so
/// no selector selects them.
fn objects_fit(scope: &Scope, attributes: &Attributes<'_>, object: Option<&dyn Object>) -> bool {
    let selected = |object: &dyn Object| scope.objects.matches_option(attributes.codec.labels(object));
    scope.objects.is_everything()
        || (attributes.operation != Operation::Connect && [object, attributes.old].into_iter().flatten().any(selected))
}
