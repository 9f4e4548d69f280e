//! A story that is put together from a real store and a real journal.

use informer::{Cause, Causes, DurationMetric, Ending, ObjectKey, ObjectVersion, ReconcileReporter, Reconciler, Write};
use k8s_openapi::api::core::v1::Pod;
use registry::Author;
use scheduler::record::Records;
use store::{Attributes, Encoded, Op, Options, Precondition, Store, Transaction};

use super::story::Told;
use super::*;

struct Replicas;

impl Reconciler for Replicas {
    const NAME: &'static str = "replicaset";
    const DURATION: Option<DurationMetric> = None;
}

struct Pods;

impl Reconciler for Pods {
    const NAME: &'static str = kubelet::COMPONENT;
    const DURATION: Option<DurationMetric> = None;
}

/// A store with objects as they are stored, and what components noted of it.
struct Fixture {
    store: Store,
    reconciles: Reconciles,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(Options::new(folder.path()), |_, _| Attributes::default()).expect("a store");
        Self { store, reconciles: Reconciles::default(), _folder: folder }
    }

    async fn write(&self, (resource, name): (&str, &str), value: Value, program: &str) -> u64 {
        let text = value.to_string();
        let version = r#""resourceVersion":""#;
        let at = text.find(version).expect("room for the revision") + version.len();
        let op = Op::Put {
            key: Key::new(resource, "default", name),
            value: Encoded::new(text, at),
            attributes: Attributes::default(),
            precondition: Precondition::Any,
        };
        let author = format!(r#"{{"u":"admin","p":"{program}","v":"patch","s":"status"}}"#);
        assert!(Author::parse(&author).is_some());
        let transaction = Transaction { author: Some(author.into()), ..op.into() };
        self.store.commit(transaction).await.expect("committed").revision
    }

    fn tell(&self, root: Option<(&str, &str)>, after: u64) -> Told {
        let kinds = [("apps/replicasets", "ReplicaSet"), ("core/pods", "Pod"), ("core/events", "Event")];
        let kinds = kinds.map(|(resource, kind)| (Arc::from(resource), kind.to_owned())).into();
        let root = root.map(|(resource, name)| Key::new(resource, "default", name));
        story::tell(
            &self.store,
            &kinds,
            &self.reconciles,
            &Records::default(),
            &Wanted { root, itself_only: false, after },
        )
        .expect("a story")
    }
}

/// An object with a uid, owned by another.
fn object(uid: &str, owner: Option<&str>, more: Value) -> Value {
    let owners: Vec<Value> = owner.iter().map(|owner| json!({ "kind": "X", "uid": owner })).collect();
    json!({ "metadata": { "uid": uid, "ownerReferences": owners, "resourceVersion": "" }, "status": more })
}

fn pod_at(name: &str, revision: u64) -> Arc<Pod> {
    let metadata = json!({ "namespace": "default", "name": name, "resourceVersion": revision.to_string() });
    Arc::new(serde_json::from_value(json!({ "metadata": metadata })).expect("a pod"))
}

/// One reconcile of a component that is woken by a Pod.
fn work(reporter: &ReconcileReporter, key: &str, cause: Cause, act: impl FnOnce(&mut informer::Running)) {
    let mut running = reporter.begin(&key, &Causes::new(cause));
    act(&mut running);
    running.end(Ending::AwaitChange, &[]);
}

fn told(entries: &[Entry]) -> Vec<String> {
    let one = |entry: &Entry| {
        let object = entry.object.as_ref().map(|object| format!("{} {}", object.kind, object.name));
        let by = entry.component.clone().or(entry.author.as_ref().map(|author| author.program.clone()));
        let because: Vec<&str> = entry.because.iter().map(|because| &*because.text).collect();
        let changes: Vec<String> = entry.changes.iter().map(ToString::to_string).collect();
        let what = entry.text.clone().unwrap_or_else(|| format!("{:?}", entry.what));
        let cause = if entry.is_cause { "(" } else { "" };
        format!(
            "{cause}{} {what} {} {changes:?} because {because:?}",
            by.unwrap_or_default(),
            object.unwrap_or_default()
        )
    };
    entries.iter().map(one).collect()
}

