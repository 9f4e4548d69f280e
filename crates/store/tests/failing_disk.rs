//! Writes until the disk fails for real: a file system that is full, a limit on file sizes, a limit on descriptors.
//!
//! As in `crash.rs`, the process that writes is this test binary itself. It says what was acknowledged and what was refused;
//! the test mends the cause, or kills it in the midst of getting over it, and looks at what is left.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use coracle_store as store;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use store::{Attributes, CommitError, Encoded, Health, Key, Op, Options, Precondition, Store};

const DIR: &str = "CORACLE_STORE_FAILING_DIR";
/// How large the objects are.
const SIZE: usize = 20_000;
/// The small file system, and the ballast on it: a sixteenth.
const DISK: &str = "size=48m";
const BALLAST: u64 = 3 << 20;

#[test]
fn a_full_disk_takes_deletes_and_then_everything_again() {
    let disk = SmallDisk::mount();
    let filler = disk.0.path().join("filler");
    let mut writer = Writer::spawn(&disk.store(), "");
    writer.wait_for("acked 20");
    fill(&filler);
    writer.wait_for("health read-only");
    writer.wait_for("health full");
    let before = writer.read.len();
    writer.wait_for("refused full");
    writer.wait_for("deleted");
    writer.wait_for("deleted");
    // Reads go on, and so does the process.
    writer.wait_for("read");
    // What the deletes free does not pass for space that somebody made.
    let said = &writer.read[before..];
    assert!(!said.iter().any(|line| line.starts_with("health healthy") || line.starts_with("acked")), "{said:#?}");
    fs::remove_file(&filler).unwrap();
    writer.wait_for("health healthy");
    writer.wait_for("acked");
    writer.kill_and_check(&disk.store());
}

#[test]
fn a_store_opens_on_a_full_disk() {
    let disk = SmallDisk::mount();
    let mut writer = Writer::spawn(&disk.store(), "");
    writer.wait_for("acked 60");
    writer.kill_and_check(&disk.store());
    let filler = disk.0.path().join("filler");
    fill(&filler);

    let mut writer = Writer::spawn(&disk.store(), "");
    writer.wait_for("open");
    writer.wait_for("deleted");
    // Killed, and started again without a ballast.
    writer.kill();
    let mut writer = Writer::spawn(&disk.store(), "");
    writer.wait_for("open");
    writer.wait_for("refused full");
    writer.wait_for("deleted");
    fs::remove_file(&filler).unwrap();
    writer.wait_for("acked");
    writer.kill_and_check(&disk.store());
}

#[test]
fn killed_at_any_point_of_a_full_disk_nothing_acknowledged_is_lost() {
    let disk = SmallDisk::mount();
    let filler = disk.0.path().join("filler");
    let mut known = State::default();
    for round in 0..12_u64 {
        let mut writer = Writer::spawn(&disk.store(), "");
        writer.wait_for("acked");
        fill(&filler);
        // From before it is noticed until after it was got over.
        if round % 3 > 0 {
            writer.wait_for("health");
        }
        std::thread::sleep(Duration::from_millis(round * 7));
        if round % 2 == 0 {
            fs::remove_file(&filler).unwrap();
        }
        known.follow(&writer.kill());
        let _ = fs::remove_file(&filler);
        known.check(&disk.store());
    }
}

#[test]
fn a_limit_on_descriptors_is_got_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut writer = Writer::spawn(&path, "");
    writer.wait_for("acked 20");
    let before = writer.limit(Resource::Nofile, Some(3));
    writer.wait_for("health read-only");
    writer.wait_for("refused read-only");
    writer.wait_for("read");
    writer.limit(Resource::Nofile, before);
    writer.wait_for("health healthy");
    writer.wait_for("acked");
    writer.kill_and_check(&path);
}

#[test]
fn a_limit_on_the_size_of_files_is_got_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    // Without the signal, a write beyond the limit is an error, also in the midst of a record.
    let mut writer = Writer::spawn(&path, "trap '' XFSZ; ");
    writer.wait_for("acked 20");
    let before = writer.limit(Resource::Fsize, Some(30_000));
    writer.wait_for("health read-only");
    writer.wait_for("refused read-only");
    writer.limit(Resource::Fsize, before);
    writer.wait_for("health healthy");
    writer.wait_for("acked");
    writer.kill_and_check(&path);
}

/// Not a test: what the process does that meets the failures.
#[test]
fn writer_process() {
    let Some(dir) = env::var_os(DIR) else {
        return;
    };
    // The line that the test harness has begun ends here.
    say("");
    runtime().block_on(write_for_ever(Path::new(&dir)));
}

