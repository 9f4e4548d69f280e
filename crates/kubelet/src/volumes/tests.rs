//! Volumes on a real file system, in a temporary folder.

use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::types::References;
use crate::values::resources::Allocatable;
use k8s_openapi::api::core::v1::{ConfigMap, Container};
use serde_json::json;
use std::sync::Arc;

#[allow(clippy::needless_pass_by_value)] // Cases read best with `json!` in place.
fn pod(volumes: serde_json::Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "volumes": volumes}}),
    )
    .unwrap()
}

fn set_up(directory: &PodDirectory, pod: &Pod, references: &References) -> Result<Mounted, String> {
    let allocatable = Allocatable { milli_cpu: 1000, memory: 1 << 30, storage: 0 };
    directory.set_up(Sources { pod, references, allocatable, privileged: true }).map_err(|error| error.to_string())
}

#[test]
fn config_map_appears_changes_and_goes() {
    let state = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(state.path(), "u");
    let pod = pod(json!([{"name": "v", "configMap": {"name": "cm"}}]));
    let mut references = References::default();
    assert_eq!(
        set_up(&directory, &pod, &references).unwrap_err(),
        "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found"
    );
    for value in ["1", "2"] {
        let object: ConfigMap = serde_json::from_value(json!({"data": {"key": value}})).unwrap();
        references.config_maps.insert("cm".to_owned(), Arc::new(object));
        let mounted = set_up(&directory, &pod, &references).unwrap();
        let path = mounted["v"].path.join("key");
        assert!(mounted["v"].read_only);
        assert_eq!(fs::read_to_string(path).unwrap(), value);
    }
    assert_eq!(directories(state.path()), ["u"]);
    directory.tear_down().unwrap();
    assert!(!directory.path().join("volumes").exists());
    directory.remove().unwrap();
    directory.remove().unwrap();
    assert!(directories(state.path()).is_empty());
}

#[test]
fn an_empty_dir_keeps_its_content_until_the_pod_ends() {
    let state = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(state.path(), "u");
    let pod = pod(json!([{"name": "v", "emptyDir": {}}]));
    let references = References::default();
    let path = set_up(&directory, &pod, &references).unwrap()["v"].path.clone();
    fs::write(path.join("file"), "kept").unwrap();
    set_up(&directory, &pod, &references).unwrap();
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
}

#[test]
fn all_of_a_mount_is_read_only_where_the_runtime_can() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(root.path(), "u");
    let mounting = Mounting { path: root.path().to_owned(), read_only: false, private: false };
    let volumes: Mounted = [("v".to_owned(), mounting)].into();
    for (recursive, expect) in [("Enabled", true), ("IfPossible", false), ("Disabled", false)] {
        let mount = json!({"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": recursive});
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).unwrap();
        let (mounts, _held) = mounts(&container, &volumes, &[], &directory, true).unwrap();
        assert_eq!((mounts[0].read_only, mounts[0].recursive_read_only), (true, expect), "{recursive}");
    }
}

/// Needs the right to mount, as root has it.
#[test]
fn sub_paths_are_bound_until_the_container_runs() {
    let root = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(root.path(), "u");
    directory.create().unwrap();
    let volume = root.path().join("v");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    symlink("/etc", volume.join("escape")).unwrap();
    let mounting = Mounting { path: volume.clone(), read_only: false, private: false };
    let volumes: Mounted = [("v".to_owned(), mounting)].into();
    let env = [("NAME".to_owned(), "me".to_owned())];
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
    let places = root.path().join("pods/u/volume-subpaths/c");
    for (mount, expect) in [
        (json!({}), Ok("")),
        (json!({"subPath": "a/b"}), Ok("a/b")),
        (json!({"subPath": "file"}), Ok("file")),
        (json!({"subPathExpr": "logs/$(NAME)"}), Ok("logs/me")),
        (json!({"subPathExpr": "$(NONE)"}), Err("missing value for \"NONE\"")),
        (
            json!({"subPath": "../x"}),
            Err("failed to prepare subPath for volumeMount \"v\" of container \"c\": the path must be relative"),
        ),
        (json!({"subPath": "escape/x"}), Err("leads out of its directory")),
        (
            json!({"readOnly": true, "recursiveReadOnly": "Enabled"}),
            Err(
                "recursiveReadOnly of volumeMount \"v\" of container \"c\" cannot be enforced: it needs Docker 25 or newer",
            ),
        ),
    ] {
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("data");
        let container: Container = serde_json::from_value(json!({"name": "c", "volumeMounts": [mount]})).unwrap();
        let result = mounts(&container, &volumes, &env, &directory, false);
        match expect {
            Ok(path) => {
                let (mounts, held) = result.unwrap();
                let host_path = &mounts[0].host_path;
                assert_eq!(inode(host_path), inode(&volume.join(path)));
                assert_eq!(*host_path, if path.is_empty() { volume.clone() } else { places.join("0") });
                assert_eq!(mounts[0].container_path, Path::new("/data"));
                drop(held);
            }
            Err(part) => {
                let message = result.map(|(mounts, _)| mounts).unwrap_err();
                assert!(message.contains(part), "{message}");
            }
        }
        assert!(!places.exists());
    }
}

