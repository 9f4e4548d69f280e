//! How a cluster begins and ends: when several commands and signals come at once, with files missing, at odd places.

use std::fs::{self, File};
use std::io::Write;
use std::process::{self, Child};
use std::thread;
use std::time::Duration;

use coracle_tests::{Cluster, run};

#[test]
fn starts_that_race_and_signals() {
    let cluster = Cluster::new();
    let spawn = |arguments: &[&str]| -> Child { cluster.coracle_command(arguments).spawn().expect("it can be run") };
    // Whoever loses waits for the winner's cluster.
    let starts: Vec<Child> = (0..4).map(|_| spawn(&["start"])).collect();
    for mut start in starts {
        assert!(start.wait().expect("it ends").success(), "{}", cluster.report());
        cluster.kubectl(&["get", "nodes"]).ok();
    }
    let pid = cluster.pid();
    run("kill", &["-HUP", &pid]).ok();
    cluster.kubectl(&["create", "configmap", "a", "--from-literal=a=b"]).ok();
    assert_eq!(cluster.pid(), pid, "a daemon does not end for want of a terminal");

    // A daemon that is on its way out is not one that runs.
    let mut stop = spawn(&["stop"]);
    cluster.wait("it stops", || (cluster.coracle(&["status"]).code == 3).then_some(()));
    cluster.coracle(&["start"]).ok();
    assert!(stop.wait().expect("it ends").success());
    cluster.kubectl(&["get", "configmap", "a"]).ok();
    cluster.coracle(&["stop"]).ok();

    // One that is killed while it starts: whoever waits for it starts another one.
    let mut lock = File::options()
        .write(true)
        .truncate(true)
        .open(cluster.home().join("home").join(&cluster.profile).join("lock"))
        .expect("it is there");
    lock.lock().expect("no daemon holds it");
    write!(lock, "{}", process::id()).expect("it takes a line");
    let mut start = spawn(&["start"]);
    thread::sleep(Duration::from_secs(1));
    drop(lock);
    assert!(start.wait().expect("it ends").success(), "{}", cluster.report());
    cluster.coracle(&["stop"]).ok();

    // In the foreground there was somebody at the terminal.
    let mut foreground = spawn(&["start", "--foreground"]);
    cluster.wait("it serves", || (cluster.kubectl(&["get", "configmap", "a"]).code == 0).then_some(()));
    run("kill", &["-HUP", &foreground.id().to_string()]).ok();
    assert!(foreground.wait().expect("it ends").success(), "it ends in an orderly way");
    assert_eq!(cluster.coracle(&["status"]).code, 3);
}

#[test]
fn half_of_a_pair_of_files_does_not_end_a_cluster() {
    let cluster = Cluster::start();
    cluster.coracle(&["stop"]).ok();
    let pki = cluster.home().join("home").join(&cluster.profile).join("pki");
    fs::remove_file(pki.join("ca.crt")).expect("it is there");
    cluster.coracle(&["start"]).ok();
    cluster.kubectl(&["get", "nodes"]).ok();
    cluster.coracle(&["stop"]).ok();
    fs::remove_file(pki.join("ca.key")).expect("it is there");
    let refused = cluster.coracle(&["start"]).fails();
    let last = refused.lines().last().unwrap_or_default();
    assert!(last.contains("ca.key is missing") && last.contains("or delete"), "{refused}");
}

#[test]
fn a_home_with_a_space() {
    let cluster = Cluster::new();
    let home = cluster.home().join("my home");
    let coracle = |arguments: &[&str]| {
        let output = cluster.coracle_command(arguments).env("CORACLE_HOME", &home).output().expect("it can be run");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    coracle(&["start"]);
    cluster.kubectl(&["run", "a", "--image=nginx:latest", "--overrides", r#"{"spec":{"containers":[{"name":"a","image":"nginx:latest","volumeMounts":[{"name":"m","mountPath":"/m"}]}],"volumes":[{"name":"m","emptyDir":{"medium":"Memory"}}]}}"#]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/a", "--timeout=60s"]).ok();
    coracle(&["delete"]);
    assert!(!home.join(&cluster.profile).exists());
}
