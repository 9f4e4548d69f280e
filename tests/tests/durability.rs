//! What a cluster keeps on disk: encrypted Secrets.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_tests::{Cluster, run};

fn folder(cluster: &Cluster) -> PathBuf {
    cluster.home().join("home").join(&cluster.profile)
}

/// What `grep -r` finds below a folder.
fn holds(folder: &Path, text: &str) -> bool {
    run("grep", &["-rqF", text, &folder.to_string_lossy()]).code == 0
}

#[test]
fn secrets_are_encrypted_and_their_key_is_exchanged() {
    let cluster = Cluster::start();
    let secret = |name: &str| {
        cluster.kubectl(&["create", "secret", "generic", name, "--from-literal=a=hunter2"]).ok();
    };
    // "hunter2" as the API has it.
    let (encoded, folder) = ("aHVudGVyMg==", folder(&cluster));
    secret("one");
    cluster.kubectl(&["create", "configmap", "plain", &format!("--from-literal=a={encoded}-map")]).ok();
    let store = folder.join("store");
    assert!(holds(&store, &format!("{encoded}-map")), "the log is on the disk");
    assert!(!holds(&store, &format!("\"{encoded}\"")), "but the Secret is not");
    let key = fs::read_to_string(folder.join("encryption-key.yaml")).expect("there is a key");

    let said = cluster.coracle(&["secrets", "rotate"]);
    assert!(said.code == 0 && said.stderr.contains("new key key2"), "{said}");
    assert_ne!(fs::read_to_string(folder.join("encryption-key.yaml")).expect("there is a key"), key);
    run("kill", &["-9", &cluster.pid()]).ok();
    cluster.wait("the daemon is dead", || (cluster.coracle(&["status"]).code == 3).then_some(()));
    assert!(cluster.coracle(&["secrets", "rotate"]).fails().contains("coracle start"));
    cluster.coracle(&["start"]).ok();
    assert_eq!(cluster.field("secret/one", "{.data.a}"), encoded);

    // Keys of somebody's own: what the local one has encrypted can still be read.
    let given = cluster.home().join("encryption.yaml");
    let provider = |keys: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aesgcm: {{keys: [{keys}]}}\n"
        )
    };
    fs::write(&given, provider("{name: a, secret: c2hvcnQ=}")).expect("written");
    let given_path = given.to_string_lossy().into_owned();
    cluster.coracle(&["stop"]).ok();
    let refused = cluster.coracle(&["start", "--encryption-provider-config", &given_path]).fails();
    assert!(refused.contains("resources[0].providers[0].aesgcm.keys[0].secret: Forbidden: has 5 bytes"), "{refused}");
    fs::write(&given, provider("{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}")).expect("written");
    cluster.coracle(&["start", "--encryption-provider-config", &given_path]).ok();
    assert_eq!(cluster.field("secret/one", "{.data.a}"), encoded);
    let said = cluster.coracle(&["secrets", "rotate"]);
    assert!(said.code == 0 && said.stderr.contains("as the given EncryptionConfiguration says"), "{said}");
    cluster.coracle(&["stop"]).ok();
    fs::remove_file(folder.join("encryption-key.yaml")).expect("it is there");
    cluster.coracle(&["start"]).ok();
    assert_eq!(cluster.field("secret/one", "{.data.a}"), encoded);
}
