//! Shared informers and work queues: how every component of the control plane sees the cluster.
//!
//! A component reads from an [`Informer`], a local copy of all objects of one kind which a watch keeps current, and is
//! told of changes by a callback that does one thing only: put a key into a [`WorkQueue`]. A reconciler takes keys from
//! the queue, looks at the informers, and acts through a [`kube::Client`]. It gets a key, never an event, so a lost,
//! repeated or reordered event changes nothing.
//!
//! ```text
//!   watch ──► Informer ──on_change──► WorkQueue ──► run(reconcile) ──► kube::Client
//!                ▲                                      │ reads
//!                └──────────────────────────────────────┘
//! ```
//!
//! Every reconcile passes [`run`], which says of each what woke it (the [`Cause`] travels beside the key, and no decision may
//! rest on it), what it wrote and how it ended: in a span, in metrics, and among the latest [`Reconciles`]. Components that
//! have no work queue (the kubelet's pod workers, the scheduler, the proxy, DNS) are [`Reconciler`]s, and say the same of
//! what they do with a [`ReconcileReporter`].
//!
//! What came of them is kept for a while in a journal of bounded size ([`Reconciles::journal`]), for who asks why something
//! happened.
//!
//! Each of them can be paused and do its work in single steps ([`PauseSwitch`]), those without a work queue if they say so.
//!
//! [`Informers`] is the shared set: within one process there is one watch and one copy for each kind, whoever asks.
//! [`Recorder`] writes the Events that people read in `kubectl describe`.
//!
//! This crate builds on `kube::runtime` and knows nothing of where the API server is or how it stores things.

mod cause;
mod events;
mod informer;
mod informers;
mod journal;
mod key;
mod kinds;
mod metrics;
mod pause;
mod queue;
mod recent;
mod reconciles;
mod runner;
mod slices;
mod sparse;

pub use cause::{Cause, CauseRecord, Causes, ObjectVersion};
pub use events::{EventType, Recorder};
pub use informer::{Change, Informer};
pub use informers::Informers;
pub use journal::{JournalCause, JournalEntry, JournalObject, JournalWrite};
pub use key::ObjectKey;
pub use kinds::Watched;
pub use pause::{PauseSwitch, Step, StepPermit};
pub use queue::{WeakWorkQueue, Work, WorkQueue};
pub use recent::Recent;
pub use reconciles::{
    Component, Did, DurationMetric, Ending, Reconcile, ReconcileReporter, Reconciler, Reconciles, Running, Write,
};
pub use runner::{Action, record_write, run};
pub use slices::{SERVICE_NAME, service_of, services_of};
pub use sparse::give_back;

/// What a type must offer to be watched: any kind of `k8s-openapi` does, and so does `kube`'s `PartialObjectMeta`.
pub trait Object:
    kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static
{
}
