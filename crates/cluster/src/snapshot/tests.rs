//! Snapshots without Docker: what is in one, what is made of it, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::{Value, json};
use store::{Attributes, Encoded, Key, Op, Options, Precondition, Store, Transformer};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::moved::{Move, Place};
use super::restore::Build;
use super::save::{Source, Wanted, save};
use super::*;
use crate::encryption;
use crate::profile::Profile;

/// A cluster that consists of its store and its volumes.
struct Fixture {
    home: Home,
    source: Source,
    _folder: TempDir,
}

fn settings(service_subnet: &str) -> Settings {
    Settings {
        pod_subnet: "10.244.0.0/16".to_owned(),
        service_subnet: service_subnet.to_owned(),
        api_port: 1,
        dns_domain: "cluster.local".to_owned(),
    }
}

fn put(resource: &str, name: &str, object: &Value) -> Op {
    let key = Key::new(resource, "default", name);
    let text = object.to_string();
    let at = text.find(r#""resourceVersion":"""#).expect("an empty revision") + r#""resourceVersion":""#.len();
    Op::Put { key, value: Encoded::new(text, at), attributes: Attributes::default(), precondition: Precondition::Any }
}

fn object(data: &str) -> Value {
    json!({ "metadata": { "resourceVersion": "" }, "data": { "text": data } })
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let home = Home::resolve(Some(folder.path())).expect("a path");
    let profile = home.profile("dev").expect("a name");
    profile.create().expect("created");
    settings("10.96.0.0/16").save(&profile).expect("saved");
    let encryption = encryption::open(&profile).expect("a new key");
    encryption::save_key(&encryption).expect("saved");
    let transformer: Arc<dyn Transformer> = encryption;
    let options = Options { transformer: Some(Arc::clone(&transformer)), ..Options::new(profile.store()) };
    let store = Store::open(options, |_, _| Attributes::default()).expect("opened");
    store.commit(put("core/secrets", "s", &object("hunter2"))).await.expect("written");
    store.commit(put("core/configmaps", "m", &object("old"))).await.expect("written");
    store.commit(put("core/configmaps", "m", &object("new"))).await.expect("written");
    let volume = profile.volumes().join("pvc-1");
    fs::create_dir_all(&volume).expect("made");
    fs::write(volume.join("file"), "kept").expect("written");
    let cancel = CancellationToken::new();
    let source = Source { profile, store, transformer, freezer: None, cancel };
    Fixture { home, source, _folder: folder }
}

impl Fixture {
    async fn save(&self, name: &str) -> Result<Manifest, crate::Error> {
        save(&self.source, &Wanted { name: name.to_owned(), revision: None, volumes: true }).await
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::of(&self.home)
    }

    fn file(&self, name: &str, file: &str) -> PathBuf {
        self.snapshots().folder().join(name).join(file)
    }

    fn verify(&self, name: &str) -> Result<(), Error> {
        let snapshots = self.snapshots();
        snapshots.verify(name, &snapshots.manifest(name)?)
    }

    /// Makes a cluster of a snapshot beside its own folder.
    fn build(&self, name: &str, profile: &str, services: &str) -> Result<Profile, crate::Error> {
        self.build_as(name, profile, services, false)
    }

    fn build_as(&self, name: &str, profile: &str, services: &str, objects_only: bool) -> Result<Profile, crate::Error> {
        let manifest = self.snapshots().manifest(name)?;
        let place = |name: &str, services: &str| Place {
            name: name.to_owned(),
            folder: self.home.folder().join(name),
            pods: "10.244.0.0/16".parse().expect("a subnet"),
            services: services.parse().expect("a subnet"),
            token_key: None,
        };
        let old = self.home.profile(profile)?;
        let new = old.in_folder(self.home.folder().join(".new"));
        let build = Build {
            old,
            new: new.clone(),
            objects_only,
            settings: settings(services),
            moving: Move { from: place("dev", "10.96.0.0/16"), to: place(profile, services) },
            snapshot: self.file(name, ""),
            name: name.to_owned(),
            revision: manifest.revision,
        };
        build.run().map(|_| new)
    }
}

fn open(profile: &Profile) -> Store {
    let transformer: Arc<dyn Transformer> = encryption::open(profile).expect("its keys");
    let options = Options { transformer: Some(transformer), ..Options::new(profile.store()) };
    Store::open(options, |_, _| Attributes::default()).expect("a store")
}

fn text(store: &Store, resource: &str, name: &str) -> String {
    let entry = store.get(&Key::new(resource, "default", name)).expect("it is there");
    let value: Value = serde_json::from_slice(&entry.value).expect("JSON");
    assert_eq!(value["metadata"]["resourceVersion"], entry.revision.to_string());
    value["data"]["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_cluster_comes_back_with_its_keys_and_volumes() {
    let fixture = fixture().await;
    let saved = fixture.save("one").await.expect("saved");
    assert_eq!((saved.revision, saved.objects, saved.volumes), (3, 2, true));
    assert_eq!(fixture.snapshots().manifest("one").expect("there"), saved);
    fixture.verify("one").expect("it is whole");
    for file in [OBJECTS, FILES, MANIFEST] {
        let path = fixture.file("one", file);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600, "{file}");
        let bytes = fs::read(path).expect("readable");
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{file} has a Secret in the clear");
    }
    // The cluster goes on, and is further by the time it is put back.
    fixture.source.store.commit(put("core/configmaps", "m", &object("later"))).await.expect("written");
    fixture.source.store.close().await;
    let new = fixture.build("one", "dev", "10.96.0.0/16").expect("built");
    let store = open(&new);
    assert_eq!(
        (text(&store, "core/configmaps", "m"), text(&store, "core/secrets", "s")),
        ("new".into(), "hunter2".into())
    );
    assert!(store.revision() > 1_000_000);
    assert!(store.watch("core/configmaps", 4).is_err(), "whoever watched begins anew");
    assert_eq!(fs::read_to_string(new.volumes().join("pvc-1/file")).expect("there"), "kept");
    assert_eq!(Settings::load(&new).expect("readable"), Some(settings("10.96.0.0/16")));
    store.close().await;
}

#[tokio::test]
async fn an_earlier_revision_has_no_volumes_and_one_that_is_not_there_is_none() {
    let fixture = fixture().await;
    let wanted = |revision| Wanted { name: "then".to_owned(), revision: Some(revision), volumes: true };
    for unknown in [0, 99] {
        let refused = save(&fixture.source, &wanted(unknown)).await.map(|saved| saved.objects);
        // Before the first write there was an empty cluster.
        match unknown {
            0 => assert_eq!(refused.expect("saved"), 0),
            _ => assert!(matches!(refused, Err(crate::Error::Snapshot(Error::History(_))))),
        }
        let _ = fixture.snapshots().delete("then");
        assert_eq!(fs::read_dir(fixture.snapshots().folder()).expect("readable").count(), 0, "nothing is left");
    }
    let saved = save(&fixture.source, &wanted(2)).await.expect("saved");
    assert_eq!((saved.revision, saved.objects, saved.volumes), (2, 2, false));
    let new = fixture.build("then", "other", "10.97.0.0/16").expect("built");
    let store = open(&new);
    assert_eq!(text(&store, "core/configmaps", "m"), "old");
    assert!(!new.volumes().exists());
    store.close().await;
}

#[tokio::test]
async fn objects_alone_are_encrypted_as_the_cluster_is_now() {
    let fixture = fixture().await;
    fixture.save("one").await.expect("saved");
    fixture.source.store.close().await;
    let profile = &fixture.source.profile;
    fs::remove_file(profile.encryption_key()).expect("removed");
    let store = fixture.build_as("one", "dev", "10.96.0.0/16", true).expect("built").store();
    fs::remove_dir_all(profile.store()).and_then(|()| fs::rename(store, profile.store())).expect("it takes the place");
    let store = open(profile);
    assert_eq!(text(&store, "core/secrets", "s"), "hunter2", "by the new key");
    store.close().await;
}

#[tokio::test]
async fn what_is_not_whole_is_refused() {
    let fixture = fixture().await;
    fixture.save("one").await.expect("saved");
    let check = |file: &str, damage: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let path = fixture.file("one", file);
        let whole = fs::read(&path).expect("readable");
        let mut damaged = whole.clone();
        damage(&mut damaged);
        fs::write(&path, &damaged).expect("written");
        let refused = fixture.verify("one").expect_err("it is damaged").to_string();
        assert!(refused.contains(expected), "{file}: {refused}");
        assert!(!refused.contains('\n'));
        fs::write(&path, whole).expect("written");
        fixture.verify("one").expect("whole again");
    };
    check(OBJECTS, &|bytes| bytes[20] ^= 1, "objects is not what was saved");
    check(OBJECTS, &|bytes| bytes.truncate(10), "objects is not what was saved");
    check(FILES, &|bytes| bytes.push(0), "files.tar is not what was saved");
    check(MANIFEST, &|bytes| bytes.truncate(40), "snapshot.json");
    check(MANIFEST, &|bytes| *bytes = b"{}".to_vec(), "missing field");
    check(MANIFEST, &|bytes| *bytes = br#"{"format":2,"more":[]}"#.to_vec(), "made by a later version (format 2");
    let no_files = |bytes: &mut Vec<u8>| {
        let mut manifest: Value = serde_json::from_slice(bytes).expect("JSON");
        manifest["files"] = json!({});
        *bytes = manifest.to_string().into_bytes();
    };
    check(MANIFEST, &no_files, "nothing is said of objects");
    fs::remove_file(fixture.file("one", FILES)).expect("removed");
    assert!(matches!(fixture.verify("one"), Err(Error::Damaged { .. })));
    fs::remove_file(fixture.file("one", MANIFEST)).expect("removed");
    let listed = fixture.snapshots().list().expect("readable");
    assert!(matches!(&listed[..], [(name, Err(Error::Damaged { .. }))] if name == "one"));
    fixture.snapshots().delete("one").expect("removed all the same");
    assert!(matches!(fixture.verify("one"), Err(Error::Missing(_))));
}

#[tokio::test]
async fn names_are_those_of_files_and_used_once() {
    for good in ["a", "before-1.2", "A_b"] {
        assert!(check_name(good).is_ok(), "{good}");
    }
    let long = "a".repeat(64);
    for bad in ["", ".a", "-a", "a/b", "..", "a b", "ä", "a\n", &long] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
    let fixture = fixture().await;
    for name in ["b", "a"] {
        fixture.save(name).await.expect("saved");
    }
    assert!(matches!(fixture.save("a").await, Err(crate::Error::Snapshot(Error::Exists(_)))));
    assert!(matches!(fixture.snapshots().delete("../dev"), Err(crate::Error::Snapshot(Error::Name(_)))));
    assert!(matches!(fixture.snapshots().delete("c"), Err(crate::Error::Snapshot(Error::Missing(_)))));
    // What a process left that was killed is in nobody's way, and no snapshot.
    fs::create_dir(fixture.snapshots().folder().join(".c.dev.saving")).expect("made");
    let listed = fixture.snapshots().list().expect("readable");
    let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "oldest first");
    fixture.save("c").await.expect("saved");
}

