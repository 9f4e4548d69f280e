//! What all components did lately, in the order in which it ended, each piece with what woke it and what it wrote.
//!
//! It is kept for whoever asks later why something happened, and mostly nobody does: so a reconcile is written down as text, in
//! large pages of which the oldest goes as a whole. Small objects that live that long would lie strewn between those of a burst
//! of work, and keep their memory from being given back.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::cause::{CauseRecord, ObjectVersion};
use crate::reconciles::{Ending, Reconcile};

/// How large a page is, in bytes. What is longer than that is alone on one.
const PAGE: usize = 64 << 10;
/// How many pages there are: 2 MiB, which is some five thousand reconciles.
const PAGES: usize = 32;

/// The latest reconciles of all components. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<VecDeque<Page>>>);

/// Lines of JSON, each a [`JournalEntry`]. Readers share those that are there; only the newest page is ever added to.
type Page = Arc<Vec<u8>>;

/// A reconcile as it is kept: one that wrote or did something, or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry<'a> {
    /// The component: the controller's name, or that of a [`crate::Reconciler`].
    pub component: Cow<'a, str>,
    /// The key.
    pub key: Cow<'a, str>,
    /// When it began, in microseconds since 1970.
    pub started_micros: i64,
    /// How long it took, in microseconds.
    pub took_micros: u64,
    /// How long the key had waited by then, in microseconds.
    pub waited_micros: u64,
    /// What woke it: the first few causes.
    pub causes: Vec<JournalCause<'a>>,
    /// The first writes.
    pub writes: Vec<JournalWrite<'a>>,
    /// What it did to anything but the API: when, in microseconds from its beginning, and what.
    pub actions: Vec<(u64, Cow<'a, str>)>,
    /// With which error it failed.
    pub error: Option<Cow<'a, str>>,
    /// Why it did not do more, where it says so.
    pub reason: Option<Cow<'a, str>>,
}

/// A cause of a [`JournalEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalCause<'a> {
    /// An object changed, or was deleted: then it is as it was shown last.
    Change {
        /// The object, as it was then.
        object: JournalObject<'a>,
        /// Whether it was deleted.
        is_deleted: bool,
    },
    /// Something else, in words.
    Text(Cow<'a, str>),
}

/// A write of a [`JournalEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalWrite<'a> {
    /// The verb of the API.
    pub verb: Cow<'a, str>,
    /// The subresource; empty for the object itself.
    pub subresource: Cow<'a, str>,
    /// What was written, at the revision that the write led to.
    pub object: JournalObject<'a>,
    /// The status code with which it was refused; zero if nobody answered; none if it was done.
    pub refused: Option<u16>,
}

/// An object at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalObject<'a> {
    /// Its kind.
    pub kind: Cow<'a, str>,
    /// Its namespace; empty for one of cluster scope.
    pub namespace: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its resourceVersion, where it is known.
    pub revision: Option<u64>,
}

impl<'a> JournalEntry<'a> {
    /// When it ended, in microseconds since 1970.
    pub fn ended_micros(&self) -> i64 {
        self.started_micros.saturating_add(i64::try_from(self.took_micros).unwrap_or(i64::MAX))
    }

    /// Whether it ran at a time, given in microseconds since 1970 of which only the millisecond is known.
    pub fn was_at_work(&self, millisecond: i64) -> bool {
        self.started_micros < millisecond.saturating_add(1_000) && self.ended_micros() >= millisecond
    }

    fn of(component: &'a str, reconcile: &'a Reconcile) -> Self {
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let cause = |cause: &'a CauseRecord| match cause {
            CauseRecord::Change { object, is_deleted, .. } => {
                JournalCause::Change { object: JournalObject::of(object), is_deleted: *is_deleted }
            }
            CauseRecord::Text(text) => JournalCause::Text((*text).into()),
        };
        Self {
            component: component.into(),
            key: (&*reconcile.key).into(),
            started_micros: reconcile.started_at.as_microsecond(),
            took_micros: micros(reconcile.took),
            waited_micros: micros(reconcile.waited),
            causes: reconcile.causes.iter().map(cause).collect(),
            writes: reconcile
                .writes
                .iter()
                .map(|write| JournalWrite {
                    verb: write.verb.into(),
                    subresource: write.subresource.into(),
                    object: JournalObject::of(&write.object),
                    refused: write.refused,
                })
                .collect(),
            actions: reconcile.actions.iter().map(|did| (micros(did.after), (&*did.what).into())).collect(),
            error: match &reconcile.ending {
                Ending::Failed(error) => Some((&**error).into()),
                Ending::Panicked => Some("panicked".into()),
                Ending::AwaitChange | Ending::RequeueAfter(_) => None,
            },
            reason: reconcile.reason.as_deref().map(Into::into),
        }
    }
}

impl<'a> JournalObject<'a> {
    fn of(object: &'a ObjectVersion) -> Self {
        Self {
            kind: (&*object.kind).into(),
            namespace: (&*object.key.namespace).into(),
            name: (&*object.key.name).into(),
            revision: object.revision,
        }
    }
}

