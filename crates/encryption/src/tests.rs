//! Encryption of a store as a whole: what is on its disk, and that keys can be exchanged at any time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use store::{Attributes, CommitError, Encoded, Health, Key, Op, OpenError, Options, Precondition, Store};
use tempfile::TempDir;

use super::*;

/// A directory with a store and the file of its keys.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn keys(&self) -> PathBuf {
        self.0.path().join("encryption-key.yaml")
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn open_with(&self, given: Option<EncryptionConfiguration>) -> Result<(Store, Arc<Encryption>), OpenError> {
        self.open_after(Vec::new(), given)
    }

    fn open_after(
        &self,
        previous: Vec<EncryptionConfiguration>,
        given: Option<EncryptionConfiguration>,
    ) -> Result<(Store, Arc<Encryption>), OpenError> {
        let encryption = Arc::new(Encryption::open(given, previous, &self.keys()).unwrap());
        let transformer = Some(Arc::clone(&encryption) as Arc<dyn store::Transformer>);
        let options = Options { transformer, ballast: 0, ring: 4, ..Options::new(self.store()) };
        let store = Store::open(options, |_, _| Attributes::default())?;
        encryption.save_key().unwrap();
        Ok((store, encryption))
    }

    fn open(&self) -> (Store, Arc<Encryption>) {
        self.open_with(None).unwrap()
    }

    fn open_plain(&self) -> Store {
        let options = Options { ballast: 0, ..Options::new(self.store()) };
        Store::open(options, |_, _| Attributes::default()).unwrap()
    }

    /// What `grep -r` would find in the store's directory.
    fn holds(&self, text: &str) -> bool {
        fs::read_dir(self.store()).unwrap().any(|file| {
            // Files that RocksDB removes meanwhile hold nothing.
            let bytes = fs::read(file.unwrap().path()).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }

    /// RocksDB removes the files that are not needed any more in the background.
    fn wait_until_gone(&self, text: &str) {
        let started = Instant::now();
        while self.holds(text) {
            assert!(started.elapsed() < Duration::from_secs(20), "{text} is still on the disk");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn secret(name: &str) -> Key {
    Key::new("core/secrets", "default", name)
}

fn put(key: Key, value: &str) -> Op {
    let value = format!("{{\"v\":\"{value}\",\"r\":\"\"}}");
    let at = value.len() - 2;
    Op::Put { key, value: Encoded::new(value, at), attributes: Attributes::default(), precondition: Precondition::Any }
}

fn value(store: &Store, key: &Key) -> String {
    String::from_utf8(store.get(key).unwrap().value.to_vec()).unwrap()
}

fn configuration(keys: &[(&str, u8)]) -> EncryptionConfiguration {
    use base64::Engine;
    let secret = |byte: &u8| base64::engine::general_purpose::STANDARD.encode([*byte; 32]);
    let keys: Vec<_> = keys.iter().map(|(name, byte)| json!({ "name": name, "secret": secret(byte) })).collect();
    let value = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{ "resources": ["secrets"], "providers": [{ "aesgcm": { "keys": keys } }] }],
    });
    EncryptionConfiguration::read(&value).unwrap()
}

#[tokio::test]
async fn no_secret_is_on_the_disk_and_all_is_read_again() {
    let home = Home::new();
    let (store, _) = home.open();
    assert_eq!(fs::metadata(home.keys()).unwrap().permissions().mode() & 0o777, 0o600);
    store.commit(put(secret("a"), "hunter2-first")).await.unwrap();
    store.commit(put(secret("a"), "hunter2-second")).await.unwrap();
    store.commit(put(secret("b"), "hunter2-deleted")).await.unwrap();
    let last = Encoded::new("{\"v\":\"hunter2-last\",\"r\":\"\"}", 26);
    store.commit(Op::Delete { key: secret("b"), last, precondition: Precondition::Any }).await.unwrap();
    store.commit(put(Key::new("core/configmaps", "default", "c"), "in-plain-sight")).await.unwrap();
    // The write-ahead log, and after the next start tables.
    assert!(home.holds("in-plain-sight") && !home.holds("hunter2"));
    store.close().await;
    let (store, _) = home.open();
    assert_eq!(value(&store, &secret("a")), "{\"v\":\"hunter2-second\",\"r\":\"2\"}");
    let mut watcher = store.watch("core/secrets", 0).unwrap();
    for expect in ["hunter2-first", "hunter2-second", "hunter2-deleted", "hunter2-last"] {
        let event = watcher.next().await.unwrap();
        assert!(String::from_utf8_lossy(&event.entry.value).contains(expect), "{expect}");
    }
    drop(watcher);
    store.close().await;
    assert!(!home.holds("hunter2"));
}

#[tokio::test]
async fn a_store_of_an_earlier_version_is_read_and_a_rotation_leaves_nothing_plain() {
    let home = Home::new();
    let store = home.open_plain();
    for n in 0..50 {
        store.commit(put(secret(&format!("s{n}")), &format!("hunter2-{n}"))).await.unwrap();
    }
    store.commit(put(Key::new("core/configmaps", "default", "c"), "in-plain-sight")).await.unwrap();
    store.close().await;
    let (store, encryption) = home.open();
    assert!(value(&store, &secret("s7")).contains("hunter2-7"));
    store.commit(put(secret("s7"), "hunter2-new")).await.unwrap();
    // Tables are compressed, so that not every value is in them as it is.
    assert!(home.holds("hunter2") && !home.holds("hunter2-new"));
    let (before, mut watcher) = (store.revision(), store.watch("core/secrets", 3).unwrap());
    let rotation = encryption.rotate(&store).await.unwrap();
    assert_eq!(rotation, Rotation { key: Some("key2".to_owned()), objects: 50 });
    assert_eq!(store.revision(), before, "nobody notices");
    home.wait_until_gone("hunter2");
    assert!(home.holds("in-plain-sight"));
    // The history can be read as before.
    let event = watcher.next().await.unwrap();
    assert_eq!((event.revision, &*event.entry.key.name), (4, "s3"));
    assert!(String::from_utf8_lossy(&event.entry.value).contains("hunter2-3"));
    drop(watcher);
    store.close().await;
    let (store, _) = home.open();
    assert_eq!(store.snapshot("core/secrets").len(), 50);
    assert!(value(&store, &secret("s7")).contains("hunter2-new"));
    assert!(!fs::read_to_string(home.keys()).unwrap().contains("key1"), "the old key is gone");
}

/// Whatever a process that ended left behind, the next one reads everything, and its rotation leaves one key.
#[tokio::test]
async fn a_rotation_can_be_broken_off_anywhere() {
    for steps in 0..4 {
        let home = Home::new();
        let (store, encryption) = home.open();
        for name in ["a", "b"] {
            store.commit(put(secret(name), "hunter2")).await.unwrap();
        }
        let local = LocalKeys::read(&home.keys()).unwrap().unwrap();
        if steps > 0 {
            let local = local.with_new().unwrap();
            if steps > 1 {
                encryption.encrypt_with(&local).unwrap();
                // One has been written with the new key, the other not.
                store.commit(put(secret("a"), "hunter2")).await.unwrap();
            }
            if steps > 2 {
                store.rewrite().await.unwrap();
            }
        }
        // Not closed: what a process leaves that is killed.
        let copy = Home::new();
        fs::create_dir(copy.store()).unwrap();
        for file in fs::read_dir(home.store()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.store().join(file.file_name())).unwrap();
        }
        fs::copy(home.keys(), copy.keys()).unwrap();
        let (again, encryption) = copy.open();
        for name in ["a", "b"] {
            assert!(value(&again, &secret(name)).contains("hunter2"), "after {steps} steps");
        }
        encryption.rotate(&again).await.unwrap();
        again.close().await;
        let text = fs::read_to_string(copy.keys()).unwrap();
        assert_eq!(text.matches("name: key").count(), 1, "{text}");
        let (again, _) = copy.open();
        assert!(value(&again, &secret("b")).contains("hunter2"), "after {steps} steps");
        drop(store);
    }
}