#[tokio::test]
async fn one_that_is_given_up_leaves_nothing() {
    let fixture = fixture().await;
    fixture.source.cancel.cancel();
    let refused = fixture.save("one").await.expect_err("given up").to_string();
    assert!(refused.contains("is being stopped"), "{refused}");
    assert_eq!(fs::read_dir(fixture.snapshots().folder()).expect("readable").count(), 0);
}

#[tokio::test]
async fn keys_that_are_exchanged_meanwhile_are_noticed() {
    let fixture = fixture().await;
    let profile = &fixture.source.profile;
    let before = profile.keys().expect("readable");
    assert_eq!(before.len(), 1);
    fs::write(profile.encryption(), "new").expect("written");
    assert_ne!(profile.keys().expect("readable"), before);
    fs::remove_file(profile.encryption()).expect("removed");
    assert_eq!(profile.keys().expect("readable"), before);
}

#[tokio::test]
async fn what_is_exported_can_be_read() {
    let fixture = fixture().await;
    fixture.save("one").await.expect("saved");
    let exported = export(&fixture.home, "one").expect("exported");
    let texts: Vec<&Value> = exported.iter().map(|object| &object["data"]["text"]).collect();
    assert_eq!(texts, ["new", "hunter2"]);
    assert_eq!(exported[0]["metadata"], json!({}));
    assert_eq!(fs::read_dir(fixture.snapshots().folder()).expect("readable").count(), 1, "no keys are left");
}
