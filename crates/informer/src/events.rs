//! Events: what people read at the end of `kubectl describe`.
//!
//! A [`Recorder`] never makes its caller wait: events go through a bounded queue to one task, which folds repetitions
//! into one Event with a count (as upstream's correlator does) and drops what a single object reports too often.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::recent::Recent;

/// Events wait here while the API server is slow. More are dropped: they are hints for people, not state.
const QUEUED: usize = 1_000;
/// So many distinct events are remembered, so that a repetition raises a count, and the budgets of so many objects.
const REMEMBERED: usize = 4_096;
/// One object may report so many events in a burst ...
const BURST: f64 = 25.0;
/// ... and then one more in this time. Both are upstream's numbers.
const REFILL: Duration = Duration::from_secs(300);

/// Whether an event is good or bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something is wrong, and a person may have to act.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes Events on behalf of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Occurrence {
    about: About,
    type_: EventType,
    reason: String,
    message: String,
}

/// The object that an event is about. `ObjectReference` itself cannot be a key of a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct About {
    api_version: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    field_path: Option<String>,
}

impl Recorder {
    /// A recorder for `component` (for example `kubelet`), which runs on the node `host` if it is one of a node's.
    ///
    /// Must be called within a tokio runtime. Its task ends when the last clone is dropped.
    pub fn new(client: Client, component: impl Into<Cow<'static, str>>, host: Option<String>) -> Self {
        let component = component.into();
        let (queue, occurrences) = mpsc::channel(QUEUED);
        let writer = Writer {
            client,
            component,
            host,
            hashing: RandomState::new(),
            written: Recent::new(REMEMBERED),
            budgets: Recent::new(REMEMBERED),
        };
        tokio::spawn(writer.run(occurrences));
        Self { queue }
    }

    /// Reports that `reason` (a CamelCase word) happened to the object `about`, with a sentence for people.
    pub fn event(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) {
        let occurrence = Occurrence {
            about: About {
                api_version: about.api_version.clone(),
                kind: about.kind.clone(),
                namespace: about.namespace.clone(),
                name: about.name.clone(),
                uid: about.uid.clone(),
                field_path: about.field_path.clone(),
            },
            type_,
            reason: reason.into(),
            message: message.into(),
        };
        if let Err(error) = self.queue.try_send(occurrence) {
            debug!(%error, "event dropped");
        }
    }
}

struct Writer {
    client: Client,
    component: Cow<'static, str>,
    host: Option<String>,
    /// The texts of events are long, so of each event and object only a fingerprint is kept. Should two ever share one, a count
    /// is raised that should not be.
    hashing: RandomState,
    /// Under which name each event was written, and how often it occurred.
    written: Recent<u64, (String, i32)>,
    budgets: Recent<u64, Budget>,
}

impl Writer {
    async fn run(mut self, mut occurrences: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = occurrences.recv().await {
            if self.spend(&occurrence.about) {
                self.write(occurrence).await;
            }
        }
    }

    /// Takes one event from the object's budget; false if it is used up.
    fn spend(&mut self, about: &About) -> bool {
        let now = Instant::now();
        let object = self.hashing.hash_one(about);
        self.budgets.entry(object, || Budget::full(now)).spend(now)
    }

