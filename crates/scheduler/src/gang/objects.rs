//! Groups and queues as objects: kinds that the addon may define in the cluster, or not.

use std::time::Duration;

use informer::{Informer, Informers};
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client};
use machinery::addon::{GANG, installed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::spec::{Group, Queue};
use super::{queue_status, status};
use crate::types::{Family, GroupKey};

/// Lists of a kind that was defined a moment ago may fail.
const SETTLE: Duration = Duration::from_millis(200);
/// So long a start waits for groups that are known to be there. Their members wait for them in any case; this only saves
/// them from being told that their group does not exist.
const LISTED: Duration = Duration::from_secs(2);

/// A change of what the scheduler knows of groups and queues.
#[derive(Debug)]
pub(crate) enum GangEvent {
    /// The addon has defined the kind, or it is so no longer.
    Family(Family, bool),
    /// A group came, changed or went.
    Group(GroupKey, Option<Group>),
    /// A queue came, changed or went.
    Queue(String, Option<Queue>),
}

/// A resource whose definition the addon may bring.
#[derive(Clone, Copy)]
struct GangResource {
    definition: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    family: Family,
}

const RESOURCES: [GangResource; 3] = [
    GangResource {
        definition: "podgroups.scheduling.x-k8s.io",
        group: "scheduling.x-k8s.io",
        version: "v1alpha1",
        kind: "PodGroup",
        plural: "podgroups",
        family: Family::Coscheduling,
    },
    GangResource {
        definition: "podgroups.scheduling.volcano.sh",
        group: "scheduling.volcano.sh",
        version: "v1beta1",
        kind: "PodGroup",
        plural: "podgroups",
        family: Family::Volcano,
    },
    GangResource {
        definition: "queues.scheduling.volcano.sh",
        group: "scheduling.volcano.sh",
        version: "v1beta1",
        kind: "Queue",
        plural: "queues",
        family: Family::Volcano,
    },
];

impl GangResource {
    fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }
}

/// Counts the kinds of which it is known whether they are defined.
pub(crate) type Known = watch::Receiver<usize>;

/// Waits until it is known which pods wait for a group. Decisions made earlier would tear gangs apart.
pub(crate) async fn known(mut known: Known) {
    // It fails only if nobody watches any more.
    let _ = known.wait_for(|count| *count >= RESOURCES.len()).await;
}

/// Watches the kinds, for as long as the addon defines them, and keeps the status of groups and queues, until `cancel` is triggered.
pub(crate) async fn watch(
    client: Client,
    informers: Informers,
    send: impl Fn(GangEvent) + Clone + Send + Sync + 'static,
    known: watch::Sender<usize>,
    cancel: CancellationToken,
) {
    let volcano = watch::Sender::new(None);
    let follow = |kind| {
        follow(kind, client.clone(), informers.clone(), volcano.clone(), send.clone(), known.clone(), cancel.clone())
    };
    futures::future::join_all(RESOURCES.map(follow)).await;
}

