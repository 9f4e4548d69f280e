//! Rights do not grow by writing them down: who writes a role must have what it gives, who binds one too, unless the
//! verbs `escalate` and `bind` say otherwise.

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};
use machinery::GroupResource;
use machinery::Verb;
use machinery::status::ApiError;
use registry::{User, WriteAttributes, cast};

use super::rbac::Rbac;
use super::rules::{describe, quoted, uncovered};
use super::{Attributes, Authorizer, Decision, Target};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that gives more than its writer has.
pub(super) fn check(rbac: &Rbac, write: &WriteAttributes<'_>) -> Result<(), ApiError> {
    let info = write.target.resource.info();
    let Some(new) = write.new.filter(|_| info.group == GROUP) else { return Ok(()) };
    let writer = Writer { rbac, write, name: new.meta().name.as_deref().unwrap_or_default() };
    match info.plural.as_str() {
        "roles" => {
            let (role, old): (&Role, _) = (cast(new)?, write.old.map(cast::<Role>).transpose()?);
            writer.role(&role.rules, old.map(|old| &old.rules), &None, &None)
        }
        "clusterroles" => {
            let (role, old): (&ClusterRole, _) = (cast(new)?, write.old.map(cast::<ClusterRole>).transpose()?);
            let old_rule = old.map_or(&None, |old| &old.aggregation_rule);
            writer.role(&role.rules, old.map(|old| &old.rules), &role.aggregation_rule, old_rule)
        }
        "rolebindings" => {
            let (binding, old): (&RoleBinding, _) = (cast(new)?, write.old.map(cast::<RoleBinding>).transpose()?);
            let same = old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref);
            if same { Ok(()) } else { writer.binding(&binding.role_ref) }
        }
        "clusterrolebindings" => {
            let binding: &ClusterRoleBinding = cast(new)?;
            let old = write.old.map(cast::<ClusterRoleBinding>).transpose()?;
            let same = old.is_some_and(|old| old.subjects == binding.subjects && old.role_ref == binding.role_ref);
            if same { Ok(()) } else { writer.binding(&binding.role_ref) }
        }
        other => Err(ApiError::internal(format!("nobody knows what rights {other} of {GROUP} give"))),
    }
}

struct Writer<'a> {
    rbac: &'a Rbac,
    write: &'a WriteAttributes<'a>,
    name: &'a str,
}

impl Writer<'_> {
    fn user(&self) -> &User {
        self.write.user
    }

    fn namespace(&self) -> &str {
        &self.write.target.namespace
    }

    fn role(
        &self,
        rules: &Option<Vec<PolicyRule>>,
        old: Option<&Option<Vec<PolicyRule>>>,
        gathers: &Option<AggregationRule>,
        gathered: &Option<AggregationRule>,
    ) -> Result<(), ApiError> {
        let resource = &self.write.target.resource.info().plural;
        // Nothing but the metadata changes: that gives nobody anything.
        if old == Some(rules) && gathers == gathered || self.may(Verb::Escalate, resource, self.name, self.namespace())
        {
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
        if self.may(Verb::Bind, resource, &role.name, self.namespace()) {
            return Ok(());
        }
        let rules = self.rbac.policy().role(namespace, role).cloned();
        let Some(rules) = rules else {
            return Err(ApiError::not_found(&GroupResource::from_static(GROUP, resource), &role.name));
        };
        self.hold(&rules)
    }

    /// Whether the writer has an explicit right that makes all of this no question.
    fn may(&self, verb: Verb<'_>, resource: &str, name: &str, namespace: &str) -> bool {
        let target = Target::Resource { group: GROUP, version: "v1", resource, subresource: "", namespace, name };
        let decision = self.rbac.authorize(&Attributes::new(self.user(), verb, target));
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
        ApiError::forbidden(&self.write.target.resource.info().group_resource, self.name, why)
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
