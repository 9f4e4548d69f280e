//! The shared set of informers of a process.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;

use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{Informer, Object, Reconciles, Watched, WorkQueue};

/// One [`Informer`] for each kind, over all namespaces, started when it is first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    cancel: CancellationToken,
    reconciles: Reconciles,
    started: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
}

impl Informers {
    /// An empty set that will watch through `client` until `cancel` is triggered.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self { client, cancel, reconciles: Reconciles::default(), started: Arc::default() }
    }

    /// The same set, whose controllers and components report to `reconciles`.
    #[must_use]
    pub fn reporting_to(self, reconciles: Reconciles) -> Self {
        Self { reconciles, ..self }
    }

    /// An empty work queue for the controller called `name`.
    pub fn queue<K>(&self, name: &'static str) -> WorkQueue<K>
    where
        K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    {
        self.reconciles.queue(name)
    }

    /// What the controllers do that work with these informers.
    pub fn reconciles(&self) -> &Reconciles {
        &self.reconciles
    }

    /// The informer of all objects of the built-in kind `K`.
    ///
    /// Must be called within a tokio runtime, since it may have to start the watch.
    pub fn informer<K: Watched>(&self) -> Informer<K> {
        K::informer(self)
    }

    /// As [`Informers::informer`], of any kind; its code is compiled in the crate that asks.
    pub fn informer_of<K>(&self) -> Informer<K>
    where
        K: Object,
        K::DynamicType: Default + Clone,
    {
        let mut started = self.started.lock();
        let slot = started.entry(TypeId::of::<K>()).or_insert_with(|| {
            Box::new(Informer::<K>::start(
                Api::all(self.client.clone()),
                watcher::Config::default().streaming_lists(),
                self.cancel.clone(),
            ))
        });
        match slot.downcast_ref::<Informer<K>>() {
            Some(informer) => informer.clone(),
            None => unreachable!("the map's key is the type of its value"),
        }
    }
}
