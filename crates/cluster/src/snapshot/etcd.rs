//! The objects of a snapshot as a snapshot of etcd, for `etcdutl snapshot restore`, and so for a kube-apiserver.
//!
//! A file of bbolt with the buckets of etcd's backend (`server/storage/schema` of etcd), and behind it the SHA-256 of that. The
//! bucket `key` has a `mvccpb.KeyValue` for each object under its revision; keys are those at which a kube-apiserver looks. Its
//! values may be JSON (`k8s.io/apimachinery`, `runtime/serializer`: what does not begin as protobuf is read as that), without the
//! revision, which is the key's.

mod bolt;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use machinery::protobuf::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{Key, Revision};

use super::Error;
use super::objects::Stored;

/// Groups of which a kube-apiserver keeps its own resources by their names alone; others, those of custom resources among them, by
/// group and name (`pkg/registry/*/rest/storage_*.go`, and the `REST` of each).
const BUILT_IN: [&str; 18] = [
    "core",
    "admissionregistration.k8s.io",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// What is written at the revision of the snapshot, where no object is of it: etcd goes on behind the last one that it finds.
const LAST: &str = "/coracle/exported";

/// Writes the objects as a snapshot of etcd at a revision.
pub(super) fn write(objects: Vec<Stored>, revision: Revision, into: &mut impl Write) -> Result<(), Error> {
    let mut keys: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    // Objects of one transaction share its revision, and are numbered within it.
    let mut numbers: HashMap<Revision, u64> = HashMap::new();
    for Stored { key, revision, create_revision, value } in objects {
        let number = numbers.entry(revision).or_default();
        let at = at(revision, *number);
        *number += 1;
        let value = without_revision(&key, &value)?;
        // How often it was written nobody knows; more than once, if not for the first time.
        let version = if revision == create_revision { 1 } else { 2 };
        keys.insert(at, key_value(&path(&key), create_revision, revision, version, &value));
    }
    let last = keys.last_key_value().map(|(at, _)| at.clone());
    if last.is_none_or(|last| last < at(revision, 0)) {
        keys.insert(at(revision, 0), key_value(LAST, revision, revision, 1, revision.to_string().as_bytes()));
    }
    let empty = BTreeMap::new;
    let meta = BTreeMap::from([(b"consistent_index".to_vec(), 1_u64.to_be_bytes().to_vec())]);
    let buckets = BTreeMap::from([
        ("alarm", empty()),
        ("auth", empty()),
        ("authRoles", empty()),
        ("authUsers", empty()),
        ("cluster", empty()),
        ("key", keys),
        ("lease", empty()),
        ("members", empty()),
        ("members_removed", empty()),
        ("meta", meta),
    ]);
    let file = bolt::file(&buckets);
    let write = |into: &mut dyn Write| -> io::Result<()> {
        into.write_all(&file)?;
        into.write_all(&Sha256::digest(&file))?;
        into.flush()
    };
    write(into).map_err(Error::Write)
}

/// `mvccpb.KeyValue` (`api/mvccpb/kv.proto` of etcd).
fn key_value(key: &str, create_revision: Revision, revision: Revision, version: u64, value: &[u8]) -> Vec<u8> {
    let mut message = Message::default();
    message.bytes(1, key.as_bytes());
    message.varint(2, create_revision);
    message.varint(3, revision);
    message.varint(4, version);
    message.bytes(5, value);
    message.into_vec()
}

/// A key of the bucket `key`: the revision, and the number within it (`server/storage/mvcc/revision.go`).
fn at(revision: Revision, number: u64) -> Vec<u8> {
    [&revision.to_be_bytes()[..], b"_", &number.to_be_bytes()[..]].concat()
}

/// Where a kube-apiserver looks for an object.
fn path(key: &Key) -> String {
    let (group, resource) = key.resource.split_once('/').unwrap_or(("core", &key.resource));
    let place = match (group, resource) {
        ("core", "services") => "services/specs".to_owned(),
        ("core", "endpoints") => "services/endpoints".to_owned(),
        ("core", "nodes") => "minions".to_owned(),
        ("core", "replicationcontrollers") => "controllers".to_owned(),
        ("networking.k8s.io", "ingresses") => "ingress".to_owned(),
        (group, resource) if BUILT_IN.contains(&group) => resource.to_owned(),
        (group, resource) => format!("{group}/{resource}"),
    };
    match &*key.namespace {
        "" => format!("/registry/{place}/{}", key.name),
        namespace => format!("/registry/{place}/{namespace}/{}", key.name),
    }
}

fn without_revision(key: &Key, value: &[u8]) -> Result<Vec<u8>, Error> {
    let failed = |error: serde_json::Error| Error::Value { key: key.to_string(), reason: error.to_string() };
    let mut object: Value = serde_json::from_slice(value).map_err(failed)?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(object.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_where_a_kube_apiserver_looks() {
        for (resource, namespace, expected) in [
            ("core/pods", "ns", "/registry/pods/ns/a"),
            ("core/services", "ns", "/registry/services/specs/ns/a"),
            ("core/endpoints", "ns", "/registry/services/endpoints/ns/a"),
            ("core/nodes", "", "/registry/minions/a"),
            ("core/replicationcontrollers", "ns", "/registry/controllers/ns/a"),
            ("networking.k8s.io/ingresses", "ns", "/registry/ingress/ns/a"),
            ("networking.k8s.io/ingressclasses", "", "/registry/ingressclasses/a"),
            ("apps/deployments", "ns", "/registry/deployments/ns/a"),
            ("rbac.authorization.k8s.io/clusterroles", "", "/registry/clusterroles/a"),
            ("coordination.k8s.io/leases", "ns", "/registry/leases/ns/a"),
            (
                "apiextensions.k8s.io/customresourcedefinitions",
                "",
                "/registry/apiextensions.k8s.io/customresourcedefinitions/a",
            ),
            ("apiregistration.k8s.io/apiservices", "", "/registry/apiregistration.k8s.io/apiservices/a"),
            ("example.com/widgets", "ns", "/registry/example.com/widgets/ns/a"),
        ] {
            assert_eq!(path(&Key::new(resource, namespace, "a")), expected);
        }
    }

    #[test]
    fn the_file_ends_with_its_sum_and_has_each_object_under_its_revision() {
        let stored = |name: &str, create_revision: Revision, revision: Revision| Stored {
            key: Key::new("core/pods", "ns", name),
            revision,
            create_revision,
            value: format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}"#).into_bytes(),
        };
        let mut file = Vec::new();
        write(vec![stored("a", 3, 7), stored("b", 7, 7)], 9, &mut file).expect("written");
        let (database, sum) = file.split_at(file.len() - 32);
        assert_eq!(sum, &Sha256::digest(database)[..]);
        let has = |bytes: &[u8]| database.windows(bytes.len()).any(|window| window == bytes);
        let value = |name: &str| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        for (revision, number, entry) in [
            (7, 0, key_value("/registry/pods/ns/a", 3, 7, 2, value("a").as_bytes())),
            (7, 1, key_value("/registry/pods/ns/b", 7, 7, 1, value("b").as_bytes())),
            (9, 0, key_value(LAST, 9, 9, 1, b"9")),
        ] {
            assert!(has(&[at(revision, number), entry].concat()), "{revision} {number}");
        }
        let bad = Stored { value: b"{".to_vec(), ..stored("c", 1, 1) };
        assert!(matches!(write(vec![bad], 1, &mut Vec::new()), Err(Error::Value { .. })));
    }
}
