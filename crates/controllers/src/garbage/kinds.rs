//! The watches that fill the graph: one for the metadata of each kind that discovery knows, now and later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use informer::{Cause, WorkQueue};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::absent::{Absent, Reference};
use super::graph::{Graph, Text};
use crate::client::Error;
use crate::discovery::{self, Kind};

/// So long after a CustomResourceDefinition changed the API may take to serve its kind.
const SETTLE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// The list of kinds is read again after this time, whatever happened.
const REFRESH: Duration = Duration::from_secs(300);
/// Kinds are waited for at most so long before garbage is collected. What is missing then is verified one by one.
const FIRST_SYNC: Duration = Duration::from_secs(10);

/// Metadata of an object of any kind.
pub(crate) type Partial = PartialObjectMeta<DynamicObject>;

/// The graph and the kinds of the objects in it.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) graph: Graph,
    kinds: Vec<Arc<Kind>>,
}

impl Known {
    /// The kind with this number.
    pub(crate) fn kind(&self, number: u32) -> Option<Arc<Kind>> {
        self.kinds.get(usize::try_from(number).ok()?).cloned()
    }

    /// The kind that an owner reference names, in whatever version.
    pub(crate) fn kind_named(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        // The last of several that look the same is the one that is served now.
        let mut kinds = self.kinds.iter().rev();
        kinds.find(|known| known.resource.group == group && known.resource.kind == kind).cloned()
    }
}

/// What the watches share with the workers.
pub(crate) struct Shared {
    pub(crate) client: Client,
    known: Mutex<Known>,
    pub(crate) queue: WorkQueue<Text>,
    /// A kind was not known, or those there are have changed.
    pub(crate) refresh: Notify,
    /// So much time has passed since that the API should serve them.
    settled: Notify,
    absent: Mutex<Absent>,
}

impl Shared {
    pub(crate) fn new(client: Client, queue: WorkQueue<Text>) -> Self {
        Self {
            client,
            known: Mutex::default(),
            queue,
            refresh: Notify::new(),
            settled: Notify::new(),
            absent: Mutex::default(),
        }
    }

    /// The graph. Never held across an await.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// What is known to be gone.
    pub(crate) fn absent(&self) -> MutexGuard<'_, Absent> {
        self.absent.lock()
    }

    fn apply(&self, number: u32, kind: &Arc<str>, mut object: Partial) {
        let Some(uid) = &object.metadata.uid else {
            return;
        };
        let mut known = self.known();
        let node = known.graph.node(number, &object.metadata);
        let look = known.graph.apply(uid, Some(node));
        drop(known);
        if !look.is_empty() {
            // A cause tells name and revision; the rest would wait in the queue with it.
            object.metadata.managed_fields = None;
            object.metadata.annotations = None;
            let cause = Cause::change(kind, &Arc::new(object), false);
            look.into_iter().for_each(|uid| self.queue.add(uid, cause.clone()));
        }
    }

    fn remove(&self, uid: &str) {
        let mut known = self.known();
        let was = known.graph.get(uid).map(|node| (node.name.clone(), node.namespace.clone()));
        let look = known.graph.apply(uid, None);
        drop(known);
        if let Some((name, namespace)) = was {
            self.absent().remember(Reference { uid: uid.into(), name, namespace });
        }
        let cause = Cause::new("an object it belongs to, or that belongs to it, is gone");
        look.into_iter().for_each(|uid| self.queue.add(uid, cause.clone()));
    }

    /// The kind is not followed any more, in this version at least. That says nothing of its objects: whoever belongs to one has
    /// it looked for.
    fn forget_kind(&self, kind: u32) {
        let mut look = Vec::new();
        {
            let mut known = self.known();
            for uid in known.graph.of_kind(kind) {
                look.extend(known.graph.apply(&uid, None));
            }
        }
        let cause = Cause::new("the kind of its owner is not served in this version any more");
        look.into_iter().for_each(|uid| self.queue.add(uid, cause.clone()));
    }

    /// What a fresh list lacks was deleted while nobody watched.
    fn remove_all_but(&self, kind: u32, listed: &HashSet<String>) {
        let all = self.known().graph.of_kind(kind);
        all.iter().filter(|uid| !listed.contains(&***uid)).for_each(|uid| self.remove(uid));
    }
}