#[tokio::test]
async fn a_story_has_what_belongs_to_the_object_and_why_it_came() {
    let fixture = Fixture::new();
    let (replicas, pods) = (fixture.reconciles.reporter::<Replicas>(), fixture.reconciles.reporter::<Pods>());
    let other = fixture.write(("core/pods", "other"), object("o", None, json!({})), "kubectl").await;
    fixture.write(("apps/replicasets", "web"), object("rs", None, json!({ "n": 1 })), "kubectl").await;
    // A controller is woken by a pod that has nothing to do with it, and makes one.
    let running =
        replicas.begin(&"default/web", &Causes::new(Cause::change(&"Pod".into(), &pod_at("other", other), false)));
    let made = fixture.write(("core/pods", "web-1"), object("p1", Some("rs"), json!({})), "controller").await;
    let mut running = running;
    let key = ObjectKey::new("default", "web-1");
    running.write(|| Write {
        verb: "create",
        object: ObjectVersion { kind: "Pod".into(), key, revision: Some(made) },
        subresource: "",
        refused: None,
    });
    running.end(Ending::AwaitChange, &[]);
    work(&pods, "default/web-1", Cause::change(&"Pod".into(), &pod_at("web-1", made), false), |running| {
        running.act(|| "start container web");
        running.act(|| kubelet::PATCH_STATUS);
    });
    work(&pods, "default/other", Cause::new("a test"), |running| running.act(|| "start container other"));
    fixture.write(("core/pods", "web-1"), object("p1", Some("rs"), json!({ "phase": "Running" })), "kubelet").await;
    let event = json!({ "metadata": { "resourceVersion": "" }, "involvedObject": { "uid": "p1" }, "reason": "Started", "message": "it runs", "count": 2 });
    fixture.write(("core/events", "e"), event, "kubelet").await;
    fixture.write(("core/configmaps", "c"), object("c", None, json!({ "rs": 1 })), "kubectl").await;
    fixture.write(("coordination.k8s.io/leases", "l"), object("l", Some("p1"), json!({ "n": 1 })), "x").await;
    fixture.write(("coordination.k8s.io/leases", "l"), object("l", Some("p1"), json!({ "n": 2 })), "x").await;

    let story = fixture.tell(Some(("apps/replicasets", "web")), 0);
    assert!(story.is_there && story.has_beginning && !story.is_cut);
    let mut lines = told(&story.entries);
    // What is done in one millisecond stands in the order of the revisions, and what has none before.
    lines.sort();
    let mut expected = [
        "(kubectl Created Pod other [] because []",
        "kubectl Created ReplicaSet web [] because []",
        r#"replicaset Created Pod web-1 [] because ["Pod other"]"#,
        r#"kubelet start container web Pod web-1 [] because ["Pod web-1"]"#,
        r#"kubelet Changed Pod web-1 ["status.phase: + Running"] because []"#,
        "kubelet Started: it runs (2 times) Event e [] because []",
        "x Created coordination.k8s.io/leases l [] because []",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert!(story.entries.windows(2).all(|pair| pair[0].time_micros <= pair[1].time_micros));

    // A story that begins later knows what is there by then; and everything's has it all but for the lease.
    let mut later = told(&fixture.tell(Some(("apps/replicasets", "web")), made).entries);
    // What was before is there only as a cause.
    later.retain(|line| !line.starts_with('('));
    assert!(later.iter().any(|line| line.contains("status.phase")), "{later:?}");
    assert!(!later.iter().any(|line| line.contains("Created Pod")), "{later:?}");
    let all = told(&fixture.tell(None, 0).entries);
    assert!(all.iter().any(|line| line.starts_with("kubelet start container other")), "{all:?}");
    assert_eq!(all.len(), 9, "{all:?}");
    assert!(!fixture.tell(Some(("core/pods", "nothing")), 0).is_there);
}

#[tokio::test]
async fn a_write_that_changed_nothing_made_no_revision() {
    let fixture = Fixture::new();
    let reporter = fixture.reconciles.reporter::<Replicas>();
    let made = fixture.write(("core/pods", "a"), object("a", None, json!({})), "kubectl").await;
    // The log knows milliseconds: what begins in the same one cannot be told apart.
    tokio::time::sleep(Duration::from_millis(3)).await;
    work(&reporter, "default/a", Cause::new("a test"), |running| {
        let key = ObjectKey::new("default", "a");
        let object = ObjectVersion { kind: "Pod".into(), key, revision: Some(made) };
        running.write(|| Write { verb: "patch", object, subresource: "status", refused: None });
    });
    let story = fixture.tell(Some(("core/pods", "a")), 0);
    assert_eq!(story.entries[0].component, None, "{:?}", story.entries);
}

#[tokio::test]
async fn secrets_are_kept_and_long_values_cut() {
    let fixture = Fixture::new();
    let metadata =
        |name: &str| json!({ "uid": "s", "name": name, "resourceVersion": "", "annotations": { "b": name } });
    let secret = |data: &str| json!({ "metadata": metadata(data), "data": { "a": data } });
    fixture.write(("core/secrets", "s"), secret("hunter1"), "kubectl").await;
    fixture.write(("core/secrets", "s"), secret("hunter2"), "kubectl").await;
    let story = fixture.tell(Some(("core/secrets", "s")), 0);
    let changed = &story.entries[1];
    assert_eq!(changed.what, What::Changed);
    let changes: Vec<String> = changed.changes.iter().map(ToString::to_string).collect();
    let expected = [
        "data.a: (hidden) → (hidden)",
        "metadata.annotations.b: (hidden) → (hidden)",
        "metadata.name: hunter1 → hunter2",
    ];
    assert_eq!(changes, expected);

    for length in [10, 5000] {
        fixture.write(("core/pods", "a"), object("a", None, json!({ "x": "é".repeat(length) })), "x").await;
    }
    let story = fixture.tell(Some(("core/pods", "a")), 0);
    let to = story.entries[1].changes[0].to.as_ref().and_then(Value::as_str).expect("text");
    assert_eq!(to.chars().count(), 513);
}

#[tokio::test]
async fn what_is_told_is_bounded() {
    let fixture = Fixture::new();
    for number in 0..20_usize {
        let value = object("a", None, json!({ "x": number.to_string().repeat(1 << 20) }));
        fixture.write(("core/pods", "a"), value, "x").await;
    }
    let key = Some(Key::new("core/pods", "default", "a"));
    let tell = |itself_only| {
        let wanted = Wanted { root: key.clone(), itself_only, after: 0 };
        story::tell(&fixture.store, &Kinds::default(), &fixture.reconciles, &Records::default(), &wanted)
            .expect("a story")
    };
    let (short, whole) = (tell(false), tell(true));
    assert_eq!((short.entries.len(), short.is_cut), (20, false));
    // Each has two values, of one or two MiB.
    assert!(whole.is_cut && (3..9).contains(&whole.entries.len()), "{}", whole.entries.len());
    assert_eq!(whole.entries.last().and_then(|entry| entry.revision), Some(20));
}