/// What somebody mounts in a volume is theirs. Needs the right to mount, as root has it.
#[test]
fn what_is_mounted_in_a_volume_outlives_it() {
    let state = tempfile::tempdir().unwrap();
    let theirs = tempfile::tempdir().unwrap();
    fs::write(theirs.path().join("file"), "kept").unwrap();
    let directory = PodDirectory::new(state.path(), "u");
    let pod = pod(json!([{"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]));
    for tear_down in [PodDirectory::tear_down, PodDirectory::remove] {
        let mounted = set_up(&directory, &pod, &References::default()).unwrap();
        for volume in ["e", "m"] {
            let place = mounted[volume].path.join("mounted");
            fs::create_dir(&place).unwrap();
            rustix::mount::mount_bind(theirs.path(), &place).expect("the right to mount");
        }
        tear_down(&directory).unwrap();
        assert!(!mounted["e"].path.exists() && !mounted["m"].path.exists());
        assert_eq!(fs::read_to_string(theirs.path().join("file")).unwrap(), "kept");
    }
    assert!(!directory.path().exists());
}

#[test]
fn a_claim_is_the_volume_behind_it() {
    let state = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(state.path(), "u");
    let mut pod = pod(json!([
        {"name": "v", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}},
        {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
    ]));
    pod.metadata.namespace = Some("ns".to_owned());
    let mut references = References::default();
    let failed = |volume: &str, claim: &str, why: &str| {
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
             volumes=[{volume}]: error processing PVC ns/{claim}: {why}"
        )
    };
    let not_found = failed("v", "data", "persistentvolumeclaim \"data\" not found");
    assert_eq!(set_up(&directory, &pod, &references).unwrap_err(), not_found);
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"local": {"path": data.path()}}});
    let volume: Arc<k8s_openapi::api::core::v1::PersistentVolume> = Arc::new(serde_json::from_value(volume).unwrap());
    references.claims.insert("data".to_owned(), Ok(Arc::clone(&volume)));
    references.claims.insert("p-e".to_owned(), Err("PVC is not bound".to_owned()));
    assert_eq!(set_up(&directory, &pod, &references).unwrap_err(), failed("e", "p-e", "PVC is not bound"));
    references.claims.insert("p-e".to_owned(), Ok(volume));
    let mounted = set_up(&directory, &pod, &references).unwrap();
    assert_eq!(mounted["v"], Mounting { path: data.path().to_owned(), read_only: true, private: false });
    assert_eq!(mounted["e"], Mounting { path: data.path().to_owned(), read_only: false, private: false });
    fs::write(data.path().join("file"), "kept").unwrap();
    directory.tear_down().unwrap();
    directory.remove().unwrap();
    assert_eq!(fs::read_to_string(data.path().join("file")).unwrap(), "kept");
}

#[test]
fn an_eviction_is_noted_with_or_without_room_for_its_reason() {
    let state = tempfile::tempdir().unwrap();
    let directory = PodDirectory::new(state.path(), "u");
    assert_eq!(directory.evicted(), None);
    directory.set_evicted("The node was low on resource: memory. ").unwrap();
    assert_eq!(directory.evicted().as_deref(), Some("The node was low on resource: memory. "));
    directory.tear_down().unwrap();
    assert!(directory.evicted().is_some(), "it lasts as long as the pod");
    fs::write(directory.path().join(EVICTED), "").unwrap();
    assert_eq!(directory.evicted().as_deref(), Some("The node was low on resource: ephemeral-storage. "));
    directory.remove().unwrap();
    assert_eq!(directory.evicted(), None);
}
