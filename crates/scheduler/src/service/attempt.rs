//! One pod's turn, or one gang's: decide, record, and have it carried out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use informer::{Cause, Ending, EventType, ObjectKey, ObjectVersion, Recorder, Running, Write};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use machinery::well_known::is_fake_node;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, warn};

use super::{Message, Scheduler};
use crate::bind::{self, BindError, Nomination};
use crate::framework::ClusterEvent;
use crate::gang::{self, Clearing, Placement, Refused, Standings};
use crate::preempt::{Preemption, preempt};
use crate::profile::Profile;
use crate::record::{Record, unschedulable_hint};
use crate::resources::Resources;
use crate::schedule::{Decision, NotPreempted, Trace, Unschedulable, schedule};
use crate::storage::Promise;
use crate::types::{Candidate, Family, GroupKey};

impl Scheduler {
    pub(super) fn attempt(&mut self, pod: Candidate) {
        match pod.group.clone().filter(|group| self.groups.govern(group)) {
            Some(group) => {
                let standings = self.standings(group.family);
                match self.groups.goes_before(&group, &standings, self.queue.turns()) {
                    Some((other, turn)) => {
                        let turn = turn.clone();
                        self.queue.postpone(&pod.uid);
                        self.attempt_gang(&other, &turn, standings);
                    }
                    None => self.attempt_gang(&group, &pod, standings),
                }
            }
            None => self.attempt_one(pod),
        }
    }

    fn attempt_one(&mut self, pod: Candidate) {
        let Some(profile) = self.profile_of(&pod.pod).cloned() else {
            return self.queue.remove(&pod.uid);
        };
        let attempt = self.begin(&pod, Instant::now());
        let _entered = attempt.span().clone().entered();
        let mut trace = Trace::default();
        match schedule(&self.cache, &profile, &pod, &mut self.first, &mut trace) {
            Ok(decision) => {
                let record = self.record(&pod, attempt.elapsed()).trace(&self.cache, &trace, Some(&decision));
                self.config.records.put(record);
                self.cache.assume(&decision.node, Arc::clone(&pod.info));
                self.carry_out(pod, decision, attempt);
            }
            Err(mut refused) => {
                let found = self.find_victims(&profile, &pod, &mut refused);
                self.handle_unschedulable(&pod, refused, found, &trace, attempt);
            }
        }
    }

    /// The pods that have to go so that `pod` can run, if the profile preempts any; `refused` learns why none do.
    pub(super) fn find_victims(
        &self,
        profile: &Profile,
        pod: &Candidate,
        refused: &mut Unschedulable,
    ) -> Option<Preemption> {
        if !profile.preempts {
            return None;
        }
        let budgets: Vec<_> = self.budgets.values().cloned().collect();
        let found = preempt(&self.cache, profile, pod, refused, &budgets);
        found.map_err(|why| refused.not_preempted = Some(why)).ok()
    }

    /// How the queues of such groups stand.
    fn standings(&self, family: Family) -> Standings {
        match family {
            Family::Coscheduling => Standings::default(),
            Family::Volcano => self.groups.standings(&self.cache, |group| self.queue.waiting(group)),
        }
    }

