//! Which writes a webhook or a policy is about.

use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;

use machinery::selector::LabelSelector;

use super::Asked;
use crate::Registry;
use crate::kind::Subresource;
use crate::ops::Object;
use crate::request::Target;
use crate::table::ResourceInfo;

/// Who the server itself is.
const SERVER: &str = "system:apiserver";

/// Writes that no webhook is asked about. Upstream: a webhook must not stand in the way of its own removal.
pub(crate) fn is_exempt(asked: &Asked<'_>) -> bool {
    let info = asked.target.resource.info();
    // The number of replicas is changed in the workload itself here; who wants to see that looks at the workload.
    info.group == "admissionregistration.k8s.io"
        || asked.user.name == SERVER
        || asked.subresource == Some(Subresource::Scale)
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
    pub(crate) fn holds(
        &self,
        registry: &Registry,
        asked: &Asked<'_>,
        object: Option<&dyn Object>,
        old: Option<&dyn Object>,
    ) -> bool {
        let info = asked.target.resource.info();
        let resources = registry.resources();
        // Another group and version of the same objects is as good, unless it is to be exactly this one.
        let equal = resources.iter().filter(|row| self.equivalent && row.info().storage == info.storage);
        let infos: Vec<&ResourceInfo> = std::iter::once(info).chain(equal.map(|row| row.info())).collect();
        let ruled = self.rules.iter().any(|rule| infos.iter().any(|info| rule_fits(rule, info, asked)));
        ruled && namespace_fits(registry, self, asked, object.or(old)) && objects_fit(self, object, old)
    }
}

fn rule_fits(rule: &RuleWithOperations, info: &ResourceInfo, asked: &Asked<'_>) -> bool {
    let one_of =
        |values: &Option<Vec<String>>, value: &str| values.iter().flatten().any(|known| known == "*" || known == value);
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => !asked.target.namespace.is_empty(),
        Some("Cluster") => asked.target.namespace.is_empty(),
        _ => true,
    };
    let subresource = asked.subresource.map(Subresource::name).unwrap_or_default();
    let resource = rule.resources.iter().flatten().any(|resource| {
        let (name, below) = resource.split_once('/').unwrap_or((resource, ""));
        (name == "*" || name == info.plural) && (below == subresource || below == "*")
    });
    one_of(&rule.operations, asked.operation.as_str())
        && one_of(&rule.api_groups, &info.group)
        && one_of(&rule.api_versions, &info.version)
        && resource
        && scope
}

/// The namespace of the object, or the object where it is one; other objects of the cluster always fit.
fn namespace_fits(registry: &Registry, scope: &Scope, asked: &Asked<'_>, object: Option<&dyn Object>) -> bool {
    let is_namespace = &*asked.target.resource.info().storage == "core/namespaces";
    if scope.namespaces.is_everything() || (asked.target.namespace.is_empty() && !is_namespace) {
        return true;
    }
    if is_namespace {
        return scope.namespaces.matches_option(object.and_then(|object| object.meta().labels.as_ref()));
    }
    let resources = registry.resources();
    let Some(namespaces) = resources.get("", "v1", "namespaces") else { return true };
    let place = Target::object(namespaces, "", asked.target.namespace.clone());
    let entry = registry.lookup(&place);
    let label = |name: &str| {
        let labels = &entry.as_ref()?.attributes.labels;
        labels.iter().find(|(key, _)| &**key == name).map(|(_, value)| &**value)
    };
    scope.namespaces.matches_by(label)
}

/// Upstream: the object as it is or as it will be, one of both is enough.
fn objects_fit(scope: &Scope, object: Option<&dyn Object>, old: Option<&dyn Object>) -> bool {
    scope.objects.is_everything()
        || [object, old].into_iter().flatten().any(|object| scope.objects.matches_option(object.meta().labels.as_ref()))
}
