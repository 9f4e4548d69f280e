//! What changes of the cluster mean for the books and for the pods that wait.

use std::sync::Arc;

use informer::{Cause, Change};
use k8s_openapi::api::core::v1::Pod;
use machinery::phase::PodPhase;
use tokio::time::Instant;

use super::{Message, Scheduler};
use crate::config::GANG_SCHEDULERS;
use crate::framework::ClusterEvent;
use crate::gang::{self, GangEvent};
use crate::preempt::Budget;
use crate::profile::Profile;
use crate::types::{Candidate, GroupKey, NodeId};

impl Scheduler {
    pub(super) fn handle_message(&mut self, message: Message) {
        let cause = message.cause();
        match message {
            Message::Node(Change { new: Some(node), .. }) => {
                if let Some(node) = self.cache.set_node(node).map(|node| node.id) {
                    self.wake_for_node(node, &cause);
                }
            }
            Message::Node(change) => self.cache.remove_node(&change.key().name),
            Message::Pod(Change { new: Some(pod), .. }) => self.handle_pod(pod, &cause),
            Message::Pod(Change { old: Some(pod), .. }) => self.pod_left(&pod, &cause),
            Message::Pod(_) => {}
            Message::Namespace(change) => {
                let name = change.key().name;
                match change.new.and_then(|namespace| namespace.metadata.labels.clone()) {
                    Some(labels) => self.cache.namespaces.insert(name, labels),
                    None => self.cache.namespaces.remove(&name),
                };
            }
            Message::Claim(change) => {
                let key = change.key();
                let key = format!("{}/{}", key.namespace, key.name);
                match change.new {
                    Some(claim) => self.cache.storage.claims.insert(key, claim),
                    None => self.cache.storage.claims.remove(&key),
                };
                self.storage_changed(&cause);
            }
            Message::Volume(change) => {
                let name = change.key().name;
                match change.new {
                    Some(volume) => {
                        // From here on the object itself says whose it is.
                        if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
                            self.cache.storage.reserved.remove(&name);
                        }
                        self.cache.storage.volumes.insert(name, volume)
                    }
                    None => self.cache.storage.volumes.remove(&name),
                };
                self.storage_changed(&cause);
            }
            Message::Class(change) => {
                let name = change.key().name;
                match change.new {
                    Some(class) => self.cache.storage.classes.insert(name, class),
                    None => self.cache.storage.classes.remove(&name),
                };
                self.storage_changed(&cause);
            }
            Message::Budget(change) => {
                let key = change.key();
                match change.new {
                    Some(budget) => self.budgets.insert(key, Budget::new(&budget)),
                    None => self.budgets.remove(&key),
                };
            }
            Message::Gang(event) => self.handle_gang(event, &cause),
            Message::Preview(question) => self.handle_preview(question),
            Message::NotBound(uid) => {
                if let Some(pod) = self.cache.not_bound(&uid) {
                    self.cache.storage.reserved.retain(|_, claim| !pod.claims.contains(claim));
                    self.wake(&ClusterEvent::PodRemoved(&pod), &cause);
                }
                self.queue.refused(&uid, Default::default(), Instant::now());
            }
        }
    }

    fn handle_pod(&mut self, pod: Arc<Pod>, cause: &Cause) {
        let spec = pod.spec.as_ref();
        if PodPhase::of(&pod).is_some_and(PodPhase::is_terminal) {
            return self.pod_left(&pod, cause);
        }
        let node = spec.and_then(|spec| spec.node_name.as_deref());
        if let Some(node) = node.filter(|node| !node.is_empty()) {
            self.queue.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            if let Some(change) = self.cache.set_pod(node, &pod) {
                if change.appeared {
                    self.withdraw(&change.info.uid, Some(node));
                    self.wake(&ClusterEvent::PodAdded(&change.info), cause);
                }
                if change.scaled_down {
                    self.wake(&ClusterEvent::PodScaledDown(&change.info), cause);
                }
            }
            return;
        }
        let gates = spec.and_then(|spec| spec.scheduling_gates.as_ref());
        let gated = gates.is_some_and(|gates| !gates.is_empty());
        if self.profile_of(&pod).is_some() && !gated && pod.metadata.deletion_timestamp.is_none() {
            let pod = Candidate::new(pod);
            // Between a decision and the news of its binding the pod still looks as if it had no node.
            if self.cache.is_placed(&pod.uid) {
                return;
            }
            let new = !self.queue.contains(&pod.uid);
            if let Some(node) = pod.nominated().filter(|_| new) {
                self.cache.nominate(&pod.info, node);
            }
            let group = pod.group.clone();
            self.queue.add(pod, cause.clone(), Instant::now());
            if new && let Some(group) = group {
                self.wake_group(&group, cause);
            }
        } else {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            self.queue.remove(uid);
            self.withdraw(uid, None);
        }
    }

    fn pod_left(&mut self, pod: &Pod, cause: &Cause) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.remove(uid);
        self.withdraw(uid, None);
        if GroupKey::of(pod).is_some() {
            self.wake_queues(cause);
        }
        if let Some(info) = self.cache.remove_pod(uid) {
            self.wake(&ClusterEvent::PodRemoved(&info), cause);
        }
    }

    fn handle_gang(&mut self, event: GangEvent, cause: &Cause) {
        match event {
            GangEvent::Family(family, defined) => {
                self.groups.families.retain(|known| *known != family);
                if defined {
                    self.groups.families.push(family);
                }
                // Pods that name schedulers which are stood in for are ours from now on, or no longer.
                for pod in self.pods.list() {
                    let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
                    if name.is_some_and(|name| GANG_SCHEDULERS.contains(&(name, family))) {
                        self.handle_pod(pod, cause);
                    }
                }
            }
            GangEvent::Group(key, group) => match group {
                Some(group) => {
                    if self.groups.groups.get(&key) == Some(&group) {
                        return;
                    }
                    self.groups.groups.insert(key, group);
                }
                None => {
                    self.groups.settled(&key);
                    self.groups.groups.remove(&key);
                }
            },
            GangEvent::Queue(name, queue) => {
                match queue {
                    Some(queue) => self.groups.queues.insert(name, queue),
                    None => self.groups.queues.remove(&name),
                };
            }
        }
        self.queue.wake(cause, |_, refused_by| refused_by.get(gang::NAME).copied());
    }

    /// The profile that decides about `pod`; none if that is somebody else's affair.
    pub(super) fn profile_of(&self, pod: &Pod) -> Option<&Profile> {
        let name = pod.spec.as_ref()?.scheduler_name.as_deref()?;
        let own = self.config.profiles.iter().find(|profile| profile.scheduler_name == name);
        let families = &self.groups.families;
        let stands_in =
            self.config.stand_in && families.iter().any(|family| GANG_SCHEDULERS.contains(&(name, *family)));
        own.or_else(|| self.config.profiles.first().filter(|_| stands_in))
    }

    fn storage_changed(&mut self, cause: &Cause) {
        self.storage_changed.send_replace(());
        self.wake(&ClusterEvent::Storage, cause);
    }

    fn wake_for_node(&mut self, id: NodeId, cause: &Cause) {
        let Some(node) = self.cache.node(id) else {
            return;
        };
        let event = ClusterEvent::Node(node);
        let profiles = &self.config.profiles;
        self.queue.wake(cause, |pod, refused_by| helps(profiles, pod, refused_by, &event));
    }

    pub(super) fn wake(&mut self, event: &ClusterEvent<'_>, cause: &Cause) {
        let profiles = &self.config.profiles;
        self.queue.wake(cause, |pod, refused_by| helps(profiles, pod, refused_by, event));
    }

    /// What the queues of groups want has changed: others may have more, or less.
    pub(super) fn wake_queues(&mut self, cause: &Cause) {
        self.queue.wake(cause, |_, refused_by| refused_by.get(gang::PROPORTION).copied());
    }

    /// One more pod of the group is there: the others may have waited for it.
    fn wake_group(&mut self, group: &GroupKey, cause: &Cause) {
        self.queue.wake(cause, |pod, refused_by| {
            refused_by.get(gang::NAME).copied().filter(|_| pod.group.as_ref() == Some(group))
        });
    }
}

/// The plugin among those that refused `pod` which says that `event` may help it.
fn helps(
    profiles: &[Profile],
    pod: &Candidate,
    refused_by: &std::collections::BTreeSet<&'static str>,
    event: &ClusterEvent<'_>,
) -> Option<&'static str> {
    let name = pod.spec().scheduler_name.as_deref().unwrap_or_default();
    let own = profiles.iter().find(|profile| profile.scheduler_name == name).or(profiles.first());
    let hint = |refused_by: &&&'static str| match own.and_then(|profile| profile.plugin(refused_by)) {
        Some(plugin) => plugin.queueing_hint(pod, event),
        // A gang that lacks room is helped by what helps its members; those plugins are named beside it.
        None => matches!(event, ClusterEvent::Node(_) | ClusterEvent::PodRemoved(_) | ClusterEvent::PodScaledDown(_)),
    };
    refused_by.iter().find(hint).copied()
}