    fn attempt_gang(&mut self, key: &GroupKey, turn: &Candidate, standings: Standings) {
        let started = Instant::now();
        let mut members = gang::in_order(self.queue.take_group(key));
        // Those whose binding is under way have their place.
        members.retain(|pod| !self.cache.is_placed(&pod.uid));
        let Some(profile) = members.first().and_then(|pod| self.profile_of(&pod.pod)).cloned() else {
            members.iter().for_each(|pod| self.queue.remove(&pod.uid));
            return;
        };
        let placed = self.cache.group_use(key).map_or(0, |(count, _)| *count);
        let needed = self.groups.groups.get(key).map_or(0, |group| group.min_member).saturating_sub(placed);
        let mut asked = Resources::default();
        members.iter().take(needed.max(1)).for_each(|pod| asked.add(&pod.requests));
        let obstacle = self.groups.obstacle(key, members.len(), placed, &asked, &self.cache, &standings);
        if let Some((plugin, obstacle)) = obstacle {
            let refused =
                Refused { message: obstacle, plugins: BTreeSet::from([gang::NAME, plugin]), trace: Trace::default() };
            // Enough of them are there: whichever one looks at should say what they wait for.
            if members.len() >= needed {
                return self.refuse_gang(key, &members, &refused, Clearing::Impossible, started);
            }
            // Told to the pod whose turn it is alone: while the members of a gang come, one after the other, telling all
            // each time would be of no use to anybody.
            for other in members.iter().filter(|other| other.uid != turn.uid) {
                self.withdraw(&other.uid, None);
                self.queue.refused(&other.uid, refused.plugins.clone(), Instant::now());
            }
            return self.refuse_gang(key, std::slice::from_ref(turn), &refused, Clearing::Impossible, started);
        }
        let admitted = self.groups.admitted(key, &members, needed, standings);
        let beyond = members.split_off(admitted);
        for pod in &beyond {
            self.queue.refused(&pod.uid, BTreeSet::from([gang::NAME, gang::PROPORTION]), Instant::now());
        }
        match gang::place(&mut self.cache, &profile, key, members.clone(), needed, &mut self.first) {
            Placement::Whole { placed, left } => {
                if !placed.is_empty() {
                    self.groups.settled(key);
                    // Its queue may want nothing more: what others may have has changed.
                    self.wake_queues(&Cause::new("a group that was placed"));
                }
                for (pod, decision, trace) in placed {
                    let attempt = self.begin(&pod, started);
                    let mut record = self.record(&pod, attempt.elapsed()).trace(&self.cache, &trace, Some(&decision));
                    record.group = Some(key.to_string());
                    self.config.records.put(record);
                    self.carry_out(pod, decision, attempt);
                }
                for (pod, refused, trace) in left {
                    let attempt = self.begin(&pod, started);
                    self.handle_unschedulable(&pod, refused, None, &trace, attempt);
                }
            }
            Placement::Refused(refused) => {
                let clearing = match profile.preempts {
                    false => Clearing::Impossible,
                    true => {
                        let budgets: Vec<_> = self.budgets.values().cloned().collect();
                        gang::clear(&mut self.cache, &profile, key, &members, needed, &budgets)
                    }
                };
                self.refuse_gang(key, &members, &refused, clearing, started);
            }
        }
    }

    /// No node is kept for the pod any more, unless it has come there: those who could not have its place may.
    pub(super) fn withdraw(&mut self, uid: &str, came_to: Option<&str>) {
        if let Some((node, pod)) = self.cache.withdraw(uid)
            && came_to != Some(node.as_str())
        {
            self.wake(&ClusterEvent::PodRemoved(&pod), &Cause::new("a place that is not kept any more"));
        }
    }

    /// An attempt to schedule `pod` begins, or has begun with those of its group.
    fn begin(&mut self, pod: &Candidate, started: Instant) -> Running {
        let causes = self.queue.take_causes(&pod.uid);
        let mut attempt = self.reporter.begin_since(started, &pod.full_name(), &causes);
        attempt.set_step(self.step.clone());
        attempt
    }