/// Writes objects, deletes some of them, reads all of them, for ever, and says how it goes.
async fn write_for_ever(dir: &Path) {
    let store = open(dir);
    say(&format!("open {}", store.revision()));
    let mut health = store.watch_health();
    tokio::spawn(async move {
        loop {
            let now = match &*health.borrow_and_update() {
                Health::Healthy => "healthy".to_owned(),
                Health::DiskFull(why) => format!("full {why}"),
                Health::ReadOnly(why) => format!("read-only {why}"),
            };
            say(&format!("health {now}"));
            if health.changed().await.is_err() {
                return;
            }
        }
    });
    let mut acknowledged = 0;
    for turn in 0_u64.. {
        let key = key(turn % 100);
        let value = Encoded::new(vec![u8::try_from(turn % 251).unwrap(); SIZE], SIZE / 2);
        let delete = turn % 5 == 4 && store.get(&key).is_some();
        let op = match delete {
            true => Op::Delete { key: key.clone(), last: value, precondition: Precondition::Any },
            false => {
                Op::Put { key: key.clone(), value, attributes: Attributes::default(), precondition: Precondition::Any }
            }
        };
        match store.commit(op).await {
            Ok(committed) if delete => say(&format!("deleted {} {}", key.name, committed.revision)),
            Ok(committed) => {
                acknowledged += 1;
                say(&format!("acked {acknowledged}"));
                say(&format!("put {} {}", key.name, committed.revision));
            }
            Err(CommitError::DiskFull(_)) => say("refused full"),
            Err(CommitError::ReadOnly(_)) => say("refused read-only"),
            Err(CommitError::Uncertain(_)) => say(&format!("uncertain {}", key.name)),
            Err(other) => panic!("{other}"),
        }
        let objects = store.snapshot("core/pods").iter().count();
        if turn % 8 == 7 {
            say(&format!("read {objects}"));
            // The deletes would empty the store before the test has looked.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What is known of each object: its revision, or that it is gone; and where that is uncertain.
#[derive(Default)]
struct State {
    objects: BTreeMap<String, Option<u64>>,
    uncertain: Vec<String>,
    revision: u64,
}

impl State {
    /// Takes in what a writer said.
    fn follow(&mut self, lines: &[String]) {
        for line in lines {
            let mut words = line.split(' ');
            let (what, name) = (words.next().unwrap(), words.next().unwrap_or_default().to_owned());
            let revision = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
            let state = match what {
                "put" => Some(revision),
                "deleted" => None,
                "uncertain" => {
                    self.uncertain.push(name);
                    continue;
                }
                _ => continue,
            };
            assert!(revision > self.revision, "{line}, after {}", self.revision);
            self.revision = revision;
            self.uncertain.retain(|uncertain| *uncertain != name);
            self.objects.insert(name, state);
        }
    }

    /// The store holds what is known, but for one write more: the one whose answer nobody heard.
    fn check(&mut self, dir: &Path) {
        runtime().block_on(async {
            let store = open(dir);
            assert!(
                store.revision() >= self.revision,
                "{} was acknowledged, {} is there",
                self.revision,
                store.revision()
            );
            let mut unheard = 0;
            for (name, known) in &self.objects {
                let found = store.get(&Key::new("core/pods", "default", name.as_str())).map(|entry| entry.revision);
                if found != *known && !self.uncertain.contains(name) {
                    assert!(found.is_none_or(|found| found > self.revision), "{name}: {found:?} for {known:?}");
                    unheard += 1;
                }
            }
            assert!(unheard <= 1, "{unheard} acknowledged writes are lost");
            let there = store.snapshot("core/pods");
            self.objects.retain(|_, _| false);
            self.objects.extend(there.iter().map(|entry| (entry.key.name.to_string(), Some(entry.revision))));
            (self.uncertain, self.revision) = (Vec::new(), store.revision());
            store.close().await;
        });
    }
}

/// A file system in memory, unmounted in the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(DISK).unwrap();
        mount("none", dir.path(), "tmpfs", MountFlags::empty(), Some(options.as_c_str())).expect("tests run as root");
        Self(dir)
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Fills the file system of a file to the last byte.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [1 << 20, 1 << 12] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}

/// A process that writes.
struct Writer {
    child: Child,
    lines: Receiver<String>,
    read: Vec<String>,
}

impl Writer {
    fn spawn(dir: &Path, before: &str) -> Self {
        let program = env::current_exe().unwrap();
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("{before}exec \"$0\" --exact writer_process --nocapture")])
            .arg(program)
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, read: Vec::new() }
    }

    /// Waits for a line that begins so, after all those that were waited for before.
    fn wait_for(&mut self, start: &str) {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line =
                line.unwrap_or_else(|error| panic!("{error}: no {start:?}, but {:#?}", self.read.last_chunk::<20>()));
            let found = line.starts_with(start);
            self.read.push(line);
            if found {
                return;
            }
        }
    }

    /// Sets a limit of the process; returns what it was before.
    fn limit(&self, resource: Resource, current: Option<u64>) -> Option<u64> {
        let pid = Pid::from_child(&self.child);
        let maximum = getrlimit(resource).maximum;
        prlimit(Some(pid), resource, Rlimit { current, maximum }).unwrap().current
    }

    /// Kills it, and returns what it said.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), None, "it ended by itself: {status}");
        self.read.extend(self.lines.iter());
        self.read
    }

    fn kill_and_check(self, dir: &Path) {
        let mut state = State::default();
        state.follow(&self.kill());
        state.check(dir);
    }
}

fn open(dir: &Path) -> Store {
    let mut options = Options::new(dir);
    options.ballast = BALLAST;
    Store::open(options, |_, _| Attributes::default()).unwrap()
}

fn key(number: u64) -> Key {
    Key::new("core/pods", "default", format!("n{number}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}