    async fn write(&mut self, occurrence: Occurrence) {
        // Events about objects of cluster scope live in `default`, as upstream has it.
        let namespace = occurrence.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let fingerprint = self.hashing.hash_one(&occurrence);
        if let Some((name, count)) = repeat(&mut self.written, fingerprint) {
            let patch = json!({ "count": count, "lastTimestamp": Time(Timestamp::now()) });
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return,
                // It was deleted, or has expired: write a new one.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return warn!(%error, "event not written"),
            }
        }
        let event = self.event(&occurrence, namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => self.written.insert(fingerprint, (name, 1)),
            // The namespace is going away together with what the event is about.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                debug!(reason = event.reason, "event refused: {}", status.message);
            }
            Err(error) => warn!(%error, "event not written"),
        }
    }

    fn event(&self, occurrence: &Occurrence, namespace: String) -> Event {
        let now = Timestamp::now();
        let about = &occurrence.about;
        Event {
            metadata: ObjectMeta {
                // Upstream's form: the object's name and the time in hexadecimal nanoseconds.
                name: Some(format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: about.api_version.clone(),
                kind: about.kind.clone(),
                namespace: about.namespace.clone(),
                name: about.name.clone(),
                uid: about.uid.clone(),
                field_path: about.field_path.clone(),
                resource_version: None,
            },
            type_: Some(occurrence.type_.as_str().to_owned()),
            reason: Some(occurrence.reason.clone()),
            message: Some(occurrence.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            event_time: None::<MicroTime>,
            source: Some(EventSource { component: Some(self.component.clone().into_owned()), host: self.host.clone() }),
            reporting_component: Some(self.component.clone().into_owned()),
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Event::default()
        }
    }
}

/// Counts a repetition: the Event's name and its new count. Nothing if this is the first occurrence.
fn repeat(written: &mut Recent<u64, (String, i32)>, fingerprint: u64) -> Option<(String, i32)> {
    let (name, count) = written.get_mut(&fingerprint)?;
    *count = count.saturating_add(1);
    Some((name.clone(), *count))
}

/// A token bucket.
struct Budget {
    tokens: f64,
    at: Instant,
}

impl Budget {
    fn full(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn refill(&self, now: Instant) -> f64 {
        let earned = (now - self.at).as_secs_f64() / REFILL.as_secs_f64();
        (self.tokens + earned).min(BURST)
    }

    fn spend(&mut self, now: Instant) -> bool {
        self.tokens = self.refill(now);
        self.at = now;
        let affordable = self.tokens >= 1.0;
        if affordable {
            self.tokens -= 1.0;
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str) -> Occurrence {
        Occurrence {
            about: About {
                api_version: None,
                kind: None,
                namespace: None,
                name: Some("nginx".to_owned()),
                uid: None,
                field_path: None,
            },
            type_: EventType::Normal,
            reason: "Pulled".to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn repetitions_raise_the_count_of_the_first_event() {
        let hashing = RandomState::new();
        let mut written = Recent::new(REMEMBERED);
        let [a, b] = ["a", "b"].map(|message| hashing.hash_one(occurrence(message)));
        assert_eq!(repeat(&mut written, a), None);
        written.insert(a, ("nginx.1".to_owned(), 1));
        assert_eq!(repeat(&mut written, a), Some(("nginx.1".to_owned(), 2)));
        assert_eq!(repeat(&mut written, hashing.hash_one(occurrence("a"))), Some(("nginx.1".to_owned(), 3)));
        assert_eq!(repeat(&mut written, b), None);
        written.insert(a, ("nginx.2".to_owned(), 1));
        assert_eq!(repeat(&mut written, a), Some(("nginx.2".to_owned(), 2)), "written anew");
        assert_eq!(written.len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let hashing = RandomState::new();
        let mut written = Recent::new(REMEMBERED);
        let mut budgets = Recent::new(REMEMBERED);
        for number in 0..REMEMBERED + 10 {
            let fingerprint = hashing.hash_one(occurrence(&number.to_string()));
            written.insert(fingerprint, (String::new(), 1));
            budgets.entry(fingerprint, || Budget::full(Instant::now())).spend(Instant::now());
        }
        assert_eq!((written.len(), budgets.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(repeat(&mut written, hashing.hash_one(occurrence("0"))), None, "the oldest went");
    }

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_spent_and_comes_back_slowly() {
        let mut budget = Budget::full(Instant::now());
        let spent = (0..100).filter(|_| budget.spend(Instant::now())).count();
        assert_eq!(spent, 25);
        tokio::time::advance(REFILL).await;
        assert!(budget.spend(Instant::now()));
        assert!(!budget.spend(Instant::now()));
    }
}
