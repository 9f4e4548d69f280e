//! ResourceQuotas: what a namespace uses is counted when a quota is new or changes, and again from time to time.
//!
//! In between the API server keeps the count: it charges every write in the same commit. A quota that is not counted
//! yet changes with every write it is about, so that a count which missed one is refused as a conflict, and done again.
//! Against an API server that charges creations only, as upstream's does, deletions are noticed by the next count.

use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Cause, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Client;
use kube::api::{DynamicObject, ListParams, PostParams};
use machinery::gvk::GroupResource;
use machinery::quantity::Quantity;
use machinery::quota::{self, Amounts, Counted};

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::discovery;

/// How often everything is counted again: upstream's default.
const RESYNC: Duration = Duration::from_secs(300);

/// The status of a quota whose namespace holds these objects; `None` when it says so already.
pub(crate) fn plan(quota: &ResourceQuota, objects: &[Counted<'_>]) -> Option<ResourceQuotaStatus> {
    let spec = quota.spec.clone().unwrap_or_default();
    let hard = quota::parse(spec.hard.as_ref());
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for object in objects.iter().filter(|object| quota::matches(&spec, **object)) {
        for (name, amount) in quota::usage(*object) {
            if let Some(sum) = used.get_mut(&name) {
                *sum += amount;
            }
        }
    }
    let status = ResourceQuotaStatus { hard: spec.hard, used: Some(quota::write(&used)) };
    (quota.status.as_ref() != Some(&status)).then_some(status)
}

/// The controller of the status of ResourceQuotas.
pub(crate) struct ResourceQuotas {
    client: Client,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for ResourceQuotas {
    const NAME: &'static str = "resourcequota_primary";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self { client: context.client.clone(), quotas: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.quotas.on_change(move |change| {
            if asks_for_count(change.old.as_deref(), change.new.as_deref()) {
                queue.add_changed(change);
            }
        });
    }

    async fn synced(&self) {
        self.quotas.synced().await;
        // What changed while nobody counted is not known.
        for quota in self.quotas.list() {
            self.queue.add(ObjectKey::of(&*quota), Cause::new("the start"));
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        if self.quotas.get(key).is_none() {
            return Ok(Action::AwaitChange.because("the quota is gone"));
        }
        let client = &self.client;
        // First the quota, then what it counts: who writes in between makes the status below a conflict.
        let api: Api<ResourceQuota> = Api::namespaced(client.clone(), &key.namespace);
        let Some(mut quota) = ok_if_not_found(api.get(&key.name).await)? else { return Ok(Action::AwaitChange) };
        let spec = quota.spec.clone().unwrap_or_default();
        let limits = |object: Counted<'_>| spec.hard.iter().flatten().any(|(name, _)| quota::concerns(object, name));
        let (pods, services, claims) = (Pod::default(), Service::default(), PersistentVolumeClaim::default());
        let pods = list::<Pod>(client, key, limits(Counted::Pod(&pods))).await?;
        let services = list::<Service>(client, key, limits(Counted::Service(&services))).await?;
        let claims = list::<PersistentVolumeClaim>(client, key, limits(Counted::Claim(&claims))).await?;
        let others = count_others(client, key, &spec).await?;
        let mut objects: Vec<Counted<'_>> = pods.iter().map(Counted::Pod).collect();
        objects.extend(services.iter().map(Counted::Service));
        objects.extend(claims.iter().map(Counted::Claim));
        for (resource, count) in &others {
            objects.extend(std::iter::repeat_n(Counted::Other(resource), *count));
        }
        if let Some(status) = plan(&quota, &objects) {
            quota.status = Some(status);
            ok_if_not_found(api.replace_status(&key.name, &PostParams::default(), &quota).await)?;
        }
        Ok(Action::RequeueAfter(RESYNC))
    }
}

