//! What a cluster keeps on disk, and what it notes: encrypted Secrets, and the audit log.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_tests::{Cluster, run};
use serde_json::Value;

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

    // Withdrawn, they still decrypt, until everything is encrypted with the cluster's own key again.
    cluster.coracle(&["stop"]).ok();
    fs::write(&given, "").expect("written");
    cluster.coracle(&["start", "--encryption-provider-config", &given_path]).ok();
    assert_eq!(cluster.field("secret/one", "{.data.a}"), encoded);
    assert!(folder.join("encryption.yaml.1").exists());
    cluster.coracle(&["secrets", "rotate"]).ok();
    assert!(!folder.join("encryption.yaml.1").exists());
}

#[test]
fn an_audit_log_holds_what_its_policy_selects() {
    let cluster = Cluster::new();
    let policy = cluster.home().join("policy.yaml");
    let path = policy.to_string_lossy().into_owned();
    fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]\n").expect("written");
    let refused = cluster.coracle(&["start", "--audit-policy", &path]).fails();
    assert!(refused.contains("rules[0].level: Unsupported value: \"All\""), "{refused}");
    let rules = "[{level: Metadata, resources: [{group: '', resources: [configmaps]}], verbs: [create], namespaces: [default]}]";
    fs::write(
        &policy,
        format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: {rules}\n"),
    )
    .expect("written");
    cluster.coracle(&["start", "--audit-policy", &path]).ok();
    cluster.kubectl(&["create", "configmap", "one", "--from-literal=a=b"]).ok();
    cluster.kubectl(&["get", "configmap", "one"]).ok();
    // The policy is kept.
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.kubectl(&["create", "configmap", "two", "--from-literal=a=b"]).ok();
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).ok();
    assert!(metrics.contains("apiserver_audit_event_total"), "it is counted");
    cluster.coracle(&["stop"]).ok();
    let text = fs::read_to_string(folder(&cluster).join("audit.log")).expect("there is a log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let own: Vec<&Value> = events.iter().filter(|event| event["user"]["username"] == "kubernetes-admin").collect();
    let names: Vec<&str> = own.iter().filter_map(|event| event["objectRef"]["name"].as_str()).collect();
    assert_eq!(names, ["one", "two"], "{text}");
    assert_eq!(own[0]["sourceIPs"], serde_json::json!(["127.0.0.1"]));
    assert!(own[0]["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl")), "{}", own[0]);
}
