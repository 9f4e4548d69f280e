//! Rights do not grow by writing them down: who writes a role must have what it gives, who binds one too, unless the
//! verbs `escalate` and `bind` say otherwise.

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};
use machinery::GroupResource;
use machinery::status::ApiError;
use registry::{Attempt, Object, User};

use super::rbac::Rbac;
use super::rules::{describe, quoted, uncovered};
use super::{Attributes, Authorizer, Decision, Target};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that gives more than its writer has.
pub(super) fn check(rbac: &Rbac, attempt: &Attempt<'_>) -> Result<(), ApiError> {
    let Some(new) = attempt.new.filter(|_| attempt.target.resource.info().group == GROUP) else { return Ok(()) };
    let writer = Writer { rbac, attempt, name: new.meta().name.as_deref().unwrap_or_default() };
    if let Some(role) = cast::<Role>(new) {
        let old = attempt.old.and_then(cast::<Role>);
        return writer.role(&role.rules, old.map(|old| &old.rules), &None, &None);
    }
    if let Some(role) = cast::<ClusterRole>(new) {
        let old = attempt.old.and_then(cast::<ClusterRole>);
        let old_rule = old.map_or(&None, |old| &old.aggregation_rule);
        return writer.role(&role.rules, old.map(|old| &old.rules), &role.aggregation_rule, old_rule);
    }
    if let Some(binding) = cast::<RoleBinding>(new) {
        let old = attempt.old.and_then(cast::<RoleBinding>);
        let same = old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref);
        return if same { Ok(()) } else { writer.binding(&binding.role_ref) };
    }
    if let Some(binding) = cast::<ClusterRoleBinding>(new) {
        let old = attempt.old.and_then(cast::<ClusterRoleBinding>);
        let same = old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref);
        return if same { Ok(()) } else { writer.binding(&binding.role_ref) };
    }
    Ok(())
}

fn cast<T: 'static>(object: &dyn Object) -> Option<&T> {
    object.as_any().downcast_ref()
}

struct Writer<'a> {
    rbac: &'a Rbac,
    attempt: &'a Attempt<'a>,
    name: &'a str,
}

impl Writer<'_> {
    fn user(&self) -> &User {
        self.attempt.user
    }

    fn namespace(&self) -> &str {
        &self.attempt.target.namespace
    }

    fn role(
        &self,
        rules: &Option<Vec<PolicyRule>>,
        old: Option<&Option<Vec<PolicyRule>>>,
        gathers: &Option<AggregationRule>,
        gathered: &Option<AggregationRule>,
    ) -> Result<(), ApiError> {
        let resource = &self.attempt.target.resource.info().plural;
        // Nothing but the metadata changes: that gives nobody anything.
        if old == Some(rules) && gathers == gathered || self.may("escalate", resource, self.name, self.namespace()) {
            return Ok(());
        }
        if (gathers.is_some() || gathered.is_some()) && !self.missing(&everything()).is_empty() {
            return Err(self.refuse("must have cluster-admin privileges to use the aggregationRule".to_owned()));
        }
        self.hold(rules.as_deref().unwrap_or_default())
    }

    fn binding(&self, role: &RoleRef) -> Result<(), ApiError> {
        let (resource, namespace) = match role.kind.as_str() {
            "ClusterRole" => ("clusterroles", ""),
            _ => ("roles", self.namespace()),
        };
        if self.may("bind", resource, &role.name, self.namespace()) {
            return Ok(());
        }
        let rules = self.rbac.policy().role(namespace, role).cloned();
        let Some(rules) = rules else {
            return Err(ApiError::not_found(&GroupResource::from_static(GROUP, resource), &role.name));
        };
        self.hold(&rules)
    }

    /// Whether the writer has an explicit right that makes all of this no question.
    fn may(&self, verb: &str, resource: &str, name: &str, namespace: &str) -> bool {
        let target = Target::Resource { group: GROUP, version: "v1", resource, subresource: "", namespace, name };
        let decision = self.rbac.authorize(&Attributes { user: self.user(), verb, target });
        matches!(decision, Decision::Allow(_))
    }

    fn hold(&self, rules: &[PolicyRule]) -> Result<(), ApiError> {
        let missing = self.missing(rules);
        if missing.is_empty() {
            return Ok(());
        }
        let user = self.user();
        Err(self.refuse(format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted(&user.groups),
            describe(missing).join("\n")
        )))
    }

    fn missing(&self, rules: &[PolicyRule]) -> Vec<PolicyRule> {
        let policy = self.rbac.policy();
        let (held, _) = policy.rules(self.user(), self.namespace());
        uncovered(&held, rules)
    }

    fn refuse(&self, why: String) -> ApiError {
        ApiError::forbidden(&self.attempt.target.resource.info().group_resource, self.name, why)
    }
}

/// What a role that gathers rules could come to hold.
fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() },
    ]
}
