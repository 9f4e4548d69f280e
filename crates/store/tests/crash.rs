//! Kills a writing process at random points, hundreds of times, and looks at what is left.
//!
//! The process is this test binary itself, told by its environment to write instead of testing. It prints what was
//! acknowledged to it and what its watchers saw. After each kill the store is opened here, and must agree:
//! - nothing that was acknowledged or seen is missing or different;
//! - revisions have no gap, and none is used twice;
//! - a watch that goes on from an earlier revision sees every event after it, once, in order;
//! - the events played back give exactly the objects that are there.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use coracle_store as store;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use store::{
    Attributes, CommitError, Encoded, Event, EventKind, Key, Op, OpenError, Options, Precondition, Revision, Store,
    Watcher,
};

const RESOURCES: [&str; 2] = ["core/pods", "core/nodes"];
const DIR: &str = "CORACLE_STORE_CRASH_DIR";
const RESUME: &str = "CORACLE_STORE_CRASH_RESUME";
/// More kills than the default, for a long look.
const KILLS: &str = "CORACLE_STORE_CRASH_KILLS";
const CLIENTS: u64 = 6;
/// How much of the log the writers leave.
const KEEP: u64 = 300;

/// Kind, key and a hash of the value: one line of what happened.
type Happened = String;

#[test]
fn nothing_acknowledged_is_lost_when_the_writer_is_killed() {
    let kills = env::var(KILLS).map_or(200, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let mut rng = StdRng::seed_from_u64(rand::rng().next_u64());
    let mut history = History::default();
    let (mut acknowledged, mut seen) = (0, 0);
    for kill in 0..kills {
        let known = history.revision();
        let resume = known.saturating_sub(rng.random_range(0..KEEP / 2));
        let mut writer = Writer::spawn(dir.path(), resume);
        // Some are killed while they recover, most while they write.
        if rng.random_ratio(4, 5) {
            writer.wait_for("open");
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..40_000)));
        let lines = writer.kill();

        runtime.block_on(async {
            let store = open(dir.path());
            history.extend(&store).await;
            history.check_objects(&store);
            let counts = history.check_lines(&lines, resume);
            acknowledged += counts.0;
            seen += counts.1;
            store.close().await;
        });
        assert!(history.revision() >= known, "kill {kill}");
    }
    let per_kill = format!("{acknowledged} acknowledged, {seen} seen, {kills} kills");
    assert!(acknowledged > kills && seen > kills, "{per_kill}");
}

#[test]
fn another_process_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::spawn(dir.path(), 0);
    writer.wait_for("open");
    match Store::open(options(dir.path()), describe) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(writer.child.id())),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two processes have the store"),
    }
    writer.kill();
    // The lock went with the process.
    drop(open(dir.path()));
}

/// Not a test: what the killed process does.
#[test]
fn writer_process() {
    let Some(dir) = env::var_os(DIR) else {
        return;
    };
    let resume = env::var(RESUME).unwrap().parse().unwrap();
    // The line that the test harness has begun ends here.
    say("");
    runtime().block_on(write_for_ever(Path::new(&dir), resume));
}

async fn write_for_ever(dir: &Path, resume: Revision) {
    let store = open(dir);
    say(&format!("open {}", store.revision()));
    let mut tasks = tokio::task::JoinSet::new();
    for (number, resource) in RESOURCES.into_iter().enumerate() {
        let mut watcher = store.watch(resource, resume).unwrap();
        tasks.spawn(async move {
            loop {
                let event = watcher.next().await.unwrap();
                let (revision, what) = (event.revision, happened(&event));
                say(&format!("saw {number} {revision} {what}"));
            }
        });
    }
    for client in 0..CLIENTS {
        let store = store.clone();
        tasks.spawn(async move { write(&store, client).await });
    }
    tasks.join_next().await;
    unreachable!("writers write until they are killed");
}

