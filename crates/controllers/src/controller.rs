//! What a controller is, and how each is run.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;

use informer::{Action, Informer, Informers, Object, Recorder, Watched, WorkQueue};
use k8s_openapi::NamespaceResourceScope;
use kube::Client;
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::client::{Error, requeue_on_conflict};
use crate::expectations::Expectations;

/// What a controller is made from.
#[derive(Clone)]
pub struct Context {
    /// Writes.
    pub client: Client,
    /// Reads.
    pub informers: Informers,
    /// How the controllers are configured.
    pub config: Arc<Config>,
    /// Triggered when the controller is to stop.
    pub cancel: CancellationToken,
}

impl Context {
    /// The shared informer of all objects of a kind.
    pub fn informer<K: Watched>(&self) -> Informer<K> {
        self.informers.informer()
    }

    /// An informer of the controller's own, of the objects that `config` selects: they may be few among many.
    pub fn informer_of_selected<K>(&self, config: watcher::Config) -> Informer<K>
    where
        K: Object,
        K::DynamicType: Clone + Default,
    {
        Informer::start(kube::Api::all(self.client.clone()), config.streaming_lists(), self.cancel.clone())
    }

    /// What a controller writes to the objects of a namespace that `informer` shows.
    pub fn expectations<K>(&self, informer: &Informer<K>) -> Expectations
    where
        K: Object<DynamicType = ()> + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let client = self.client.clone();
        Expectations::of(informer, move |namespace| kube::Api::namespaced(client.clone(), namespace))
    }

    /// A recorder of Events that come from `component`.
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::new(self.client.clone(), component, None)
    }
}

/// A controller: from keys to writes, as in `sigs.k8s.io/controller-runtime`.
///
/// To add one, implement this for a type in a file or folder of its own, and add its row to `ROWS`; in an addon, to the rows
/// that the composition root starts.
pub trait Controller: Sized + Send + Sync + 'static {
    /// Its name in logs and metrics: that of upstream's work queue where it has one for the same.
    const NAME: &'static str;
    /// How many keys are worked on at once, of the number that is configured.
    const WORKERS: fn(usize) -> usize = |configured| configured;
    /// What it reconciles: mostly the [`informer::ObjectKey`] of an object.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// The controller, before it has seen anything. `queue` is what it is given keys from.
    fn new(context: &Context, queue: WorkQueue<Self::Key>) -> Self;

    /// Has informers put keys into the queue.
    fn watch(self: &Arc<Self>);

    /// Waits until the informers show all that there is: a decision made earlier would take the unknown for the absent.
    fn synced(&self) -> impl Future<Output = ()> + Send;

    /// Brings what `key` stands for closer to what is asked for. It must be right whatever woke it and however often.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Action, Error>> + Send;

    /// What runs beside the workers: watches that no informer keeps. It is dropped when the controller stops.
    fn background(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Runs a controller until the context's token is triggered; then the reconciles under way end.
pub async fn run<C: Controller>(context: Context) {
    let queue = context.informers.queue(C::NAME);
    let controller = Arc::new(C::new(&context, queue.clone()));
    controller.watch();
    let cancel = context.cancel;
    let work = async {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = controller.synced() => {}
        }
        informer::run(queue, C::WORKERS(context.config.workers), cancel.clone(), |key: C::Key| {
            let controller = Arc::clone(&controller);
            async move { requeue_on_conflict(controller.reconcile(&key).await) }
        })
        .await;
    };
    let background = async {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = controller.background() => {}
        }
    };
    futures::join!(work, background);
}

/// A controller in the table.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// Runs it until the context's token is triggered.
    pub run: fn(Context) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Row {
    /// The row of `C`.
    pub const fn of<C: Controller>() -> Self {
        Self { name: C::NAME, run: |context| Box::pin(run::<C>(context)) }
    }
}

#[cfg(test)]
mod tests;
