//! The task that follows policies, pods and namespaces, and has the kernel do what they ask for.
//!
//! Pods and namespaces are followed from the first policy on: without any, this costs one watch of nothing. Changes gather
//! for some milliseconds and while the rules before are being put in force; then the table is made anew as a whole, if what
//! it says has changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use informer::{
    Cause, Causes, Change, DurationMetric, Ending, EventType, Informer, Informers, ObjectKey, ReconcileReporter,
    Reconciler, Recorder, Running,
};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use super::compile::{Model, compile};
use super::enforcer::Enforcer;
use super::peers::addresses;
use super::table::PolicyTable;
use crate::host;
use crate::nft::Failure;
use crate::tools::NetworkTools;

/// Changes gather for so long.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is checked that all is still there, and tried again where the machine cannot do it.
const CHECK: Duration = Duration::from_secs(60);
/// Pause after a refused transaction, doubled each time up to the longer one.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Why the policies are to be looked at.
#[derive(Default)]
struct Changed {
    causes: Mutex<Option<Causes>>,
    notify: Notify,
}

impl Changed {
    fn add(&self, cause: Cause) {
        Causes::add(&mut self.causes.lock(), cause);
        self.notify.notify_one();
    }
}

struct NetworkPolicies;

impl Reconciler for NetworkPolicies {
    const NAME: &'static str = "network-policy";
    // Upstream leaves policies to others.
    const DURATION: Option<DurationMetric> = None;
}

/// Runs until cancelled, then removes what it added.
pub(crate) async fn run(
    table: PolicyTable,
    informers: Informers,
    recorder: Recorder,
    tools: Arc<dyn NetworkTools>,
    cancel: CancellationToken,
) {
    let reporter = informers.reconciles().reporter::<NetworkPolicies>();
    let policies = informers.informer::<NetworkPolicy>();
    let changed = Arc::new(Changed::default());
    let for_policies = Arc::clone(&changed);
    let mut controller = Controller {
        policies: policies.clone(),
        selected: None,
        enforcer: Enforcer::new(table.clone(), Arc::clone(&tools)),
        bridge: table.bridge.clone(),
        tools,
        recorder,
        hooked: false,
        told: HashSet::new(),
        pause: RETRY,
        due: None,
    };
    if cancel.run_until_cancelled(policies.synced()).await.is_some() {
        changed.add(Cause::new("the start of the proxy"));
        policies.on_change(move |change| for_policies.add(change.cause()));
        cancel.run_until_cancelled(controller.follow(&table.name, &informers, &changed, &reporter)).await;
    }
    if let Err(failure) = controller.enforcer.remove().await {
        warn!(?failure, "cannot remove the rules of NetworkPolicies");
    }
}

/// What the task keeps.
struct Controller {
    policies: Informer<NetworkPolicy>,
    /// What policies select from, once there is one.
    selected: Option<(Informer<Pod>, Informer<Namespace>)>,
    enforcer: Enforcer,
    bridge: String,
    tools: Arc<dyn NetworkTools>,
    recorder: Recorder,
    /// Whether packets between pods pass the rules.
    hooked: bool,
    /// Policies whose users know that they are not enforced.
    told: HashSet<ObjectKey>,
    /// How long to wait after the next refusal.
    pause: Duration,
    /// When there is something to do in any case, and what.
    due: Option<(Instant, Cause)>,
}