/// Whether a change of a quota is one after which all must be counted. What the API server charges, with every write in
/// the namespace, is none: it is no request, and leaves the field managers as they are.
fn asks_for_count(old: Option<&ResourceQuota>, new: Option<&ResourceQuota>) -> bool {
    fn writers(quota: &ResourceQuota) -> Vec<&ManagedFieldsEntry> {
        let entries = quota.metadata.managed_fields.iter().flatten();
        entries.filter(|entry| entry.subresource.as_deref() == Some("status")).collect()
    }
    match (old, new) {
        (_, Some(new)) if !is_counted(new) => true,
        (Some(old), Some(new)) => old.status != new.status && writers(old) != writers(new),
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

fn is_counted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    quota.status.as_ref().is_some_and(|status| status.hard.as_ref() == hard)
}

async fn list<K>(client: &Client, key: &ObjectKey, wanted: bool) -> Result<Vec<K>, Error>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    if !wanted {
        return Ok(Vec::new());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// How many there are of each other kind that the quota limits.
async fn count_others(
    client: &Client,
    key: &ObjectKey,
    spec: &ResourceQuotaSpec,
) -> Result<Vec<(GroupResource, usize)>, Error> {
    let special = ["pods", "services", "persistentvolumeclaims"];
    let names: Vec<&str> = spec.hard.iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut counts = Vec::new();
    let plain = |name: &&str| name.starts_with("count/") || (!name.contains('.') && !name.contains('/'));
    if !names.iter().any(plain) {
        return Ok(counts);
    }
    for kind in discovery::kinds(client).await?.into_iter().filter(|kind| kind.namespaced) {
        let resource = GroupResource::new(kind.resource.group.clone(), kind.resource.plural.clone());
        let limited = names.iter().any(|name| quota::concerns(Counted::Other(&resource), name));
        if !limited || (resource.group.is_empty() && special.contains(&resource.resource.as_ref())) {
            continue;
        }
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &kind.resource);
        let count = api.list_metadata(&ListParams::default()).await?.items.len();
        counts.push((resource, count));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_there_is_counted() {
        let secret = GroupResource::new("", "secrets");
        let pod: Pod = from_value(json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "a", "resources": { "requests": { "cpu": "500m" } } }] },
        }))
        .expect("a pod");
        let mut ended = pod.clone();
        ended.status = from_value(json!({ "phase": "Failed" })).expect("a status");
        let objects = [Counted::Pod(&pod), Counted::Pod(&pod), Counted::Pod(&ended), Counted::Other(&secret)];
        let hard = json!({ "pods": "5", "count/pods": "9", "requests.cpu": "2", "secrets": "1", "limits.cpu": "4" });
        let mut quota: ResourceQuota =
            from_value(json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } })).expect("a quota");
        let status = plan(&quota, &objects).expect("a status");
        let expect = json!({ "pods": "2", "count/pods": "3", "requests.cpu": "1", "secrets": "1", "limits.cpu": "0" });
        assert_eq!(serde_json::to_value(&status).expect("JSON"), json!({ "hard": hard, "used": expect }));
        assert!(!is_counted(&quota));
        quota.status = Some(status);
        assert!(is_counted(&quota));
        assert_eq!(plan(&quota, &objects), None);
    }

    #[test]
    fn what_others_write_into_the_status_is_counted_again() {
        let quota = |hard: &str, used: &str, writer: Option<&str>| -> ResourceQuota {
            let entry = |writer| json!({ "manager": writer, "operation": "Update", "subresource": "status" });
            from_value(json!({
                "metadata": { "name": "q", "managedFields": writer.map(entry).into_iter().collect::<Vec<_>>() },
                "spec": { "hard": { "pods": hard } },
                "status": { "hard": { "pods": "5" }, "used": { "pods": used } },
            }))
            .expect("a quota")
        };
        let counted = quota("5", "1", Some("controllers"));
        for (old, new, expect) in [
            (None, Some(&counted), false),
            (Some(&counted), None, true),
            // Charged by the API server.
            (Some(&counted), Some(&quota("5", "2", Some("controllers"))), false),
            (Some(&counted), Some(&quota("5", "9", Some("kubectl-patch"))), true),
            (Some(&counted), Some(&quota("5", "1", Some("kubectl-label"))), false),
            (Some(&counted), Some(&quota("6", "1", Some("controllers"))), true),
        ] {
            assert_eq!(asks_for_count(old, new), expect, "{old:?} {new:?}");
        }
    }
}
