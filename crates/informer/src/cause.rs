//! Causes: why a key is in a work queue.
//!
//! A key says what to reconcile and not why. The cause travels beside it, so that whoever reads a log, a trace or the
//! latest reconciles sees the change that led to a write. No decision may rest on it: events are lost and repeated.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

use crate::ObjectKey;

/// So many causes of one key are kept until it is reconciled; of the others the number is.
const KEPT: usize = 4;

/// The metadata of an object whose type does not matter.
trait HasMetadata: Send + Sync {
    fn metadata(&self) -> &ObjectMeta;
}

impl<K: kube::Resource + Send + Sync> HasMetadata for K {
    fn metadata(&self) -> &ObjectMeta {
        self.meta()
    }
}

/// Why a key was added to a queue. Cheap to make and to clone: it shares the informer's copy of the object.
#[derive(Clone)]
pub struct Cause(Kind);

#[derive(Clone)]
enum Kind {
    Object { kind: Arc<str>, object: Arc<dyn HasMetadata>, is_deleted: bool, hinted_by: Option<&'static str> },
    Text(&'static str),
}

impl Cause {
    /// The time after which a reconcile asked to be repeated has passed.
    pub const REQUEUE_AFTER: Self = Self(Kind::Text("requeued after a time"));
    /// The back-off after a reconcile that failed has passed.
    pub const RETRY: Self = Self(Kind::Text("retried after a failure"));

    /// A cause that is no object's change, such as the start of the controller.
    pub const fn new(text: &'static str) -> Self {
        Self(Kind::Text(text))
    }

    /// A change of an object, or the deletion of one that was last shown so.
    pub fn change<K>(kind: &Arc<str>, object: &Arc<K>, is_deleted: bool) -> Self
    where
        K: kube::Resource + Send + Sync + 'static,
    {
        let object: Arc<dyn HasMetadata> = Arc::<K>::clone(object);
        Self(Kind::Object { kind: Arc::clone(kind), object, is_deleted, hinted_by: None })
    }

    /// The same cause, which `plugin` says may help.
    #[must_use]
    pub fn hinted_by(mut self, plugin: &'static str) -> Self {
        if let Kind::Object { hinted_by, .. } = &mut self.0 {
            *hinted_by = Some(plugin);
        }
        self
    }

    /// The cause without the object, to be kept.
    pub(crate) fn record(&self) -> CauseRecord {
        match &self.0 {
            Kind::Text(text) => CauseRecord::Text(text),
            Kind::Object { kind, object, is_deleted, hinted_by } => CauseRecord::Change {
                object: ObjectVersion::of(Arc::clone(kind), object.metadata()),
                is_deleted: *is_deleted,
                hinted_by: *hinted_by,
            },
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.record())
    }
}

/// The causes of one key: the first few, how many more there were, and since when there is one.
#[derive(Debug, Clone)]
pub struct Causes {
    since: Instant,
    first: Cause,
    others: Vec<Cause>,
    more: usize,
}

impl Causes {
    /// The first cause.
    pub fn new(first: Cause) -> Self {
        // Most keys have one cause, and an empty vector is none.
        Self { since: Instant::now(), first, others: Vec::new(), more: 0 }
    }

    /// Adds `cause` to those of a key that may have none yet.
    pub fn add(causes: &mut Option<Self>, cause: Cause) {
        match causes {
            Some(causes) => causes.push(cause),
            None => *causes = Some(Self::new(cause)),
        }
    }

    /// Adds a further cause.
    pub fn push(&mut self, cause: Cause) {
        if self.others.len() + 1 < KEPT {
            self.others.push(cause);
        } else {
            self.more += 1;
        }
    }

    /// Since when there is a cause.
    pub fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn record(&self) -> (Vec<CauseRecord>, usize) {
        (std::iter::once(&self.first).chain(&self.others).map(Cause::record).collect(), self.more)
    }
}

/// An object at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Its kind.
    pub kind: Arc<str>,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its resourceVersion; none where no object was answered, or it is no number.
    pub revision: Option<u64>,
}

impl ObjectVersion {
    /// The object of `kind` that has this metadata.
    pub fn of(kind: Arc<str>, metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            kind,
            key: ObjectKey::new(text(&metadata.namespace), text(&metadata.name)),
            revision: metadata.resource_version.as_deref().and_then(|version| version.parse().ok()),
        }
    }
}

impl fmt::Display for ObjectVersion {
    /// `ReplicaSet default/web-5d4f @123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)?;
        self.revision.map_or(Ok(()), |revision| write!(f, " @{revision}"))
    }
}

/// A cause as a [`crate::Reconcile`] keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CauseRecord {
    /// An object changed.
    Change {
        /// The object as it was shown; of one that was deleted, as it was shown last.
        object: ObjectVersion,
        /// Whether it was deleted.
        is_deleted: bool,
        /// The plugin of the scheduler that says that the change may help.
        hinted_by: Option<&'static str>,
    },
    /// Something else, in words.
    Text(&'static str),
}

impl fmt::Display for CauseRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change { object, is_deleted, hinted_by } => {
                write!(f, "{object}{}", if *is_deleted { " deleted" } else { "" })?;
                hinted_by.map_or(Ok(()), |plugin| write!(f, ", a hint of {plugin}"))
            }
            Self::Text(text) => f.write_str(text),
        }
    }
}