impl Controller {
    /// Has the kernel do what the policies ask for, for ever.
    async fn follow(
        &mut self,
        name: &str,
        informers: &Informers,
        changed: &Arc<Changed>,
        reporter: &ReconcileReporter,
    ) {
        loop {
            let due = self.due.clone();
            let at = due.as_ref().map(|(at, _)| *at);
            let time = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                () = changed.notify.notified() => {
                    tokio::time::sleep(GATHER).await;
                    None
                }
                () = time => due.map(|(_, cause)| cause),
            };
            let is_due = woken.is_some();
            let mut causes = changed.causes.lock().take();
            woken.into_iter().for_each(|cause| Causes::add(&mut causes, cause));
            // A change that came while the causes were being taken was taken with them.
            let Some(causes) = causes else {
                continue;
            };
            if self.selected.is_none() && !self.policies.is_empty() {
                self.selected = Some(self.select_from(informers, changed).await);
            }
            let mut running = reporter.begin(&name, &causes);
            let span = running.span().clone();
            let ending = self.sync(is_due, &mut running).instrument(span).await;
            running.end(ending, &[]);
        }
    }

    /// Follows what policies select from.
    async fn select_from(&self, informers: &Informers, changed: &Arc<Changed>) -> (Informer<Pod>, Informer<Namespace>) {
        let (pods, namespaces) = (informers.informer::<Pod>(), informers.informer::<Namespace>());
        pods.synced().await;
        namespaces.synced().await;
        let (policies, for_pods) = (self.policies.clone(), Arc::clone(changed));
        pods.on_change(move |change| {
            if matters(change) && !policies.is_empty() {
                for_pods.add(change.cause());
            }
        });
        let (policies, for_namespaces) = (self.policies.clone(), Arc::clone(changed));
        namespaces.on_change(move |change| {
            let labels = |namespace: &Option<Arc<Namespace>>| namespace.as_ref().map(|n| n.metadata.labels.clone());
            if labels(&change.old) != labels(&change.new) && !policies.is_empty() {
                for_namespaces.add(change.cause());
            }
        });
        (pods, namespaces)
    }

    /// Brings the kernel to what the policies ask for now.
    async fn sync(&mut self, is_due: bool, running: &mut Running) -> Ending {
        let model = self.model().await;
        if is_due {
            self.enforcer.check().await;
        }
        let is_needed = !model.is_empty();
        if is_needed && (is_due || !self.enforcer.has_rules()) {
            // The bridge may have been made anew.
            self.hooked = host::bridge_hooks(&self.bridge, &*self.tools).await;
        }
        let (isolated, kinds) = (model.isolated(), model.allowed.len());
        let problem = match self.enforcer.apply(model).await {
            Ok(changed) => {
                self.pause = RETRY;
                match (changed, is_needed) {
                    (true, true) => running.act(|| format!("isolate {isolated} pods by {kinds} sets of rules")),
                    (true, false) => running.act(|| "remove the table"),
                    (false, _) => running.because("the kernel has these rules"),
                }
                self.due = is_needed.then(|| (Instant::now() + CHECK, Cause::new("the periodic check")));
                let between = "packets between pods pass no rules, since the bridge does not hand them over \
                               (kernel module br_netfilter)";
                (is_needed && !self.hooked).then(|| between.to_owned())
            }
            Err(Failure::Unavailable(why)) => {
                self.due = is_needed.then(|| (Instant::now() + CHECK, Cause::RETRY));
                Some(why)
            }
            Err(Failure::Refused(why)) => {
                self.due = Some((Instant::now() + self.pause, Cause::RETRY));
                self.pause = (self.pause * 2).min(RETRY_MOST);
                Some(why)
            }
        };
        match problem {
            None => {
                self.told.clear();
                Ending::AwaitChange
            }
            Some(why) => {
                self.tell(&why);
                Ending::Failed(why)
            }
        }
    }

    async fn model(&self) -> Model {
        let policies = self.policies.list();
        let Some((pods, namespaces)) = self.selected.as_ref().filter(|_| !policies.is_empty()) else {
            return Model::default();
        };
        let (pods, namespaces) = (pods.list(), namespaces.list());
        // With thousands of pods this takes a while.
        let compiled = spawn_blocking(move || {
            compile(
                policies.iter().map(AsRef::as_ref),
                namespaces.iter().map(AsRef::as_ref),
                pods.iter().map(AsRef::as_ref),
            )
        });
        match compiled.await {
            Ok(model) => model,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The process ends.
            Err(_) => std::future::pending().await,
        }
    }

    /// Tells the users of policies that these are not enforced, each once.
    fn tell(&mut self, why: &str) {
        let policies = self.policies.list();
        let keys: HashSet<ObjectKey> = policies.iter().map(|policy| ObjectKey::of(&**policy)).collect();
        self.told.retain(|key| keys.contains(key));
        let mut is_news = false;
        for policy in policies {
            if self.told.insert(ObjectKey::of(&*policy)) {
                is_news = true;
                let message = format!("this policy is not enforced on this machine: {why}");
                self.recorder.event(&policy.object_ref(&()), EventType::Warning, "NetworkPolicyNotEnforced", message);
            }
        }
        if is_news {
            warn!("NetworkPolicies are not enforced on this machine: {why}");
        }
    }
}

/// Whether a change of a pod can be one of what policies say: most are of its conditions and containers.
fn matters(change: &Change<Pod>) -> bool {
    let seen = |pod: &Option<Arc<Pod>>| pod.as_ref().map(|pod| addresses(pod)).filter(|ips| !ips.is_empty());
    let labels = |pod: &Option<Arc<Pod>>| pod.as_ref().and_then(|pod| pod.metadata.labels.clone());
    let (old, new) = (seen(&change.old), seen(&change.new));
    old != new || (new.is_some() && labels(&change.old) != labels(&change.new))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn few_changes_of_pods_matter() {
        let check = |old: Value, new: Value, expected: bool| {
            let pod = |pod: &Value| serde_json::from_value::<Option<Pod>>(pod.clone()).unwrap().map(Arc::new);
            let change = Change { kind: "Pod".into(), old: pod(&old), new: pod(&new) };
            assert_eq!(matters(&change), expected, "{old} {new}");
        };
        let running = json!({
            "metadata": { "name": "p", "labels": { "app": "web" } }, "spec": { "containers": [] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.0.0.7" }] },
        });
        let with = |path: &str, value: Value| {
            let mut pod = running.clone();
            *pod.pointer_mut(path).unwrap() = value;
            pod
        };
        let no_address = with("/status/podIPs", json!([]));
        check(json!(null), running.clone(), true);
        check(running.clone(), json!(null), true);
        check(no_address.clone(), running.clone(), true);
        check(running.clone(), with("/status/podIPs/0/ip", json!("10.0.0.8")), true);
        check(running.clone(), with("/metadata/labels", json!({ "app": "other" })), true);
        check(running.clone(), with("/status/phase", json!("Failed")), true);
        check(
            running.clone(),
            with(
                "/status",
                json!({
                    "phase": "Running", "podIPs": [{ "ip": "10.0.0.7" }], "conditions": [{ "type": "Ready", "status": "False" }],
                }),
            ),
            false,
        );
        check(json!(null), no_address.clone(), false);
        check(no_address.clone(), json!(null), false);
        check(running.clone(), running.clone(), false);
    }
}