    /// Charges are made; the API server hears of it in the background, and the attempt ends with the binding.
    fn carry_out(&mut self, pod: Candidate, decision: Decision, mut attempt: Running) {
        self.withdraw(&pod.uid, Some(&decision.node));
        self.queue.decided(&pod.uid);
        let mut promises: Vec<Promise> = Vec::new();
        if !pod.claims.is_empty()
            && let Some(node) = self.cache.node_named(&decision.node)
        {
            promises = self.cache.storage.promises(&pod.claims, node);
            for promise in &promises {
                if let Promise::Volume { volume, claim } = promise {
                    self.cache.storage.reserved.insert(volume.clone(), claim.clone());
                }
            }
        }
        let (client, recorder) = (self.client.clone(), self.recorder(&pod));
        let (messages, permits) = (self.messages.clone(), Arc::clone(&self.permits));
        let (claims, changes) = (self.claims.clone(), self.storage_changed.subscribe());
        let is_fake = self
            .cache
            .node_named(&decision.node)
            .is_some_and(|node| is_fake_node(node.node.metadata.annotations.as_ref()));
        let node = decision.node;
        attempt.act(|| format!("choose node {node}"));
        let span = attempt.span().clone();
        let binding = async move {
            let mut asked = false;
            let result = async {
                if !promises.is_empty() {
                    bind::keep_promises(&client, &claims, changes, &promises, &node).await?;
                }
                let _permit = permits.acquire().await;
                asked = true;
                Ok::<_, BindError>(bind::bind(&client, &pod.info, &node).await?)
            }
            .await;
            let name = pod.full_name();
            let about = pod.pod.object_ref(&());
            let profile = pod.spec().scheduler_name.as_deref().unwrap_or_default();
            if asked {
                let refused = match &result {
                    Ok(()) => None,
                    Err(BindError::Api(kube::Error::Api(status))) => Some(status.code),
                    Err(_) => Some(0),
                };
                let object = ObjectVersion { kind: "Pod".into(), key: ObjectKey::of(&*pod.pod), revision: None };
                attempt.write(|| Write { verb: "create", object, subresource: "binding", refused });
            }
            match &result {
                Ok(()) => attempt.end(Ending::AwaitChange, &["scheduled", profile]),
                Err(error) => attempt.end(Ending::failed(error), &["error", profile]),
            }
            match result {
                Ok(()) => {
                    // It costs no event of its own that nothing of the pod runs.
                    let fake = if is_fake { ", a fake node: the pod only seems to run" } else { "" };
                    let message = format!("Successfully assigned {name} to {node}{fake}");
                    recorder.event(&about, EventType::Normal, "Scheduled", message);
                    return;
                }
                // Deleted, or bound by somebody else, while this was decided: the informer will tell.
                Err(BindError::Api(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                    debug!(pod = name, "not bound: {}", status.message);
                }
                Err(error) => {
                    warn!(pod = name, %error, "binding failed");
                    recorder.event(&about, EventType::Warning, "FailedScheduling", error.to_string());
                }
            }
            drop(messages.send(Message::NotBound(pod.uid.clone())));
        };
        self.tasks.spawn(binding.instrument(span));
    }

    /// No node for this pod now. With a preemption, one is being cleared.
    fn handle_unschedulable(
        &mut self,
        pod: &Candidate,
        refused: Box<Unschedulable>,
        preemption: Option<Preemption>,
        trace: &Trace,
        attempt: Running,
    ) {
        let message = refused.to_string();
        let mut record = self.record(pod, attempt.elapsed()).trace(&self.cache, trace, None);
        record.message.clone_from(&message);
        record.waits_for = refused.plugins.iter().map(|plugin| unschedulable_hint(plugin)).collect();
        // What was nominated stays nominated while its victims go; else there is no reason for it any more.
        let waits = refused.not_preempted == Some(NotPreempted::VictimsTerminating);
        let nomination = match &preemption {
            Some(preemption) => Nomination::Set(preemption.node.clone()),
            None if waits => Nomination::Keep,
            None => Nomination::Clear,
        };
        if let Some(preemption) = preemption {
            record.nominated = Some(preemption.node.clone());
            record.victims = preemption.victims.iter().map(|victim| victim.full_name()).collect();
            record.waits_for = vec!["pods of lower priority to leave the node that is being cleared for it"];
            self.cache.nominate(&pod.info, &preemption.node);
            self.preempt(pod, preemption);
        } else if !waits {
            self.withdraw(&pod.uid, None);
        }
        self.queue.refused(&pod.uid, refused.plugins, Instant::now());
        self.report(pod, message, nomination);
        end_unschedulable(attempt, pod, &record);
        self.config.records.put(record);
    }

    fn refuse_gang(
        &mut self,
        key: &GroupKey,
        members: &[Candidate],
        refused: &Refused,
        clearing: Clearing,
        started: Instant,
    ) {
        let now = Instant::now();
        self.groups.note_in_vain(key, now);
        // What was nominated stays nominated while victims go; else there is no reason for it any more.
        let stays = matches!(clearing, Clearing::Waits);
        let mut cleared = match clearing {
            Clearing::Whole(found) => found,
            Clearing::Waits | Clearing::Impossible => Vec::new(),
        };
        for pod in members {
            let attempt = self.begin(pod, started);
            let mut record = self.record(pod, attempt.elapsed()).trace(&self.cache, &refused.trace, None);
            record.feasible = 0;
            record.scored.clear();
            record.group = Some(key.to_string());
            record.message.clone_from(&refused.message);
            record.waits_for = refused.plugins.iter().map(|plugin| unschedulable_hint(plugin)).collect();
            let own = cleared.iter().position(|(member, _)| member.uid == pod.uid);
            let preemption = own.map(|own| cleared.swap_remove(own).1);
            let nomination = match &preemption {
                _ if stays => Nomination::Keep,
                Some(preemption) => Nomination::Set(preemption.node.clone()),
                None => Nomination::Clear,
            };
            match preemption {
                Some(preemption) => {
                    record.nominated = Some(preemption.node.clone());
                    record.victims = preemption.victims.iter().map(|victim| victim.full_name()).collect();
                    record.waits_for =
                        vec!["pods of lower priority to leave the nodes that are being cleared for its group"];
                    self.cache.nominate(&pod.info, &preemption.node);
                    self.preempt(pod, preemption);
                }
                None if !stays => self.withdraw(&pod.uid, None),
                None => {}
            }
            self.queue.refused(&pod.uid, refused.plugins.clone(), now);
            self.report(pod, refused.message.clone(), nomination);
            end_unschedulable(attempt, pod, &record);
            self.config.records.put(record);
        }
    }

    /// Says in an event and in the pod's status why it has no node.
    fn report(&self, pod: &Candidate, message: String, nomination: Nomination) {
        info!(pod = pod.full_name(), "{message}");
        self.recorder(pod).event(&pod.pod.object_ref(&()), EventType::Warning, "FailedScheduling", &message);
        let (client, object) = (self.client.clone(), Arc::clone(&pod.pod));
        self.tasks.spawn(async move {
            if let Err(error) = bind::report_unschedulable(&client, &object, &message, &nomination).await {
                debug!(%error, "condition not written");
            }
        });
    }

    /// Ends the pods that have to make room for `pod`.
    fn preempt(&self, pod: &Candidate, preemption: Preemption) {
        let scheduler = pod.spec().scheduler_name.clone().unwrap_or_default();
        info!(pod = pod.full_name(), node = preemption.node, victims = preemption.victims.len(), "clearing a node");
        for victim in preemption.victims {
            if victim.deleting {
                continue;
            }
            let (client, recorder) = (self.client.clone(), self.recorder(pod));
            let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.node);
            let scheduler = scheduler.clone();
            self.tasks.spawn(async move {
                match bind::evict(&client, &victim, &scheduler).await {
                    Ok(()) => {
                        let about = ObjectReference {
                            api_version: Some("v1".to_owned()),
                            kind: Some("Pod".to_owned()),
                            namespace: Some(victim.namespace.clone()),
                            name: Some(victim.name.clone()),
                            uid: Some(victim.uid.clone()),
                            ..ObjectReference::default()
                        };
                        recorder.event(&about, EventType::Normal, "Preempted", message);
                    }
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(error) => warn!(pod = victim.full_name(), %error, "cannot preempt the pod"),
                }
            });
        }
    }

