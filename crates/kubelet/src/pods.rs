//! The pods of this node: a worker for each, and one for whatever the runtime has that the API does not know.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use informer::{Cause, Informer};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, MutexGuard};
use runtime::PodIdentity;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::mailbox::{Keyed, Mailbox};
use crate::pod::{Message, View, Worker};
use crate::shared::Shared;
use crate::types::desired::DesiredPod;
use crate::volumes::{PodDirectory, directories};

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
    let known = tokio::select! {
        () = cancel.cancelled() => false,
        known = health.wait_for(Health::is_usable) => known.is_ok(),
    };
    if known {
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                event = events.recv() => manager.handle_event(event).await,
                Some(ended) = manager.running.join_next() => manager.ended(ended),
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
                match known {
                    // A worker that ends at this moment has released its pod.
                    Some(worker) => worker.send(Message::Updated(pod, cause)),
                    None => self.start(DesiredPod::new(pod), cause),
                }
            }
            PodEvent::Gone(uid, cause) => {
                if let Some(entry) = self.pods.workers().get(&uid) {
                    entry.mailbox.send(Message::Gone(cause));
                }
            }
            PodEvent::Listed => self.orphans().await,
        }
    }

    fn start(&mut self, desired: DesiredPod, cause: Cause) {
        let uid = desired.identity.uid.clone();
        let (worker, mailbox, view) = Worker::new(Arc::clone(&self.shared), desired, cause);
        let entry = Entry { mailbox, view };
        self.pods.workers().insert(uid.clone(), entry);
        let cancel = self.cancel.clone();
        self.running.spawn(async move {
            let run = std::panic::AssertUnwindSafe(worker.run(cancel));
            let fault = run.catch_unwind().await.is_err();
            Ended { uid, fault }
        });
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ok(Ended { uid, fault }) = ended else {
            return;
        };
        self.pods.workers().remove(&uid);
        if !fault {
            return;
        }
        // Everything is rebuilt from the API and the runtime.
        tracing::error!(uid, "a pod's worker failed, starting it again");
        let pods = self.informer.list();
        let pod = pods.into_iter().find(|pod| pod.metadata.uid.as_ref() == Some(&uid));
        if let Some(pod) = pod {
            self.start(DesiredPod::new(pod), Cause::RETRY);
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
            self.start(DesiredPod::orphan(&orphan), Cause::new("a pod in the runtime that the API does not know"));
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
