//! The store against a simple model of it: random transactions, snapshots, watches, compactions and restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RESOURCES: [&str; 2] = [PODS, NODES];

/// What one transaction does. Names and words are few, so that preconditions often meet what they ask for.
#[derive(Clone, Debug)]
struct Change {
    resource: usize,
    name: u8,
    kind: ChangeKind,
    precondition: Wanted,
}

#[derive(Clone, Copy, Debug)]
enum ChangeKind {
    Put(u8),
    Delete,
    Check,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Absent,
    Current,
    Stale,
    Any,
}

#[derive(Clone, Debug)]
enum Step {
    /// Transactions that are under way at the same time.
    Commit(Vec<Vec<Change>>),
    /// Begin to watch a resource, some revisions ago.
    Watch(usize, u64),
    /// Watchers read so many events each.
    Read(usize),
    /// Watchers read all there is.
    Drain,
    /// Look at a resource as it was some revisions ago.
    LookBack(usize, u64),
    /// Compact, but for the last revisions.
    Compact(u64),
    Reopen,
}

fn change() -> impl Strategy<Value = Change> {
    let kind = prop_oneof![
        6 => (0..8_u8).prop_map(ChangeKind::Put),
        3 => Just(ChangeKind::Delete),
        1 => Just(ChangeKind::Check),
    ];
    let precondition = prop_oneof![
        2 => Just(Wanted::Absent),
        3 => Just(Wanted::Current),
        1 => Just(Wanted::Stale),
        4 => Just(Wanted::Any),
    ];
    (0..RESOURCES.len(), 0..6_u8, kind, precondition).prop_map(|(resource, name, kind, precondition)| Change {
        resource,
        name,
        kind,
        precondition,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let resource = 0..RESOURCES.len();
    let transaction = prop_oneof![
        4 => prop::collection::vec(change(), 1),
        1 => prop::collection::vec(change(), 0..4),
    ];
    prop_oneof![
        12 => prop::collection::vec(transaction, 1..12).prop_map(Step::Commit),
        3 => (resource.clone(), 0..30_u64).prop_map(|(r, back)| Step::Watch(r, back)),
        3 => (1..10_usize).prop_map(Step::Read),
        2 => Just(Step::Drain),
        4 => (resource, 0..30_u64).prop_map(|(r, back)| Step::LookBack(r, back)),
        1 => (0..25_u64).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// An object: its value, its revision, the revision that created it.
type Object = (String, Revision, Revision);
type Objects = BTreeMap<(usize, u8), Object>;

/// All that ever happened.
#[derive(Default)]
struct Model {
    /// The state after each revision; the first is that of revision 0.
    states: Vec<Objects>,
    /// Revision, resource, and the event in words.
    events: Vec<(Revision, usize, String)>,
    horizon: Revision,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![Objects::new()], ..Self::default() }
    }

    fn revision(&self) -> Revision {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &Objects {
        &self.states[self.states.len() - 1]
    }

    fn expectation(&self, change: &Change) -> Precondition {
        let current = self.now().get(&(change.resource, change.name));
        match (change.precondition, current) {
            (Wanted::Absent, _) => Precondition::Absent,
            (Wanted::Any, _) => Precondition::Any,
            (Wanted::Current, Some((_, revision, _))) => Precondition::Revision(*revision),
            (Wanted::Stale, Some((_, revision, _))) => Precondition::Revision(revision - 1),
            (Wanted::Current | Wanted::Stale, None) => Precondition::Revision(1),
        }
    }

    /// What becomes of a transaction: a revision, or why not.
    fn commit(&mut self, changes: &[(Change, Precondition)]) -> Result<Revision, String> {
        for (at, (change, _)) in changes.iter().enumerate() {
            let writes = |c: &Change| !matches!(c.kind, ChangeKind::Check);
            let same = |c: &Change| (c.resource, c.name) == (change.resource, change.name);
            if writes(change) && changes[..at].iter().any(|(c, _)| writes(c) && same(c)) {
                return Err("invalid".to_owned());
            }
        }
        for (at, (change, precondition)) in changes.iter().enumerate() {
            let current = self.now().get(&(change.resource, change.name));
            let holds = match precondition {
                Precondition::Absent => current.is_none(),
                Precondition::Revision(r) => current.is_some_and(|c| c.1 == *r),
                Precondition::Any => true,
            };
            if !holds || (matches!(change.kind, ChangeKind::Delete) && current.is_none()) {
                return Err(format!("conflict at {at} with {:?}", current.map(|c| c.1)));
            }
        }
        if changes.iter().all(|(c, _)| matches!(c.kind, ChangeKind::Check)) {
            return Ok(self.revision());
        }
        let revision = self.revision() + 1;
        let mut state = self.now().clone();
        for (change, _) in changes {
            let key = (change.resource, change.name);
            let before = state.get(&key).cloned();
            let old = before.as_ref().map_or("-", |b| b.0.as_str());
            let event = match change.kind {
                ChangeKind::Check => continue,
                ChangeKind::Put(word) => {
                    let kind = if before.is_some() { "Updated" } else { "Created" };
                    let value = format!("w{word}@{revision}!");
                    let event = format!("{kind} {value} {old}");
                    let create_revision = before.map_or(revision, |b| b.2);
                    state.insert(key, (value, revision, create_revision));
                    event
                }
                ChangeKind::Delete => {
                    state.remove(&key);
                    format!("Deleted end@{revision}! {old}")
                }
            };
            self.events.push((revision, change.resource, event));
        }
        self.states.push(state);
        Ok(revision)
    }

    fn at(&self, resource: usize, revision: Revision) -> Vec<(String, Object)> {
        let state = &self.states[usize::try_from(revision).unwrap()];
        let of = state.iter().filter(|((r, _), _)| *r == resource);
        of.map(|((_, name), object)| (format!("n{name}"), object.clone())).collect()
    }

    fn events_after(&self, resource: usize, after: Revision) -> Vec<(Revision, &str)> {
        let of = self.events.iter().filter(|(r, of, _)| *of == resource && *r > after);
        of.map(|(r, _, event)| (*r, event.as_str())).collect()
    }
}

/// A watcher, and how many events of the model it has seen since it began.
struct Watching {
    watcher: Watcher,
    resource: usize,
    after: Revision,
    seen: usize,
}

fn op(change: &Change, precondition: Precondition) -> Op {
    let resource = RESOURCES[change.resource];
    let name = format!("n{}", change.name);
    let key = Key::new(resource, "default", name.as_str());
    match change.kind {
        ChangeKind::Put(word) => put_in(resource, &name, &format!("w{word}"), precondition),
        ChangeKind::Delete => {
            let last = encoded("end");
            Op::Delete { key, last, precondition }
        }
        ChangeKind::Check => Op::Check { key, precondition },
    }
}

fn objects(snapshot: &Snapshot) -> Vec<(String, Object)> {
    let object = |e: &std::sync::Arc<Entry>| {
        assert_eq!(e.attributes, attributes_of(&e.key, &e.value));
        (e.key.name.to_string(), (value(e).to_owned(), e.revision, e.create_revision))
    };
    snapshot.iter().map(object).collect()
}

/// Waits until a watch that has shown everything knows that. What is on disk alone is only looked at by those who wait.
async fn caught_up(watcher: &mut Watcher, revision: Revision) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while watcher.progress() != revision {
        assert!(tokio::time::Instant::now() < deadline, "it stands at {}, not at {revision}", watcher.progress());
        let more = tokio::time::timeout(Duration::from_millis(50), watcher.next()).await;
        assert!(more.is_err(), "everything was shown: {more:?}");
    }
}

/// Reads up to `limit` events. Returns false if the watch is over.
async fn read(model: &Model, watching: &mut Watching, limit: usize) -> bool {
    let due = model.events_after(watching.resource, watching.after);
    // What it saw last. The store may know that it stands further on, but never takes it for further behind.
    let mut position = match watching.seen {
        0 => watching.after,
        seen => due[seen - 1].0,
    };
    for (revision, expected) in due.into_iter().skip(watching.seen).take(limit) {
        match next(&mut watching.watcher).await {
            Ok(event) => assert_eq!(event, expected),
            Err(WatchError::Compacted(_)) => {
                // Only where what happened since then is not all kept. Whether any of it was of this resource, nobody
                // can tell any more.
                assert!(position < model.horizon, "everything after {position} is kept");
                return false;
            }
            Err(other) => panic!("{other}"),
        }
        position = revision;
        watching.seen += 1;
    }
    true
}

async fn commit(store: &Store, model: &mut Model, transactions: &[Vec<Change>]) {
    let mut expected = Vec::new();
    let mut commits = Vec::new();
    for changes in transactions {
        let changes: Vec<(Change, Precondition)> = changes.iter().map(|c| (c.clone(), model.expectation(c))).collect();
        let ops: Vec<Op> = changes.iter().map(|(c, precondition)| op(c, *precondition)).collect();
        expected.push(model.commit(&changes));
        commits.push(store.commit(ops));
    }
    // They are queued in this order, and most of them written together.
    let outcomes = join_all(commits).await;
    for (outcome, expected) in outcomes.into_iter().zip(expected) {
        let outcome = match outcome {
            Ok(committed) => Ok(committed.revision),
            Err(CommitError::Conflict { op, current }) => {
                Err(format!("conflict at {op} with {:?}", current.map(|c| c.revision)))
            }
            Err(CommitError::Invalid { .. }) => Err("invalid".to_owned()),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(outcome, expected);
    }
}

async fn run(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let mut store = reopen(dir.path());
    let mut model = Model::new();
    let mut watches: Vec<Watching> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(transactions) => commit(&store, &mut model, &transactions).await,
            Step::Watch(resource, back) => {
                let after = model.revision().saturating_sub(back);
                match store.watch(RESOURCES[resource], after) {
                    Ok(watcher) => watches.push(Watching { watcher, resource, after, seen: 0 }),
                    Err(compacted) => {
                        assert!(after < model.horizon);
                        assert_eq!(compacted.horizon, model.horizon);
                    }
                }
            }
            Step::Read(limit) => {
                let mut left = Vec::new();
                for mut watching in watches {
                    if read(&model, &mut watching, limit).await {
                        left.push(watching);
                    }
                }
                watches = left;
            }
            Step::Drain => {
                let mut left = Vec::new();
                for mut watching in watches {
                    if read(&model, &mut watching, usize::MAX).await {
                        assert!(watching.watcher.try_next().is_none());
                        caught_up(&mut watching.watcher, model.revision()).await;
                        left.push(watching);
                    }
                }
                watches = left;
            }
            Step::LookBack(resource, back) => {
                let revision = model.revision().saturating_sub(back);
                match store.snapshot_at(RESOURCES[resource], revision).await {
                    Ok(snapshot) => {
                        assert_eq!(snapshot.revision(), revision);
                        assert_eq!(objects(&snapshot), model.at(resource, revision));
                    }
                    Err(HistoryError::Compacted(_)) => assert!(revision < model.horizon),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Compact(keep) => {
                let to = model.revision().saturating_sub(keep);
                model.horizon = model.horizon.max(to);
                assert_eq!(store.compact(to).await.unwrap(), model.horizon);
            }
            Step::Reopen => {
                watches.clear();
                store.close().await;
                store = reopen(dir.path());
            }
        }
        assert_eq!(store.revision(), model.revision());
        for (at, resource) in RESOURCES.iter().enumerate() {
            let snapshot = store.snapshot(resource);
            assert_eq!(objects(&snapshot), model.at(at, model.revision()));
        }
    }
    for mut watching in watches {
        read(&model, &mut watching, usize::MAX).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(steps));
    }
}