    /// Reports each gang once that waits for longer than its `scheduleTimeoutSeconds`.
    pub(super) fn report_overdue_gangs(&mut self, now: Instant) {
        for key in self.groups.take_overdue(now) {
            let Some((recorder, group)) = self.recorders.values().next().zip(self.groups.groups.get(&key)) else {
                continue;
            };
            let (api_version, seconds) = match key.family {
                Family::Coscheduling => ("scheduling.x-k8s.io/v1alpha1", group.timeout.unwrap_or_default().as_secs()),
                Family::Volcano => ("scheduling.volcano.sh/v1beta1", group.timeout.unwrap_or_default().as_secs()),
            };
            let about = ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some("PodGroup".to_owned()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                ..ObjectReference::default()
            };
            let message = format!("the group was not placed within {seconds} s; it is tried again when that may help");
            recorder.event(&about, EventType::Warning, "ScheduleTimeout", message);
        }
    }

    fn recorder(&self, pod: &Candidate) -> Recorder {
        let name = pod.spec().scheduler_name.as_deref().unwrap_or_default();
        let any = || self.recorders.values().next();
        match self.recorders.get(name).or_else(any) {
            Some(recorder) => recorder.clone(),
            // A configuration has at least one profile, and each its recorder.
            None => Recorder::new(self.client.clone(), name.to_owned(), None),
        }
    }

    fn record(&self, pod: &Candidate, took: Duration) -> Record {
        let scheduler = pod.spec().scheduler_name.as_deref().unwrap_or_default();
        let mut record = Record::new(pod, scheduler, took);
        if let Some((attempts, since)) = self.queue.history(&pod.uid) {
            record.attempt = attempts;
            record.waited_millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        record
    }
}

/// An attempt ends without a node, as `record` says.
fn end_unschedulable(mut attempt: Running, pod: &Candidate, record: &Record) {
    if let Some(node) = &record.nominated {
        attempt.act(|| format!("preempt {} pods on node {node}", record.victims.len()));
    }
    attempt.because(record.message.clone());
    let profile = pod.spec().scheduler_name.as_deref().unwrap_or_default();
    attempt.end(Ending::AwaitChange, &["unschedulable", profile]);
}