async fn write(store: &Store, client: u64) {
    let mut rng = StdRng::seed_from_u64(rand::rng().next_u64());
    for turn in 0_u64.. {
        let ops: Vec<Op> = match rng.random_range(0..10) {
            0 => (0..rng.random_range(2..5)).map(|_| op(store, &mut rng)).collect(),
            _ => vec![op(store, &mut rng)],
        };
        match store.commit(ops).await {
            Ok(committed) => {
                let entries = committed.entries.iter().map(|entry| {
                    let hash = hash(&entry.value);
                    format!("{} {hash:x}", entry.key)
                });
                let entries: Vec<String> = entries.collect();
                say(&format!("ack {} {}", committed.revision, entries.join(";")));
            }
            // Another client was faster, or two operations chose the same key.
            Err(CommitError::Conflict { .. } | CommitError::Invalid { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        if client == 0 && turn % 64 == 63 {
            let to = store.revision().saturating_sub(KEEP);
            store.compact(to).await.unwrap();
        }
    }
}

/// A random operation that has a chance: its expectation was right a moment ago.
fn op(store: &Store, rng: &mut StdRng) -> Op {
    let resource = RESOURCES[rng.random_range(0..RESOURCES.len())];
    let key = Key::new(resource, "default", format!("n{}", rng.random_range(0..20)));
    let current = store.get(&key);
    let precondition = match &current {
        _ if rng.random_ratio(1, 3) => Precondition::Any,
        Some(entry) => Precondition::Revision(entry.revision),
        None => Precondition::Absent,
    };
    let size = match rng.random_range(0..20) {
        0 => 20_000,
        n => n * 100,
    };
    let mut bytes = vec![0; size];
    rng.fill_bytes(&mut bytes);
    let encoded = Encoded::new(bytes, size / 2);
    if current.is_some() && rng.random_ratio(1, 4) {
        return Op::Delete { key, last: encoded, precondition };
    }
    Op::Put { key, value: encoded, attributes: Attributes::default(), precondition }
}

/// Everything that ever became durable, as far as the test has looked.
#[derive(Default)]
struct History {
    /// For each revision from 1 on, what happened: the resource's number, and the event.
    revisions: Vec<Vec<(usize, Happened)>>,
    /// The objects after all that: a hash of the value, the revision, the creating revision.
    objects: BTreeMap<String, (u64, Revision, Revision)>,
}

impl History {
    fn revision(&self) -> Revision {
        self.revisions.len() as Revision
    }

    /// What happened to a resource after a revision.
    fn after(&self, resource: usize, after: Revision) -> Vec<(Revision, &str)> {
        (1..)
            .zip(&self.revisions)
            .skip(usize::try_from(after).unwrap())
            .flat_map(|(revision, events)| events.iter().map(move |e| (revision, e)))
            .filter(|(_, (of, _))| *of == resource)
            .map(|(revision, (_, what))| (revision, what.as_str()))
            .collect()
    }

    /// Adds what is new in the store, and checks that what was known has not changed.
    async fn extend(&mut self, store: &Store) {
        let known = self.revision();
        let newest = store.revision();
        assert!(newest >= known, "the revision went back to {newest}");
        let from = known.saturating_sub(KEEP / 3);
        let mut fresh: BTreeMap<Revision, Vec<(usize, Happened)>> = BTreeMap::new();
        for (number, resource) in RESOURCES.into_iter().enumerate() {
            let mut watcher = store.watch(resource, from).unwrap();
            let before = self.after(number, from).into_iter();
            let before: Vec<_> = before.map(|(r, what)| (r, what.to_owned())).collect();
            let mut before = before.into_iter();
            for event in drain(&mut watcher, newest).await {
                let what = happened(&event);
                if event.revision <= known {
                    let found = Some((event.revision, what));
                    assert_eq!(found, before.next(), "the past has changed");
                } else {
                    let entry = (number, what);
                    fresh.entry(event.revision).or_default().push(entry);
                    self.apply(&event);
                }
            }
            assert_eq!(before.next(), None, "the past has been lost");
        }
        for revision in known + 1..=newest {
            let events = fresh.remove(&revision);
            self.revisions.push(events.expect("a revision is missing"));
        }
        assert!(fresh.is_empty());
    }

    fn apply(&mut self, event: &Event) {
        let entry = &event.entry;
        let key = entry.key.to_string();
        let before = event.previous.as_ref().map(|p| state(p));
        assert_eq!(self.objects.get(&key), before.as_ref(), "{key} before");
        if event.kind == EventKind::Deleted {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, state(entry));
        }
    }

    /// The events played back are the objects that are there.
    fn check_objects(&self, store: &Store) {
        let present: BTreeMap<String, _> = RESOURCES
            .iter()
            .flat_map(|resource| {
                let snapshot = store.snapshot(resource);
                let states = snapshot.iter().map(|e| (e.key.to_string(), state(e)));
                states.collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(present, self.objects);
    }

    /// What the killed process was told is what happened. Returns how much it was told.
    fn check_lines(&self, lines: &[String], resume: Revision) -> (usize, usize) {
        let mut seen: HashMap<usize, Vec<(Revision, &str)>> = HashMap::new();
        let mut acknowledged = 0;
        for line in lines {
            let (what, rest) = line.split_once(' ').unwrap_or_default();
            match what {
                "ack" => {
                    let (revision, entries) = rest.split_once(' ').unwrap();
                    let at = usize::try_from(revision.parse::<Revision>().unwrap() - 1).unwrap();
                    let events = self.revisions.get(at);
                    let events = events.unwrap_or_else(|| panic!("lost {line}"));
                    let mut kept: Vec<&str> = events.iter().map(|(_, e)| e.split_once(' ').unwrap().1).collect();
                    let mut told: Vec<&str> = entries.split(';').collect();
                    kept.sort_unstable();
                    told.sort_unstable();
                    assert_eq!(kept, told, "{line}");
                    acknowledged += 1;
                }
                "saw" => {
                    let mut parts = rest.splitn(3, ' ');
                    let mut part = || parts.next().unwrap();
                    let resource = part().parse().unwrap();
                    let revision = part().parse().unwrap();
                    seen.entry(resource).or_default().push((revision, part()));
                }
                _ => {}
            }
        }
        let mut count = 0;
        for (resource, seen) in seen {
            let expected = self.after(resource, resume);
            assert!(seen.len() <= expected.len(), "saw what is not there");
            assert_eq!(seen, expected[..seen.len()], "after {resume}");
            count += seen.len();
        }
        (acknowledged, count)
    }
}

/// A process that writes until it is killed.
struct Writer {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Writer {
    fn spawn(dir: &Path, resume: Revision) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--nocapture"])
            .env(DIR, dir)
            .env(RESUME, resume.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok() {
                // A line without an end was cut off by the kill.
                let Some(whole) = line.strip_suffix('\n') else {
                    return;
                };
                if send.send(whole.to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let read = Vec::new();
        Self { child, lines, read }
    }

    fn wait_for(&mut self, start: &str) {
        let timeout = Duration::from_secs(60);
        loop {
            let line = self.lines.recv_timeout(timeout).expect("the writer is gone");
            let found = line.starts_with(start);
            self.read.push(line);
            if found {
                return;
            }
        }
    }

    /// Kills it, and returns what it said.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it ended by itself: {status}");
        self.read.extend(self.lines.iter());
        self.read
    }
}

/// All events of a watcher up to and with a revision.
async fn drain(watcher: &mut Watcher, upto: Revision) -> Vec<std::sync::Arc<Event>> {
    let mut events = Vec::new();
    while watcher.progress() < upto {
        let next = tokio::time::timeout(Duration::from_secs(20), watcher.next());
        events.push(next.await.expect("an event is due").unwrap());
    }
    events
}

fn happened(event: &Event) -> Happened {
    let hash = hash(&event.entry.value);
    format!("{:?} {} {hash:x}", event.kind, event.entry.key)
}

fn state(entry: &store::Entry) -> (u64, Revision, Revision) {
    (hash(&entry.value), entry.revision, entry.create_revision)
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn open(dir: &Path) -> Store {
    Store::open(options(dir), describe).unwrap()
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    // So small that watchers often need the log.
    options.ring = 16;
    options
}

fn describe(_: &Key, _: &[u8]) -> Attributes {
    Attributes::default()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// One line, in one write.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}