#[tokio::test]
async fn a_key_that_is_missing_is_named_and_no_value_is_taken_for_another() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(put(secret("a"), "hunter2")).await.unwrap();
    store.close().await;
    let local = fs::read_to_string(home.keys()).unwrap();
    fs::remove_file(home.keys()).unwrap();
    let refused = |given| home.open_with(given).err().expect("it cannot be read").to_string();
    let error = refused(Some(configuration(&[("mine", 1)])));
    assert!(
        error.contains("core/secrets/default/a: its value is encrypted by the unknown key aesgcm:v1:key1"),
        "{error}"
    );
    assert!(error.contains("--encryption-provider-config"), "{error}");
    // A new key of the same name is another key.
    let error = refused(None);
    assert!(error.contains("was not encrypted for it by the key aesgcm:v1:key1"), "{error}");
    assert!(!home.keys().exists(), "it does not take the place of the right one");
    fs::write(home.keys(), local).unwrap();
    assert!(value(&home.open().0, &secret("a")).contains("hunter2"));
}

#[tokio::test]
async fn keys_of_somebody_elses_replace_the_local_one_and_each_other() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(put(secret("a"), "hunter2")).await.unwrap();
    store.close().await;
    // What was encrypted with the local key can still be read.
    let (store, encryption) = home.open_with(Some(configuration(&[("mine", 1)]))).unwrap();
    assert!(value(&store, &secret("a")).contains("hunter2"));
    assert_eq!(encryption.rotate(&store).await.unwrap(), Rotation { key: None, objects: 1 });
    store.close().await;
    fs::remove_file(home.keys()).unwrap();
    // As upstream documents it: the new key first, everything written again, then without the old one.
    let (store, encryption) = home.open_with(Some(configuration(&[("new", 2), ("mine", 1)]))).unwrap();
    assert_eq!(encryption.rotate(&store).await.unwrap().objects, 1);
    assert_eq!(encryption.rotate(&store).await.unwrap().objects, 0);
    store.close().await;
    let (store, _) = home.open_with(Some(configuration(&[("new", 2)]))).unwrap();
    assert!(value(&store, &secret("a")).contains("hunter2"));
}

