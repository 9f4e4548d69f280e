//! The story of an object: what the log has of it, and what the journal says about why. Reads the store, and changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use informer::{JournalCause, JournalEntry, JournalObject, Reconciles};
use machinery::changes::{self, Change};
use registry::Author;
use scheduler::record::{Attempts, Records};
use serde_json::{Value, json};
use store::{EventKind, HistoryError, Key, LoggedChange, Revision, Store};

use super::entry::{Because, Entry, ObjectName, What, Writer};
use super::related::Related;

/// So many entries are told, the latest, with so many bytes of what changed.
const MOST: usize = 2_000;
const MOST_BYTES: usize = 16 << 20;
/// So many earlier changes are looked up, as the causes of what is told.
const MOST_CAUSES: usize = 200;
/// So many characters of a value that changed are told.
const LONGEST: usize = 512;
/// What is told of a value of a Secret.
const HIDDEN: &str = "(hidden)";
const SECRETS: &str = "core/secrets";
/// The resources of Events, which are told by what they say.
const EVENTS: [&str; 2] = ["core/events", "events.k8s.io/events"];

/// The scheduler as a component.
const SCHEDULER: &str = "kube-scheduler";

/// The kind of each resource by its name in the store.
pub(super) type Kinds = HashMap<Arc<str>, String>;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Whose story; everything's if it is none.
    pub(super) root: Option<Key>,
    /// Only its own changes, with values of any length.
    pub(super) itself_only: bool,
    /// The revision after which it begins.
    pub(super) after: Revision,
}

/// What happened.
#[derive(Debug)]
pub(super) struct Told {
    /// Oldest first.
    pub(super) entries: Vec<Entry>,
    /// Whether the object exists.
    pub(super) is_there: bool,
    /// Whether its creation is among what is told.
    pub(super) has_beginning: bool,
    /// Whether there was more than is told.
    pub(super) is_cut: bool,
    /// The newest revision by then.
    pub(super) revision: Revision,
}

/// Tells the story.
///
/// # Errors
/// When the log cannot be read, or is compacted meanwhile.
pub(super) fn tell(
    store: &Store,
    kinds: &Kinds,
    reconciles: &Reconciles,
    records: &Records,
    wanted: &Wanted,
) -> Result<Told, HistoryError> {
    let mut related = Related::of(wanted.root.clone(), wanted.itself_only, store);
    let is_there = related.is_there();
    let revision = store.revision();
    let (mut entries, mut bytes) = (VecDeque::new(), 0);
    let (mut is_cut, mut has_beginning) = (false, false);
    store.walk_log(wanted.after, revision, |change| {
        if !related.has(change) {
            return;
        }
        has_beginning |= change.kind == EventKind::Created && wanted.root.as_ref() == Some(&change.key);
        let entry = entry(change, kinds, wanted.itself_only);
        let size = size(&entry);
        bytes += size;
        entries.push_back((entry, size));
        while entries.len() > MOST || bytes > MOST_BYTES && entries.len() > 1 {
            bytes -= entries.pop_front().map_or(0, |(_, size)| size);
            is_cut = true;
        }
    })?;
    let mut entries: Vec<Entry> = entries.into_iter().map(|(entry, _)| entry).collect();
    if wanted.itself_only {
        return Ok(Told { entries, is_there, has_beginning, is_cut, revision });
    }
    let journal = Journal::read(reconciles);
    entries.iter_mut().for_each(|entry| journal.explain(entry));
    entries.extend(journal.deeds(&entries, wanted.root.is_none()));
    entries.extend(attempts(records, &entries));
    causes(store, kinds, &journal, &mut entries)?;
    entries.sort_by_key(|entry| (entry.time_micros, entry.revision));
    Ok(Told { entries, is_there, has_beginning, is_cut, revision })
}

/// The attempts of the scheduler in vain for the pods that are told of, as far as it remembers them. Nothing follows from such an
/// attempt, so the components note none: thousands of pods may wait.
fn attempts(records: &Records, told: &[Entry]) -> Vec<Entry> {
    let first = told.iter().map(|entry| entry.time_micros).min().unwrap_or(i64::MAX);
    let objects = told.iter().filter_map(|entry| entry.object.as_ref()).filter(|object| object.kind == "Pod");
    let pods: BTreeSet<(&str, &str)> = objects.map(|object| (&*object.namespace, &*object.name)).collect();
    let mut entries = Vec::new();
    for (namespace, name) in pods {
        let Some(record) = records.get(namespace, name) else { continue };
        let mut attempts = record.attempts();
        // The binding is told, and it is of the last one.
        if record.node.is_some() {
            attempts.pop();
        }
        for Attempts { from, to, since, outcome, .. } in attempts {
            let time_micros = since.as_microsecond();
            if time_micros < first {
                continue;
            }
            let which = if from == to { format!("attempt {from}") } else { format!("attempts {from} to {to}") };
            entries.push(Entry {
                time_micros,
                what: What::Did,
                revision: None,
                object: Some(ObjectName {
                    kind: "Pod".to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                }),
                text: Some(shortened(format!("no node, {which}: {outcome}"))),
                component: Some(SCHEDULER.to_owned()),
                author: None,
                changes: Vec::new(),
                because: Vec::new(),
                took_micros: None,
                is_cause: false,
            });
        }
    }
    entries
}

