//! ClusterRoles that gather the rules of others: whoever wears the label a role asks for becomes part of it.
//!
//! Watches ClusterRoles; owns the rules of those with an `aggregationRule`.

use std::sync::Arc;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Client;
use kube::api::PostParams;
use machinery::LabelSelector;

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};

/// The rules that `role` should have, given all roles, ordered by name; none when it has them, or gathers nothing.
pub(crate) fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Result<Option<Vec<PolicyRule>>, Error> {
    let Some(aggregation) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let selector = LabelSelector::from_object(Some(selector))?;
        let others = all.iter().filter(|other| other.metadata.name != role.metadata.name);
        for other in others {
            let labels = other.metadata.labels.clone().unwrap_or_default();
            if !selector.matches(&labels) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    let present = role.rules.as_deref().unwrap_or_default();
    Ok((rules != present).then_some(rules))
}

/// The controller of aggregated ClusterRoles.
pub(crate) struct ClusterRoleAggregation {
    client: Client,
    roles: Informer<ClusterRole>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for ClusterRoleAggregation {
    const NAME: &'static str = "ClusterRoleAggregator";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self { client: context.client.clone(), roles: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let controller = Arc::clone(self);
        self.roles.on_change(move |change| {
            let roles = controller.roles.list();
            let gathering = roles.iter().filter(|role| role.aggregation_rule.is_some());
            gathering.for_each(|role| controller.queue.add(ObjectKey::of(&**role), change.cause()));
        });
    }

    async fn synced(&self) {
        self.roles.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(role) = self.roles.get(key) else {
            return Ok(Action::AwaitChange.because("the role is gone"));
        };
        let mut all = self.roles.list();
        all.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        if let Some(rules) = plan(&role, &all)? {
            let wanted = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
            let api: Api<ClusterRole> = Api::all(self.client.clone());
            ok_if_not_found(api.replace(&key.name, &PostParams::default(), &wanted).await)?;
        }
        Ok(Action::AwaitChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labelled_roles_become_part() {
        let role = |value| Arc::new(serde_json::from_value::<ClusterRole>(value).expect("a role"));
        let rule = |verb: &str| json!({ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] });
        let selector = json!({ "clusterRoleSelectors": [{ "matchLabels": { "to": "view" } }] });
        let view = |rules| {
            role(json!({ "metadata": { "name": "view", "labels": { "to": "view" } },
                "aggregationRule": selector, "rules": rules }))
        };
        let part = |name: &str, to: &str, verb: &str| {
            role(json!({ "metadata": { "name": name, "labels": { "to": to } }, "rules": [rule(verb)] }))
        };
        let all =
            [part("a", "view", "list"), part("b", "view", "get"), part("c", "view", "list"), part("d", "x", "watch")];
        let expect = json!([rule("list"), rule("get")]);
        let rules = plan(&view(json!([])), &all).expect("a good selector").expect("something to do");
        assert_eq!(json!(rules), expect);
        assert!(plan(&view(expect), &all).expect("a good selector").is_none());
        assert!(plan(&all[0], &all).expect("no selector").is_none());
    }
}
