//! The pods of this node: a worker for each, and one for whatever the runtime has that the API does not know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use informer::{Cause, Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use machinery::phase::PodPhase;
use parking_lot::{Mutex, MutexGuard};
use runtime::PodIdentity;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission;
use crate::allocation::Allocation;
use crate::health::Health;
use crate::mailbox::{Keyed, Mailbox};
use crate::pod::{Message, View, Worker};
use crate::shared::Shared;
use crate::types::desired::{DesiredPod, allocated_in_status};
use crate::types::failure::Failure;
use crate::volumes::{PodDirectory, directories};

/// How long the API is asked for the node, for a pod that the node as it is known does not suit.
const READ_NODE: Duration = Duration::from_secs(5);

/// PodEvent for the manager.
#[derive(Debug)]
enum PodEvent {
    /// A pod of the API changed.
    Changed(Arc<Pod>, Cause),
    /// A pod of the API is gone.
    Gone(String, Cause),
    /// The runtime has been listed.
    Listed,
}

impl Keyed for PodEvent {
    /// The uid of the pod, where it is about one.
    type Subject = Option<String>;

    fn subject(&self) -> Option<String> {
        match self {
            Self::Changed(pod, _) => pod.metadata.uid.clone(),
            Self::Gone(uid, _) => Some(uid.clone()),
            Self::Listed => None,
        }
    }
}

/// The workers, by uid of their pod.
#[derive(Default)]
pub(crate) struct Pods {
    workers: Mutex<HashMap<String, Entry>>,
}

struct Entry {
    mailbox: Mailbox<Message>,
    view: watch::Receiver<View>,
}

impl Pods {
    /// What is known of a pod.
    pub(crate) fn view(&self, uid: &str) -> Option<View> {
        let workers = self.workers();
        workers.get(uid).map(|entry| entry.view.borrow().clone())
    }

    /// What is known of all pods.
    pub(crate) fn views(&self) -> Vec<View> {
        let workers = self.workers();
        workers.values().map(|entry| entry.view.borrow().clone()).collect()
    }

    /// Tells the worker of a pod something; nobody, if there is none any more.
    pub(crate) fn send(&self, uid: &str, message: Message) {
        if let Some(entry) = self.workers().get(uid) {
            entry.mailbox.send(message);
        }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.workers.lock()
    }
}

/// Runs the pods of this node until `cancel` is triggered, and follows the runtime for them.
pub(crate) async fn run(shared: Arc<Shared>, pods: Arc<Pods>, informer: Informer<Pod>, cancel: CancellationToken) {
    let events = Mailbox::new();
    let changed = events.clone();
    informer.on_change(move |change| {
        let uid = |pod: &Option<Arc<Pod>>| pod.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let (old, new) = (uid(&change.old), uid(&change.new));
        if let Some(old) = old
            && new.as_ref() != Some(&old)
        {
            changed.send(PodEvent::Gone(old, change.cause()));
        }
        if let Some(pod) = &change.new {
            changed.send(PodEvent::Changed(Arc::clone(pod), change.cause()));
        }
    });
    let follow = {
        let (shared, cancel, sender) = (Arc::clone(&shared), cancel.clone(), events.clone());
        tokio::spawn(async move {
            let listed = || sender.send(PodEvent::Listed);
            shared.pleg.run(&shared.config, cancel, listed).await;
        })
    };

    let mut manager = Manager { shared, pods, informer, cancel, running: JoinSet::new(), swept: false };
    // Nothing is planned before the runtime is known: what runs is adopted, not made again.
    let mut health = manager.shared.pleg.health();
    let cancel = manager.cancel.clone();
    let known = async {
        health.wait_for(Health::is_usable).await.ok()?;
        manager.informer.synced().await;
        Some(())
    };
    let known = tokio::select! {
        () = cancel.cancelled() => None,
        known = known => known,
    };
    if known.is_some() {
        manager.restore_allocations();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = events.recv() => manager.handle_event(event).await,
                Some(ended) = manager.running.join_next() => manager.ended(ended).await,
            }
        }
    }
    while manager.running.join_next().await.is_some() {}
    // It ends by the same cancellation.
    let _ = follow.await;
}