/// Adds the changes from which those that are told followed, and those from which these did, as far as they are remembered.
fn causes(store: &Store, kinds: &Kinds, journal: &Journal, entries: &mut Vec<Entry>) -> Result<(), HistoryError> {
    let mut known: HashSet<Revision> = entries.iter().filter_map(|entry| entry.revision).collect();
    let horizon = store.horizon();
    let mut at = 0;
    let mut found = 0;
    while at < entries.len() && found < MOST_CAUSES {
        let revisions: Vec<Revision> = entries[at].because.iter().filter_map(|because| because.revision).collect();
        at += 1;
        for revision in revisions {
            if revision <= horizon || !known.insert(revision) {
                continue;
            }
            store.walk_log(revision - 1, revision, |change| {
                let mut cause = entry(change, kinds, false);
                cause.is_cause = true;
                journal.explain(&mut cause);
                entries.push(cause);
                found += 1;
            })?;
        }
    }
    Ok(())
}

/// A change as the log has it.
fn entry(change: &LoggedChange<'_>, kinds: &Kinds, whole: bool) -> Entry {
    let key = &change.key;
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let kind = kinds.get(&key.resource).cloned().unwrap_or_else(|| key.resource.to_string());
    let what = match change.kind {
        EventKind::Created => What::Created,
        EventKind::Updated => What::Changed,
        EventKind::Deleted => What::Deleted,
    };
    let text = EVENTS.contains(&&*key.resource).then(|| event_text(&parse(&change.value)));
    let mut found = match &change.previous {
        Some(previous) if what == What::Changed && text.is_none() => {
            changes::between(&parse(previous), &parse(&change.value))
        }
        _ => Vec::new(),
    };
    let is_secret = &*key.resource == SECRETS;
    for Change { path, from, to } in &mut found {
        // An annotation of kubectl has a copy of the values.
        let hides = is_secret && (!path.starts_with("metadata.") || path.starts_with("metadata.annotations"));
        for value in [from, to].into_iter().flatten() {
            if hides {
                *value = HIDDEN.into();
            } else if !whole {
                shorten(value);
            }
        }
    }
    let author = Author::parse(&change.author).map(|author| Writer {
        user: author.user.into_owned(),
        program: author.program.into_owned(),
        verb: author.verb.into_owned(),
        subresource: author.subresource.into_owned(),
    });
    Entry {
        time_micros: i64::try_from(change.time).unwrap_or_default().saturating_mul(1_000),
        what,
        revision: Some(change.revision),
        object: Some(ObjectName { kind, namespace: key.namespace.to_string(), name: key.name.to_string() }),
        text,
        component: None,
        author,
        changes: found,
        because: Vec::new(),
        took_micros: None,
        is_cause: false,
    }
}

/// How many bytes of what changed an entry tells, roughly.
fn size(entry: &Entry) -> usize {
    let value = |value: &Option<Value>| value.as_ref().map_or(0, |value| value.to_string().len());
    entry.changes.iter().map(|change| change.path.len() + value(&change.from) + value(&change.to)).sum()
}

/// `Pulled: Container image is already present (3 times)`.
fn event_text(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    // Of `core/v1`, else of `events.k8s.io/v1`.
    let message = [text("message"), text("note")].into_iter().find(|message| !message.is_empty()).unwrap_or_default();
    let count = event["count"].as_u64().or_else(|| event["series"]["count"].as_u64()).unwrap_or(1);
    let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
    shortened(format!("{}: {message}{times}", text("reason")))
}

/// A text, cut to what anybody reads.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Makes a text of a value that is longer than anybody reads.
fn shorten(value: &mut Value) {
    let text = match &*value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        _ => return,
    };
    if text.char_indices().nth(LONGEST).is_some() {
        *value = json!(shortened(text.into_owned()));
    }
}

/// What the components noted.
struct Journal {
    entries: Vec<JournalEntry<'static>>,
    /// Which of them wrote a revision. A write that changes nothing answers with the revision that it found, so there may be
    /// several.
    by_revision: HashMap<Revision, Vec<usize>>,
    /// Which of them wrote to an object, by kind, namespace and name, and were answered without a revision: by a binding, and by
    /// some deletions.
    by_object: HashMap<(String, String, String), Vec<usize>>,
}