impl Journal {
    /// Keeps a reconcile of a component, unless nothing came of it.
    pub(crate) fn note(&self, component: &str, reconcile: &Reconcile) {
        let failed = matches!(reconcile.ending, Ending::Failed(_) | Ending::Panicked);
        if reconcile.writes.is_empty() && reconcile.actions.is_empty() && !failed {
            return;
        }
        // What it is made of can all be written as JSON.
        let Ok(line) = serde_json::to_vec(&JournalEntry::of(component, reconcile)) else { return };
        let mut pages = self.0.lock();
        let has_room = |page: &Page| page.len() + line.len() < page.capacity();
        if !pages.back().is_some_and(has_room) {
            if pages.len() == PAGES {
                pages.pop_front();
            }
            pages.push_back(Arc::new(Vec::with_capacity(PAGE.max(line.len() + 1))));
        }
        if let Some(page) = pages.back_mut() {
            // A reader that has it keeps the old one; a copy would have no room for more.
            if Arc::get_mut(page).is_none() {
                let mut copy = Vec::with_capacity(page.capacity());
                copy.extend_from_slice(page);
                *page = Arc::new(copy);
            }
            if let Some(page) = Arc::get_mut(page) {
                page.extend_from_slice(&line);
                page.push(b'\n');
            }
        }
    }

    /// Shows all that is kept, oldest first.
    pub(crate) fn read(&self, mut look: impl FnMut(JournalEntry<'static>)) {
        let pages: Vec<Page> = self.0.lock().iter().map(Arc::clone).collect();
        for page in pages {
            let lines = page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(&mut look);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reconciles::{Did, Write};
    use crate::{CauseRecord, ObjectKey};

    fn reconcile(name: &str, ending: Ending) -> Reconcile {
        Reconcile {
            key: format!("ns/{name}"),
            causes: Vec::new(),
            more_causes: 0,
            started_at: k8s_openapi::jiff::Timestamp::from_second(7).expect("a time"),
            waited: Duration::from_millis(2),
            took: Duration::from_millis(3),
            writes: Vec::new(),
            more_writes: 0,
            actions: Vec::new(),
            more_actions: 0,
            ending,
            reason: None,
        }
    }

    fn object(name: &str, revision: u64) -> ObjectVersion {
        ObjectVersion { kind: "Pod".into(), key: ObjectKey::new("ns", name), revision: Some(revision) }
    }

    /// The keys of what is kept, oldest first.
    fn keys(journal: &Journal) -> Vec<String> {
        let mut keys = Vec::new();
        journal.read(|entry| keys.push(entry.key.into_owned()));
        keys
    }

    #[test]
    fn what_was_done_is_told_as_it_was() {
        let journal = Journal::default();
        let mut full = reconcile("a \"quoted\" name", Ending::AwaitChange);
        full.causes = vec![
            CauseRecord::Change { object: object("a", 5), is_deleted: true, hinted_by: None },
            CauseRecord::Text("requeued after a time"),
        ];
        full.writes =
            vec![Write { verb: "create", object: object("b", 6), subresource: "binding", refused: Some(409) }];
        full.actions = vec![Did { after: Duration::from_micros(9), what: "start".into() }];
        full.reason = Some("it is full".into());
        journal.note("replicaset", &full);
        journal.note("replicaset", &reconcile("idle", Ending::AwaitChange));
        journal.note("replicaset", &reconcile("failed", Ending::Failed("no\nluck".to_owned())));
        let mut told = Vec::new();
        journal.read(|entry| {
            told.push(serde_json::to_string(&entry).expect("text"));
        });
        assert_eq!(told.len(), 2, "nothing came of one of them: {told:?}");
        let expected = serde_json::to_string(&JournalEntry::of("replicaset", &full)).expect("text");
        assert_eq!(told[0], expected);
        for part in [
            r#""started_micros":7000000,"took_micros":3000,"waited_micros":2000"#,
            r#"{"Change":{"object":{"kind":"Pod","namespace":"ns","name":"a","revision":5},"is_deleted":true}}"#,
            r#""refused":409"#,
            r#"[[9,"start"]]"#,
        ] {
            assert!(expected.contains(part), "{part} is missing in {expected}");
        }
        assert!(told[1].contains(r#""error":"no\nluck""#), "{}", told[1]);
    }

    #[test]
    fn the_oldest_page_goes() {
        let journal = Journal::default();
        let mut one = reconcile("x", Ending::AwaitChange);
        let mut number = 0;
        let mut note = |journal: &Journal, length: usize| {
            one.key = format!("{number}");
            one.actions = vec![Did { after: Duration::ZERO, what: "x".repeat(length).into() }];
            journal.note("test", &one);
            number += 1;
        };
        // Longer than a page; and a reader does not disturb what comes next.
        note(&journal, 2 * PAGE);
        let reader = journal.0.lock().clone();
        note(&journal, 10);
        assert_eq!(keys(&journal), ["0", "1"]);
        drop(reader);
        for _ in 0..20 * PAGES {
            note(&journal, PAGE / 10);
        }
        let kept = keys(&journal);
        let held: usize = journal.0.lock().iter().map(|page| page.capacity()).sum();
        assert!(held <= PAGE * PAGES, "{held}");
        assert!(kept.len() > 8 * PAGES && kept.last() == Some(&(number - 1).to_string()), "{}", kept.len());
        let following = kept.windows(2).all(|pair| pair[0].parse::<usize>().ok() < pair[1].parse().ok());
        assert!(following && kept[0] != "0");
    }
}