struct Manager {
    shared: Arc<Shared>,
    pods: Arc<Pods>,
    informer: Informer<Pod>,
    cancel: CancellationToken,
    running: JoinSet<Ended>,
    /// Whether the files of pods that are no more have been removed.
    swept: bool,
}

/// A worker has ended, or failed by a fault of this program.
struct Ended {
    uid: String,
    fault: bool,
}

impl Manager {
    async fn handle_event(&mut self, event: PodEvent) {
        match event {
            PodEvent::Changed(pod, cause) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                let known = self.pods.workers().get(&uid).map(|entry| entry.mailbox.clone());
                if PodPhase::of(&pod).is_some_and(PodPhase::is_terminal) {
                    // Nobody reckons with it any more, whatever of it runs.
                    self.shared.allocations.release(&uid);
                }
                match known {
                    // A worker that ends at this moment has released its pod.
                    Some(worker) => worker.send(Message::Updated(pod, cause)),
                    None => self.start(pod, cause).await,
                }
            }
            PodEvent::Gone(uid, cause) => {
                self.shared.allocations.release(&uid);
                if let Some(entry) = self.pods.workers().get(&uid) {
                    entry.mailbox.send(Message::Gone(cause));
                }
            }
            PodEvent::Listed => self.orphans().await,
        }
    }

    /// Starts a worker for a pod of the API, once it is known whether the pod can be run here.
    async fn start(&mut self, pod: Arc<Pod>, cause: Cause) {
        let allocated = allocated_in_status(&pod);
        let desired = DesiredPod::new(pod).with_allocated(&allocated);
        let failure = self.admit(&desired).await.err();
        if self.cancel.is_cancelled() {
            // The node may not have been asked for. Whoever comes next looks at the pod again.
            return;
        }
        self.spawn(desired, failure, cause);
    }

    fn spawn(&mut self, desired: DesiredPod, failure: Option<Failure>, cause: Cause) {
        let uid = desired.identity.uid.clone();
        let (worker, mailbox, view) = Worker::new(Arc::clone(&self.shared), desired, failure, cause);
        let entry = Entry { mailbox, view };
        self.pods.workers().insert(uid.clone(), entry);
        let cancel = self.cancel.clone();
        self.running.spawn(async move {
            let run = std::panic::AssertUnwindSafe(worker.run(cancel));
            let fault = run.catch_unwind().await.is_err();
            Ended { uid, fault }
        });
    }

    /// Whether the pod can be run here, which is asked once in its life: before anything of it is made.
    async fn admit(&self, desired: &DesiredPod) -> Result<(), Failure> {
        let uid = &desired.identity.uid;
        let Some(spec) = desired.spec().filter(|_| !desired.ended()) else {
            return Ok(());
        };
        let wanted = Allocation::of(spec);
        let directory = PodDirectory::new(&self.shared.config.state_dir, uid);
        let evicted = tokio::task::spawn_blocking(move || directory.evicted()).await.ok().flatten();
        if let Some(message) = evicted.filter(|_| !desired.deleting()) {
            self.shared.allocations.restore(uid, wanted);
            return Err(Failure::evicted(message));
        }
        if desired.deleting() || self.has_begun(&desired.pod) {
            self.shared.allocations.restore(uid, wanted);
            return Ok(());
        }
        let shared = &self.shared;
        let pressure = *shared.pressure.borrow();
        let allowed = &shared.config.allowed_unsafe_sysctls;
        let fits = |node: Option<Arc<Node>>| {
            let check = |others: &Allocation| admission::fits(spec, node.as_deref(), &wanted, others);
            shared.allocations.allocate(uid, wanted.clone(), check)
        };
        let admit = async {
            admission::admit(&desired.pod, pressure, &shared.machine().info, allowed)?;
            let known = shared.nodes.get(&ObjectKey::new("", shared.config.node_name.as_str()));
            let is_known = known.is_some();
            match fits(known) {
                Ok(()) if is_known => Ok(()),
                // Somebody may have labelled the node just now (upstream asks once more, too).
                Err(failure) if !admission::is_about_labels(&failure) => Err(failure),
                answer => match self.read_node().await {
                    Some(node) => fits(Some(node)),
                    None => answer,
                },
            }
        };
        let mut result = admit.await;
        if let Err(failure) = &mut result {
            shared.allocations.release(uid);
            let mut owners = desired.pod.metadata.owner_references.iter().flatten();
            if let Some(owner) = owners.find(|owner| owner.controller == Some(true)) {
                failure.not_before = shared.rejections.lock().hold_back(&owner.uid, Timestamp::now());
            }
        }
        result
    }

    /// Whether a pod was admitted here before: its status tells, or what the runtime has of it.
    fn has_begun(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
            || !self.shared.pleg.observed(uid).is_empty()
    }

    /// The node as the API has it; none where that cannot be told in time, or this process is to end.
    async fn read_node(&self) -> Option<Arc<Node>> {
        let api: Api<Node> = Api::all(self.shared.client.clone());
        let read = tokio::time::timeout(READ_NODE, api.get_opt(&self.shared.config.node_name));
        self.cancel.run_until_cancelled(read).await?.ok()?.ok().flatten().map(Arc::new)
    }

    /// Notes what pods hold that were admitted before this process began, so that none which comes first takes it.
    fn restore_allocations(&self) {
        for pod in self.informer.list() {
            if !self.has_begun(&pod) || PodPhase::of(&pod).is_some_and(PodPhase::is_terminal) {
                continue;
            }
            let allocated = allocated_in_status(&pod);
            let desired = DesiredPod::new(pod).with_allocated(&allocated);
            if let Some(spec) = desired.spec() {
                self.shared.allocations.restore(&desired.identity.uid, Allocation::of(spec));
            }
        }
    }

    async fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ok(Ended { uid, fault }) = ended else {
            return;
        };
        self.pods.workers().remove(&uid);
        self.shared.allocations.release(&uid);
        if !fault {
            return;
        }
        // Everything is rebuilt from the API and the runtime.
        tracing::error!(uid, "a pod's worker failed, starting it again");
        let pods = self.informer.list();
        let pod = pods.into_iter().find(|pod| pod.metadata.uid.as_ref() == Some(&uid));
        if let Some(pod) = pod {
            self.start(pod, Cause::RETRY).await;
        }
    }

    /// Ends what the runtime has of pods that the API does not know. Only once the API has told what it knows.
    async fn orphans(&mut self) {
        if !self.informer.is_synced() {
            // A list of nothing proves nothing.
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = self.informer.synced() => {}
            }
        }
        let known: Vec<String> = {
            let pods = self.informer.list();
            pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect()
        };
        let orphans: Vec<PodIdentity> = {
            let workers = self.pods.workers();
            let pods = self.shared.pleg.pods().into_iter();
            pods.filter(|pod| !workers.contains_key(&pod.uid) && !known.contains(&pod.uid)).collect()
        };
        for orphan in orphans {
            tracing::info!(pod = orphan.name, uid = orphan.uid, "ending a pod that is not in the API");
            let cause = Cause::new("a pod in the runtime that the API does not know");
            self.spawn(DesiredPod::orphan(&orphan), None, cause);
        }
        if !self.swept {
            self.swept = true;
            self.sweep(&known).await;
        }
    }

    /// Removes files of pods that ended while nobody looked.
    async fn sweep(&self, known: &[String]) {
        let state_dir = self.shared.config.state_dir.clone();
        let workers: Vec<String> = self.pods.workers().keys().cloned().collect();
        let known = known.to_vec();
        let sweep = tokio::task::spawn_blocking(move || {
            for uid in directories(&state_dir) {
                if workers.contains(&uid) || known.contains(&uid) {
                    continue;
                }
                if let Err(error) = PodDirectory::new(&state_dir, &uid).remove() {
                    tracing::debug!(%error, uid, "files of a former pod are left behind");
                }
            }
        });
        let _ = sweep.await;
    }
}