impl Journal {
    fn read(reconciles: &Reconciles) -> Self {
        let mut entries = Vec::new();
        reconciles.journal(|entry| entries.push(entry));
        let mut by_revision: HashMap<Revision, Vec<usize>> = HashMap::new();
        let mut by_object: HashMap<_, Vec<usize>> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            for write in entry.writes.iter().filter(|write| write.refused.is_none()) {
                let JournalObject { kind, namespace, name, revision } = &write.object;
                match revision {
                    Some(revision) => by_revision.entry(*revision).or_default().push(at),
                    None => {
                        let object = (kind.to_string(), namespace.to_string(), name.to_string());
                        by_object.entry(object).or_default().push(at);
                    }
                }
            }
        }
        Self { entries, by_revision, by_object }
    }

    /// Says of a change which component made it, and what woke that.
    fn explain(&self, entry: &mut Entry) {
        let of_revision = entry.revision.and_then(|revision| self.by_revision.get(&revision));
        let is_unanswered = entry.what == What::Deleted || entry.author.as_ref().is_some_and(|by| by.verb == "bind");
        let object = entry.object.as_ref().filter(|_| is_unanswered);
        let of_object = object.and_then(|ObjectName { kind, namespace, name }| {
            self.by_object.get(&(kind.clone(), namespace.clone(), name.clone()))
        });
        let written = of_revision.into_iter().chain(of_object).flatten();
        let noted = written.map(|at| &self.entries[*at]).find(|noted| noted.was_at_work(entry.time_micros));
        if let Some(noted) = noted {
            entry.component = Some(noted.component.clone().into_owned());
            entry.because = because(noted);
            entry.took_micros = Some(noted.took_micros);
        }
    }

    /// What was done outside of the API, or failed, on account of changes that are told, or to write them; of all if `all`.
    fn deeds(&self, told: &[Entry], all: bool) -> Vec<Entry> {
        let revisions: HashSet<Revision> = told.iter().filter_map(|entry| entry.revision).collect();
        let objects: HashSet<(&str, &str, &str)> = told
            .iter()
            .filter_map(|entry| entry.object.as_ref())
            .map(|object| (&*object.kind, &*object.namespace, &*object.name))
            .collect();
        let first = told.iter().map(|entry| entry.time_micros).min().unwrap_or(i64::MAX);
        let of_story = |object: &JournalObject<'_>| {
            object.revision.is_some_and(|revision| revisions.contains(&revision))
                || objects.contains(&(&*object.kind, &*object.namespace, &*object.name))
        };
        let is_told = |noted: &&JournalEntry<'_>| {
            let woken = noted.causes.iter().any(|cause| match cause {
                JournalCause::Change { object, .. } => of_story(object),
                JournalCause::Text(_) => false,
            });
            let syncs = pod_of(noted).is_some_and(|(namespace, name)| objects.contains(&("Pod", namespace, name)));
            let writes = noted.writes.iter().any(|write| of_story(&write.object));
            all || woken || syncs || writes
        };
        // What was done before the story begins led to it, or is of no interest.
        let in_time = |noted: &&JournalEntry<'_>| noted.ended_micros() >= first;
        self.entries.iter().filter(in_time).filter(is_told).flat_map(deeds_of).collect()
    }
}

/// Namespace and name of the pod that a kubelet's worker was at.
fn pod_of<'e>(noted: &'e JournalEntry<'_>) -> Option<(&'e str, &'e str)> {
    noted.key.split_once('/').filter(|_| noted.component == kubelet::COMPONENT)
}

/// What a component did outside of the API in one go, and whether it failed.
fn deeds_of(noted: &JournalEntry<'static>) -> impl Iterator<Item = Entry> {
    let object = noted.causes.iter().find_map(|cause| match cause {
        JournalCause::Change { object, .. } => Some(ObjectName {
            kind: object.kind.to_string(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }),
        JournalCause::Text(_) => None,
    });
    let object = pod_of(noted).map_or(object, |(namespace, name)| {
        Some(ObjectName { kind: "Pod".to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    });
    let told = move |what, after: u64, text: String| Entry {
        time_micros: noted.started_micros.saturating_add(i64::try_from(after).unwrap_or(i64::MAX)),
        what,
        revision: None,
        object: object.clone(),
        text: Some(text),
        component: Some(noted.component.to_string()),
        author: None,
        changes: Vec::new(),
        because: because(noted),
        took_micros: Some(noted.took_micros),
        is_cause: false,
    };
    // The status that is patched is in the log.
    let actions = noted.actions.iter().filter(|(_, action)| action != kubelet::PATCH_STATUS);
    let actions = actions.map(|(after, action)| (What::Did, *after, action.to_string()));
    let error = noted.error.as_ref().map(|error| (What::Failed, noted.took_micros, error.to_string()));
    let all: Vec<_> = actions.chain(error).collect();
    all.into_iter().map(move |(what, after, text)| told(what, after, text))
}

fn because(noted: &JournalEntry<'_>) -> Vec<Because> {
    let told = |cause: &JournalCause<'_>| match cause {
        JournalCause::Change { object, is_deleted } => Because {
            text: format!("{} {}{}", object.kind, object.name, if *is_deleted { " deleted" } else { "" }),
            // A deletion has a revision of its own, which no watch of an informer tells.
            revision: object.revision.filter(|_| !is_deleted),
        },
        JournalCause::Text(text) => Because { text: text.to_string(), revision: None },
    };
    let mut because: Vec<Because> = noted.causes.iter().map(told).collect();
    // A change may wake a component by more than one way.
    because.dedup();
    because
}