/// The local key is `key1`, and so is the one in upstream's example.
#[tokio::test]
async fn a_key_of_the_same_name_is_another_key() {
    let home = Home::new();
    let (store, _) = home.open();
    for name in ["a", "b"] {
        store.commit(put(secret(name), "hunter2")).await.unwrap();
    }
    store.close().await;
    let given = || Some(configuration(&[("key1", 1)]));
    let (store, encryption) = home.open_with(given()).unwrap();
    assert_eq!(encryption.rotate(&store).await.unwrap().objects, 2);
    assert_eq!(encryption.rotate(&store).await.unwrap().objects, 0);
    store.close().await;
    fs::remove_file(home.keys()).unwrap();
    let (store, _) = home.open_with(given()).unwrap();
    assert!(value(&store, &secret("b")).contains("hunter2"));
}

#[tokio::test]
async fn a_configuration_that_was_withdrawn_decrypts_until_everything_is_encrypted_again() {
    let home = Home::new();
    let (mine, other) = (|| configuration(&[("mine", 1)]), || configuration(&[("other", 2)]));
    for (given, name) in [(mine(), "a"), (other(), "b")] {
        let (store, _) = home.open_after(vec![mine()], Some(given)).unwrap();
        store.commit(put(secret(name), "hunter2")).await.unwrap();
        store.close().await;
    }
    let (store, encryption) = home.open_after(vec![mine(), other()], None).unwrap();
    store.commit(put(secret("c"), "hunter2")).await.unwrap();
    assert_eq!(encryption.rotate(&store).await.unwrap().objects, 3);
    store.close().await;
    let (store, _) = home.open();
    for name in ["a", "b", "c"] {
        assert!(value(&store, &secret(name)).contains("hunter2"), "{name}");
    }
}

#[tokio::test]
async fn no_secret_is_written_before_its_key_is() {
    let home = Home::new();
    let folder = home.0.path().join("later");
    let keys = folder.join("encryption-key.yaml");
    let encryption = Arc::new(Encryption::open(None, Vec::new(), &keys).unwrap());
    let transformer = Some(Arc::clone(&encryption) as Arc<dyn store::Transformer>);
    let options = Options { transformer, ballast: 0, ..Options::new(home.store()) };
    let store = Store::open(options, |_, _| Attributes::default()).unwrap();
    store.commit(put(Key::new("core/configmaps", "default", "c"), "in-plain-sight")).await.unwrap();
    assert!(matches!(encryption.save_key(), Err(Error::File { .. })));
    let refused = store.commit(put(secret("a"), "hunter2")).await;
    assert!(matches!(&refused, Err(CommitError::NotReady(why)) if why.contains("later")), "{refused:?}");
    assert_eq!(store.health(), Health::Healthy, "others are written");
    store.commit(put(Key::new("core/configmaps", "default", "d"), "in-plain-sight")).await.unwrap();
    fs::create_dir(&folder).unwrap();
    store.commit(put(secret("a"), "hunter2")).await.unwrap();
    assert!(keys.exists());
}

#[tokio::test]
async fn one_rotation_goes_on_at_a_time() {
    let home = Home::new();
    let (store, encryption) = home.open();
    store.commit(put(secret("a"), "hunter2")).await.unwrap();
    let (first, second) = tokio::join!(encryption.rotate(&store), encryption.rotate(&store));
    assert_eq!(first.unwrap(), Rotation { key: Some("key2".to_owned()), objects: 1 });
    assert!(matches!(second, Err(Error::UnderWay)), "{second:?}");
    assert_eq!(encryption.rotate(&store).await.unwrap().key.as_deref(), Some("key3"));
}

#[test]
fn keys_are_never_made_where_some_should_be() {
    let home = Home::new();
    for text in ["", "apiVersion: v1\n", "resources: [{providers: [{aesgcm: {keys: [{name: key1, secret: AAAA}]}}]}]\n"]
    {
        fs::write(home.keys(), text).unwrap();
        let error = Encryption::open(None, Vec::new(), &home.keys()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert_eq!(fs::read_to_string(home.keys()).unwrap(), text);
    }
}