/// Follows one kind: each time the addon defines it, its objects are watched until it is gone again. `volcano` holds the groups of
/// Volcano while these are watched.
async fn follow(
    kind: GangResource,
    client: Client,
    informers: Informers,
    volcano: watch::Sender<Option<status::Objects>>,
    send: impl Fn(GangEvent) + Clone + Send + Sync + 'static,
    known: watch::Sender<usize>,
    cancel: CancellationToken,
) {
    let mut known = Some(known);
    let mut count_known = move || {
        if let Some(known) = known.take() {
            known.send_modify(|count| *count += 1);
        }
    };
    let definitions = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        "customresourcedefinitions",
    );
    let config = watcher::Config::default().fields(&format!("metadata.name={}", kind.definition)).streaming_lists();
    let informer =
        Informer::start_dynamic(&definitions, Api::all_with(client.clone(), &definitions), config, cancel.clone());
    let (defined, mut changes) = watch::channel(false);
    informer.on_change(move |change| {
        let ours = change.new.as_ref().is_some_and(|definition| is_ours(definition));
        defined.send_if_modified(|defined| std::mem::replace(defined, ours) != ours);
    });
    tokio::select! {
        () = cancel.cancelled() => return,
        () = informer.synced() => {}
    }
    let mut at_start = *changes.borrow();
    if !at_start {
        count_known();
    }
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            defined = changes.wait_for(|defined| *defined) => if defined.is_err() { return },
        }
        // From here on members wait, and be it for a group that is not heard of yet.
        if kind.kind == "PodGroup" {
            send(GangEvent::Family(kind.family, true));
        }
        if !std::mem::take(&mut at_start) {
            tokio::time::sleep(SETTLE).await;
        }
        let until = cancel.child_token();
        let objects: status::Objects = Informer::start_dynamic(
            &kind.resource(),
            Api::all_with(client.clone(), &kind.resource()),
            watcher::Config::default().streaming_lists(),
            until.clone(),
        );
        let listed = async {
            if tokio::time::timeout(LISTED, objects.synced()).await.is_err() {
                count_known();
                objects.synced().await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = listed => {}
        }
        let sender = send.clone();
        objects.on_change(move |change| {
            let key = change.key();
            let object = change.new.as_ref().map(|object| &object.data);
            sender(match kind.kind {
                "Queue" => GangEvent::Queue(key.name, object.map(Queue::read)),
                _ => {
                    let family = kind.family;
                    let group = object.map(|object| Group::read(family, object));
                    GangEvent::Group(GroupKey { family, namespace: key.namespace, name: key.name }, group)
                }
            });
        });
        count_known();
        let keeper = async {
            let (client, resource, objects) = (client.clone(), kind.resource(), objects.clone());
            let (pods, until) = (informers.informer(), until.clone());
            if kind.kind == "Queue" {
                let work = informers.queue("volcano_queue");
                return queue_status::keep(work, client, resource, objects, volcano.subscribe(), pods, until).await;
            }
            let shares = kind.family == Family::Volcano;
            if shares {
                volcano.send_replace(Some(objects.clone()));
            }
            let work = informers.queue(if shares { "volcano_pod_group" } else { "pod_group" });
            status::keep(work, kind.family, client, resource, objects, pods, until).await;
            if shares {
                volcano.send_replace(None);
            }
        };
        let gone = async {
            let _ = changes.wait_for(|defined| !*defined).await;
            until.cancel();
        };
        futures::join!(keeper, async {
            tokio::select! {
                () = cancel.cancelled() => until.cancel(),
                () = gone => {}
            }
        });
        for object in objects.list() {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            let name = object.metadata.name.clone().unwrap_or_default();
            send(match kind.kind {
                "Queue" => GangEvent::Queue(name, None),
                _ => GangEvent::Group(GroupKey { family: kind.family, namespace, name }, None),
            });
        }
        if kind.kind == "PodGroup" {
            send(GangEvent::Family(kind.family, false));
        }
    }
}

/// Whether a definition is the addon's, and its kind is served.
fn is_ours(definition: &DynamicObject) -> bool {
    let conditions = definition.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    installed(definition.metadata.labels.as_ref(), GANG)
        && conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn only_the_addons_kinds_are_scheduled_by() {
        let check = |labels: Value, established: &str, expected: bool| {
            let definition = from_value(json!({
                "metadata": { "name": "podgroups.scheduling.volcano.sh", "labels": labels },
                "status": { "conditions": [{ "type": "Established", "status": established }] },
            }));
            assert_eq!(is_ours(&definition.expect("an object")), expected, "{labels} {established}");
        };
        check(json!({}), "True", false);
        check(json!({ "app.kubernetes.io/managed-by": "Helm" }), "True", false);
        check(json!({ "coracle.dev/addon": "lws" }), "True", false);
        check(json!({ "coracle.dev/addon": "gang" }), "False", false);
        check(json!({ "coracle.dev/addon": "gang" }), "True", true);
    }
}
