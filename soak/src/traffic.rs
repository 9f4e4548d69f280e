//! The clients: writers that keep account of their answers, and watchers that must see it all.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Error, ResourceExt};
use rand::RngExt;
use serde_json::{from_value, json};
use tokio::task::JoinSet;

use crate::cluster::Victim;
use crate::history::{History, State};

const NAMESPACE: &str = "soak";
const LABEL: &str = "soak=object";
const WRITERS: usize = 4;
const OBJECTS: usize = 8;
const WATCHERS: usize = 2;
/// Between two writes of one writer: an hour of them must fit into the account.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two tries of something that fails.
const RETRY: Duration = Duration::from_millis(200);

/// A client of the cluster as its kubeconfig describes it now.
///
/// It waits for an answer as long as the connection lives: a request that is given up might still be carried out.
pub(crate) async fn client(kubeconfig: &Path) -> Result<Client> {
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    config.read_timeout = None;
    config.write_timeout = None;
    Ok(Client::try_from(config)?)
}

/// The running clients.
pub(crate) struct Traffic(JoinSet<()>);

impl Traffic {
    /// Starts them all, in a namespace of their own.
    pub(crate) async fn start(victim: &Victim, history: Arc<History>) -> Result<Self> {
        let namespace: Namespace = from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
        let connected = client(&victim.kubeconfig()).await?;
        Api::all(connected).create(&PostParams::default(), &namespace).await?;
        let mut tasks = JoinSet::new();
        for number in 0..WATCHERS {
            tasks.spawn(watch(number, victim.kubeconfig(), Arc::clone(&history)));
        }
        for number in 0..WRITERS {
            tasks.spawn(write(number, victim.kubeconfig(), Arc::clone(&history)));
        }
        Ok(Self(tasks))
    }

    /// Ends them.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// Tries until it succeeds.
async fn api(kubeconfig: &Path) -> Api<ConfigMap> {
    loop {
        match client(kubeconfig).await {
            Ok(client) => return Api::namespaced(client, NAMESPACE),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Writes one object after the other for ever.
async fn write(number: usize, kubeconfig: impl AsRef<Path>, history: Arc<History>) {
    let mut api = api(kubeconfig.as_ref()).await;
    let mut objects: Vec<(String, State)> = (0..OBJECTS).map(|object| (format!("w{number}-{object}"), None)).collect();
    let mut count = 0;
    for turn in 0.. {
        let (name, state) = &mut objects[turn % OBJECTS];
        count += 1;
        let next = if state.is_some() && rand::rng().random_ratio(1, 5) { None } else { Some(count) };
        history.tries(name, next);
        match attempt(&api, name, *state, next).await {
            Ok(revision) => {
                history.acknowledges(name, next, revision);
                *state = next;
            }
            // Refused before anything was done about it.
            Err(Error::Api(status)) if status.code == 429 => {
                history.refuses(name);
                tokio::time::sleep(RETRY).await;
            }
            Err(_) => {
                history.leaves_open();
                *state = settle(&mut api, kubeconfig.as_ref(), name).await;
                history.shows(name, *state);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Brings an object from one state to another. The answer is the revision, where the server says it.
async fn attempt(api: &Api<ConfigMap>, name: &str, from: State, to: State) -> Result<Option<u64>, Error> {
    let written = match (from, to) {
        (_, None) => {
            api.delete(name, &DeleteParams::default()).await?;
            return Ok(None);
        }
        (None, Some(number)) => {
            let object = json!({
                "metadata": { "name": name, "labels": { "soak": "object" } }, "data": { "number": number.to_string() },
            });
            api.create(&PostParams::default(), &from_value(object).map_err(Error::SerdeError)?).await?
        }
        (Some(_), Some(number)) => {
            let patch = json!({ "data": { "number": number.to_string() } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?
        }
    };
    Ok(revision(&written))
}

/// Asks what became of an object, until there is an answer.
async fn settle(api: &mut Api<ConfigMap>, kubeconfig: &Path, name: &str) -> State {
    loop {
        match api.get_opt(name).await {
            Ok(found) => return found.as_ref().and_then(number),
            Err(_) => {
                tokio::time::sleep(RETRY).await;
                *api = self::api(kubeconfig).await;
            }
        }
    }
}

/// Watches for ever: goes on where it was as long as the server has the history, else begins anew with a list.
async fn watch(watcher: usize, kubeconfig: impl AsRef<Path>, history: Arc<History>) {
    loop {
        let api = api(kubeconfig.as_ref()).await;
        if let Ok(list) = api.list(&ListParams::default().labels(LABEL)).await
            && let Some(after) = list.metadata.resource_version.and_then(|version| version.parse().ok())
        {
            history.watches(watcher, after);
            follow(watcher, kubeconfig.as_ref(), &history, after).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Sees what comes after a revision, over as many connections as it takes, until that history is gone.
async fn follow(watcher: usize, kubeconfig: &Path, history: &History, mut after: u64) {
    loop {
        let api = api(kubeconfig).await;
        let parameters = WatchParams::default().labels(LABEL);
        if let Ok(events) = api.watch(&parameters, &after.to_string()).await {
            let mut events = events.boxed();
            while let Ok(Some(event)) = events.try_next().await {
                let (object, gone) = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) if status.code == 410 => return,
                    WatchEvent::Error(_) => break,
                };
                let Some(at) = revision(&object) else { continue };
                let state = if gone { None } else { number(&object) };
                history.sees(watcher, &object.name_any(), state, at);
                after = at.max(after);
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn revision(object: &ConfigMap) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

fn number(object: &ConfigMap) -> State {
    object.data.as_ref()?.get("number")?.parse().ok()
}