/// Watches all kinds until it is dropped, and triggers `synced` once the first list of each has arrived.
pub(crate) async fn watch_all(shared: Arc<Shared>, synced: CancellationToken) {
    let mut watches = Watches { shared: Arc::clone(&shared), running: HashMap::new(), tasks: JoinSet::new() };
    let mut first = true;
    loop {
        match discovery::kinds(&shared.client).await {
            Ok(kinds) => {
                let listed = watches.follow(kinds);
                if std::mem::take(&mut first) {
                    let all = futures::future::join_all(listed.into_iter().map(CancellationToken::cancelled_owned));
                    // A kind that is late is known a little later.
                    let _ = tokio::time::timeout(FIRST_SYNC, all).await;
                    synced.cancel();
                }
            }
            Err(error) => warn!(error = %Error::from(error), "cannot discover the kinds of the API"),
        }
        let wait = if first { SETTLE[1] } else { REFRESH };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shared.settled.notified() => {}
            () = shared.refresh.notified() => {
                tokio::time::sleep(SETTLE[0]).await;
                let later = Arc::clone(&shared);
                watches.tasks.spawn(async move {
                    tokio::time::sleep(SETTLE[1]).await;
                    // Only whoever waits by then: this is no reason to come back once more.
                    later.settled.notify_waiters();
                });
            }
        }
    }
}

struct Watches {
    shared: Arc<Shared>,
    running: HashMap<Kind, (u32, CancellationToken)>,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Starts the watches of kinds that are new and stops those of kinds that are gone. The answer is triggered, one by
    /// one, as the first lists of the new ones arrive.
    fn follow(&mut self, kinds: Vec<Kind>) -> Vec<CancellationToken> {
        let kinds: HashSet<Kind> = kinds.into_iter().filter(is_collected).collect();
        let gone: Vec<Kind> = self.running.keys().filter(|kind| !kinds.contains(kind)).cloned().collect();
        for kind in gone {
            if let Some((number, cancel)) = self.running.remove(&kind) {
                cancel.cancel();
                self.shared.forget_kind(number);
            }
        }
        let mut listed = Vec::new();
        for kind in kinds {
            if self.running.contains_key(&kind) {
                continue;
            }
            let mut known = self.shared.known();
            let number = u32::try_from(known.kinds.len()).unwrap_or(u32::MAX);
            known.kinds.push(Arc::new(kind.clone()));
            drop(known);
            let (cancel, first_list) = (CancellationToken::new(), CancellationToken::new());
            let watch = watch(Arc::clone(&self.shared), kind.clone(), number, first_list.clone());
            let stop = cancel.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = watch => {}
                }
            });
            self.running.insert(kind, (number, cancel));
            listed.push(first_list);
        }
        listed
    }
}

/// Events own nothing and are owned by nobody, and there are many of them.
fn is_collected(kind: &Kind) -> bool {
    kind.resource.plural != "events"
}

/// Whether a change of such an object may change the list of kinds.
fn makes_kinds(kind: &Kind) -> bool {
    matches!(
        (kind.resource.group.as_str(), kind.resource.plural.as_str()),
        ("apiextensions.k8s.io", "customresourcedefinitions") | ("apiregistration.k8s.io", "apiservices")
    )
}

async fn watch(shared: Arc<Shared>, kind: Kind, number: u32, first_list: CancellationToken) {
    let api: Api<Partial> = Api::all_with(shared.client.clone(), &kind.resource);
    let config = watcher::Config::default().streaming_lists();
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let name: Arc<str> = kind.resource.kind.as_str().into();
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.extend(object.metadata.uid.clone());
                shared.apply(number, &name, object);
            }
            Ok(Event::InitDone) => {
                shared.remove_all_but(number, &std::mem::take(&mut listed));
                first_list.cancel();
                continue;
            }
            Ok(Event::Apply(object)) => shared.apply(number, &name, object),
            Ok(Event::Delete(object)) => {
                if let Some(uid) = &object.metadata.uid {
                    shared.remove(uid);
                }
            }
            Err(error) => {
                debug!(kind = kind.name(), %error, "watch starts over");
                continue;
            }
        }
        if makes_kinds(&kind) && first_list.is_cancelled() {
            shared.refresh.notify_one();
        }
    }
}
