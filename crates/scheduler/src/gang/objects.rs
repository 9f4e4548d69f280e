//! Groups and queues as objects: kinds that the addon may define in the cluster, or not.

use std::time::Duration;

use addon_gang::{coscheduling, volcano};
use addons::installed;
use informer::{Informer, Informers, ObjectKey};
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Api, Client, CustomResourceExt};
use serde_json::Value;
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

/// A kind whose definition the addon may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GangKind {
    /// The groups of a family.
    PodGroup(Family),
    /// Volcano's queues.
    Queue,
}

impl GangKind {
    const ALL: [Self; 3] = [Self::PodGroup(Family::Coscheduling), Self::PodGroup(Family::Volcano), Self::Queue];

    fn resource(self) -> ApiResource {
        match self {
            Self::PodGroup(Family::Coscheduling) => coscheduling::PodGroup::api_resource(),
            Self::PodGroup(Family::Volcano) => volcano::PodGroup::api_resource(),
            Self::Queue => volcano::Queue::api_resource(),
        }
    }

    /// The name of its CustomResourceDefinition.
    fn definition(self) -> &'static str {
        match self {
            Self::PodGroup(Family::Coscheduling) => coscheduling::PodGroup::crd_name(),
            Self::PodGroup(Family::Volcano) => volcano::PodGroup::crd_name(),
            Self::Queue => volcano::Queue::crd_name(),
        }
    }

    /// What is to be told of the object with this key: what it says, or that it is gone.
    fn event(self, key: ObjectKey, object: Option<&Value>) -> GangEvent {
        match self {
            Self::Queue => GangEvent::Queue(key.name, object.map(Queue::read)),
            Self::PodGroup(family) => {
                let group = object.map(|object| Group::read(family, object));
                GangEvent::Group(GroupKey { family, namespace: key.namespace, name: key.name }, group)
            }
        }
    }
}

/// Counts the kinds of which it is known whether they are defined.
pub(crate) type Known = watch::Receiver<usize>;

/// Waits until it is known which pods wait for a group. Decisions made earlier would tear gangs apart.
pub(crate) async fn known(mut known: Known) {
    // It fails only if nobody watches any more.
    let _ = known.wait_for(|count| *count >= GangKind::ALL.len()).await;
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
    futures::future::join_all(GangKind::ALL.map(follow)).await;
}

/// Follows one kind: each time the addon defines it, its objects are watched until it is gone again. `volcano` holds the groups of
/// Volcano while these are watched.
async fn follow(
    kind: GangKind,
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
    let config = watcher::Config::default().fields(&format!("metadata.name={}", kind.definition())).streaming_lists();
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
        if let GangKind::PodGroup(family) = kind {
            send(GangEvent::Family(family, true));
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
            sender(kind.event(change.key(), change.new.as_ref().map(|object| &object.data)));
        });
        count_known();
        let keeper = async {
            let (client, resource, objects) = (client.clone(), kind.resource(), objects.clone());
            let (pods, until) = (informers.informer(), until.clone());
            let GangKind::PodGroup(family) = kind else {
                let work = informers.queue("volcano_queue");
                return queue_status::keep(work, client, resource, objects, volcano.subscribe(), pods, until).await;
            };
            let shares = family == Family::Volcano;
            if shares {
                volcano.send_replace(Some(objects.clone()));
            }
            let work = informers.queue(if shares { "volcano_pod_group" } else { "pod_group" });
            status::keep(work, family, client, resource, objects, pods, until).await;
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
            send(kind.event(ObjectKey::of(&*object), None));
        }
        if let GangKind::PodGroup(family) = kind {
            send(GangEvent::Family(family, false));
        }
    }
}

/// Whether a definition is the addon's, and its kind is served.
fn is_ours(definition: &DynamicObject) -> bool {
    let conditions = definition.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    installed(definition.metadata.labels.as_ref(), addon_gang::NAME)
        && conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

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
