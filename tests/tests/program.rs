//! The program itself: starting, stopping, dying, and saying what is wrong.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use coracle_tests::{Cluster, run};
use serde_json::Value;

#[test]
fn a_cluster_survives_stop_and_kill() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["create", "deployment", "web", "--image=nginx:latest", "--replicas=2"]);
    kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "2");
    let before = cluster.containers();
    assert_eq!(before.len(), 2);

    // Starting twice is fine.
    cluster.coracle(&["start"]).ok();

    // stop and start: the containers are adopted, not restarted.
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    let status = cluster.coracle(&["status"]);
    assert_eq!(status.code, 3, "{status}");
    assert!(status.stdout.contains("pods:       Running"), "{status}");
    assert_eq!(cluster.containers(), before, "they keep running");
    cluster.coracle(&["start"]).ok();
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "2");
    assert_eq!(cluster.containers(), before);

    // kill -9 and start: the same, and nothing acknowledged is lost.
    for number in 0..50 {
        kubectl(&["create", "configmap", &format!("c{number}"), "--from-literal=a=b"]);
    }
    run("kill", &["-9", &cluster.pid()]).ok();
    cluster.wait("the daemon is dead", || (cluster.coracle(&["status"]).code == 3).then_some(()));
    cluster.coracle(&["start"]).ok();
    let maps = kubectl(&["get", "configmaps", "-o", "name"]);
    let kept = maps.lines().filter(|line| line.starts_with("configmap/c")).count();
    assert_eq!(kept, 50, "{maps}");
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "2");
    assert_eq!(cluster.containers(), before);
    let restarts = "{.items[*].status.containerStatuses[0].restartCount}";
    assert_eq!(cluster.field("pods", restarts), "0 0");

    // What happened to the containers meanwhile is seen.
    cluster.coracle(&["stop", "--keep-pods"]).ok();
    run("docker", &["kill", &before[0]]).ok();
    cluster.coracle(&["start"]).ok();
    cluster.wait("the dead container is replaced", || {
        let now = cluster.containers();
        (now.len() == 2 && now != before).then_some(())
    });
}

#[test]
fn stop_ends_the_pods_and_start_runs_them_again() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest"]).ok();
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "1");
    let uid = cluster.field("pods", "{.items[0].metadata.uid}");

    cluster.coracle(&["stop"]).ok();
    assert!(cluster.containers().is_empty(), "no container of a pod runs");
    let status = cluster.coracle(&["status"]);
    assert_eq!(status.code, 3, "{status}");
    assert!(status.stdout.contains("pods:       Stopped"), "{status}");
    // A second time there is nothing left to do.
    assert!(cluster.coracle(&["stop"]).stderr.contains("was not running"));

    // As after a reboot of a node: the same pod, whose container was started once more.
    cluster.coracle(&["start"]).ok();
    cluster.wait_for("pods", "{.items[0].status.containerStatuses[0].restartCount}", "1");
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "1");
    assert_eq!(cluster.field("pods", "{.items[*].metadata.uid}"), uid);
    let pod = cluster.pods("app=web").remove(0);
    cluster.kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "2", "http://localhost"]).ok();
}

#[test]
fn status_and_its_exit_codes() {
    let cluster = Cluster::new();
    assert_eq!(cluster.coracle(&["status"]).code, 4, "there is none");
    assert!(cluster.coracle(&["kubectl", "--", "get", "pods"]).fails().contains("coracle start"));
    cluster.coracle(&["start"]).ok();
    let status: Value = serde_json::from_str(&cluster.coracle(&["status", "-o", "json"]).ok()).expect("JSON");
    assert_eq!(status["node"], "Ready");
    assert_eq!(status["kubeconfig"], "Configured");
    assert!(cluster.coracle(&["kubectl", "--", "get", "nodes"]).ok().contains("Ready"));
    assert!(!cluster.coracle(&["ip"]).ok().trim().is_empty());
    assert!(cluster.coracle(&["version"]).ok().contains("Kubernetes v1.36"));
    assert!(cluster.coracle(&["completion", "bash"]).ok().contains("coracle"));
    assert!(cluster.coracle(&["service", "absent"]).fails().contains("no service absent"));
    assert!(cluster.coracle(&["service", "kubernetes"]).fails().contains("no node port"));
    assert!(cluster.coracle(&["logs", "-n", "5"]).ok().lines().count() <= 5);
    let of_daemon = cluster.coracle(&["logs", "--component", "daemon", "--since", "1h"]).ok();
    assert!(
        of_daemon.lines().count() > 1 && of_daemon.lines().all(|line| line.contains("coracle::daemon")),
        "{of_daemon}"
    );
    assert!(
        cluster
            .coracle(&["logs", "--problems"])
            .ok()
            .lines()
            .all(|line| line.contains(" WARN ") || line.contains("ERROR "))
    );
    assert!(cluster.coracle(&["logs", "--component", "nothing"]).stderr.contains("it has some of:"));

    // State is its owner's alone.
    let folder = cluster.home().join("home").join(&cluster.profile);
    for (path, mode) in [("", 0o700), ("kubeconfig", 0o600), ("pki/ca.key", 0o600), ("store", 0o700)] {
        let actual = fs::metadata(folder.join(path)).expect(path).permissions().mode() & 0o777;
        assert_eq!(actual, mode, "{path}");
    }
    cluster.coracle(&["delete"]).ok();
    assert_eq!(cluster.coracle(&["status"]).code, 4);
    assert!(!folder.exists());
    assert!(!fs::read_to_string(cluster.kubeconfig()).expect("there").contains(&cluster.profile));
}

#[test]
fn what_hands_from_minikube_type() {
    let cluster = Cluster::new();
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&cluster.coracle(arguments).ok()).expect("JSON") };
    // Before there is a cluster: what is checked, said and kept.
    let run = json(&["start", "--dry-run", "-o", "json", "--addons", "lws", "--memory", "4g"]);
    assert_eq!((&run["profile"], &run["exists"]), (&Value::from(cluster.profile.as_str()), &Value::from(false)));
    assert!(!cluster.home().join("home").exists(), "nothing was begun");
    assert!(cluster.coracle(&["start", "--dry-run", "--driver", "kvm2"]).fails().contains("not on kvm2"));
    assert!(cluster.coracle(&["start", "--dry-run", "--addons", "ingress"]).fails().contains("no addon ingress"));
    assert!(cluster.coracle(&["update-context"]).fails().contains("there is no cluster"));
    assert_eq!(cluster.coracle(&["docker-env"]).ok(), "", "eval has nothing to do");
    assert!(cluster.coracle(&["dashboard"]).fails().contains("k9s"));
    assert!(cluster.coracle(&["addons", "open", "dashboard"]).fails().contains("no addon has a page"));
    assert!(cluster.coracle(&["addons", "images", "lws"]).ok().is_empty());
    assert!(cluster.coracle(&["node", "stop", "m02"]).fails().contains("kubectl drain NODE"));
    assert!(cluster.coracle(&["node", "start", "m02"]).fails().contains("kubectl uncordon NODE"));
    assert!(cluster.coracle(&["image", "ls", "nginx"]).ok().contains("nginx"));
    assert!(cluster.coracle(&["image", "load", "nginx:latest"]).ok().is_empty());
    assert!(cluster.coracle(&["image", "load", "no.such/image"]).fails().contains("docker pull no.such/image"));

    let status = json(&["start", "-o", "json", "--wait-timeout", "2m", "--addons", "lws"]);
    assert_eq!(status["node"], "Ready");
    let addons = json(&["addons", "list", "-o", "json"]);
    let lws = addons.as_array().expect("a list").iter().find(|addon| addon["name"] == "lws").expect("it is known");
    assert_eq!(lws["status"], "enabled");
    cluster.kubectl(&["run", "web", "--image=nginx:latest", "--port=80"]).ok();
    cluster.kubectl(&["expose", "pod", "web", "--type=NodePort"]).ok();
    let url = cluster.coracle(&["service", "svc/web", "--url", "--wait", "1m"]).ok();
    assert!(url.starts_with("http://"), "{url}");
    let list = cluster.coracle(&["service", "list"]).ok();
    assert!(list.contains(url.trim()) && list.contains("kube-dns"), "{list}");
    let file = cluster.home().join("page.html");
    fs::write(&file, "copied").expect("written");
    cluster.coracle(&["cp", &file.display().to_string(), "web:/tmp/page.html"]).ok();
    assert_eq!(cluster.kubectl(&["exec", "web", "--", "cat", "/tmp/page.html"]).ok(), "copied");

    // The kubeconfig is lost, and made again.
    fs::remove_file(cluster.kubeconfig()).expect("there");
    cluster.coracle(&["update-context"]).ok();
    cluster.kubectl(&["get", "nodes"]).ok();

    let rows = json(&["profile", "list", "-o", "json"]);
    assert_eq!(rows[0]["name"], cluster.profile.as_str());
    assert_eq!((&rows[0]["state"], &rows[0]["nodes"]), (&Value::from("Running"), &Value::from(1)));
    assert!(rows[0]["address"].is_string(), "{rows}");
    cluster.coracle(&["profile", &cluster.profile]).ok();
    let mut command = cluster.coracle_command(&["profile"]);
    let current = command.env_remove("CORACLE_PROFILE").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&current.stdout).trim(), cluster.profile);

    let refused = cluster.coracle(&["delete", "--all"]).fails();
    assert!(refused.contains("coracle delete --all --yes"), "{refused}");
    cluster.coracle(&["delete", "--purge", "--yes"]).ok();
    assert!(!cluster.home().join("home").exists());
}

#[test]
fn a_shell_completes_names() {
    let cluster = Cluster::start();
    assert!(cluster.coracle(&["completion", "bash"]).ok().contains("complete -o"));
    // What the script that is printed asks when the tab key is pressed behind these words.
    let completes = |words: &[&str]| {
        let index = words.len().to_string();
        let mut command = cluster.coracle_command(&[&["--", "coracle"], words].concat());
        let output =
            command.env("CORACLE_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).output().expect("an answer");
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completes(&["addons", "enable", "l"]), ["lws"]);
    assert_eq!(completes(&["status", "-p", &cluster.profile[..3]])[..], [cluster.profile.as_str()]);
    assert!(completes(&["node", "delete", ""]).contains(&cluster.profile));
    assert!(completes(&["service", "k"]).contains(&"kubernetes".to_owned()));
    assert!(completes(&["service", "-n", "kube-system", "k"]).contains(&"kube-dns".to_owned()));
    assert_eq!(completes(&["explain", "serviceacc"]), ["serviceaccount/"]);
    assert!(completes(&["timeline", "svc/"]).contains(&"svc/kubernetes".to_owned()));
    assert_eq!(completes(&["history", "-n", "kube-system", "service/k"]), ["service/kube-dns"]);
    cluster.coracle(&["snapshot", "save", "kept"]).ok();
    assert_eq!(completes(&["snapshot", "restore", ""])[0], "kept");
    assert!(completes(&["start", "--service-s"]).contains(&"--service-subnet".to_owned()));
    // Where nothing can be asked there is nothing to complete.
    cluster.coracle(&["stop"]).ok();
    assert!(!completes(&["node", "delete", ""]).contains(&cluster.profile));
}

#[test]
fn a_cluster_of_somebody_else_is_not_one_that_is_not_there() {
    let owner = Cluster::start();
    let other = Cluster::of_docker_group();
    if fs::metadata(owner.home()).expect("there").uid() == fs::metadata(other.home()).expect("there").uid() {
        // Only root can be somebody else.
        return;
    }
    let home = owner.home().join("home").display().to_string();
    for command in [&["status"][..], &["stop"], &["logs"], &["delete"], &["profile", "list"]] {
        let refused = other.coracle(&[command, &["--home", &home, "-p", &owner.profile]].concat());
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains("you may not read"), "{refused}");
    }
    owner.kubectl(&["get", "nodes"]).ok();
}

#[test]
fn two_clusters_side_by_side() {
    let (one, two) = (Cluster::start(), Cluster::start());
    for cluster in [&one, &two] {
        cluster.kubectl(&["create", "configmap", "whose", &format!("--from-literal=name={}", cluster.profile)]).ok();
    }
    for cluster in [&one, &two] {
        assert_eq!(cluster.field("configmap/whose", "{.data.name}"), cluster.profile);
    }

    // A node port is there once on loopback: who comes second is told, and pointed to the node's own address.
    one.kubectl(&["create", "service", "nodeport", "web", "--tcp=80"]).ok();
    let port = one.field("service/web", "{.spec.ports[0].nodePort}");
    let loopback = format!("http://127.0.0.1:{port}");
    // Nothing is behind it: the URL is printed, and the exit code says so.
    let url = |cluster: &Cluster| {
        let asked = cluster.coracle(&["service", "web", "--url", "--wait", "0"]);
        assert!(asked.code == 1 && asked.stderr.contains("no pod behind web is ready"), "{asked}");
        asked.stdout.trim().to_owned()
    };
    assert!(coracle_tests::wait(|| (url(&one) == loopback).then_some(())).is_some(), "{}", url(&one));
    two.kubectl(&["create", "service", "nodeport", "web", "--tcp=80", "--node-port", &port]).ok();
    assert_eq!(url(&two), format!("http://{}:{port}", two.coracle(&["ip"]).ok().trim()));

    one.coracle(&["delete"]).ok();
    assert_eq!(two.field("configmap/whose", "{.data.name}"), two.profile);
}

#[test]
fn a_cluster_of_the_same_name_in_another_home_is_left_alone() {
    let cluster = Cluster::start();
    cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest"]).ok();
    cluster.wait_for("deployment/web", "{.status.readyReplicas}", "1");
    let containers = cluster.containers();
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).expect("there");
    let home = cluster.home().join("other").display().to_string();
    let elsewhere = |arguments: &[&str]| cluster.coracle(&[arguments, &["--home", &home]].concat());

    let said = elsewhere(&["start"]).fails();
    assert!(said.contains(&format!("a cluster \"{}\" of another cluster", cluster.profile)), "{said}");
    let said = elsewhere(&["start", "--no-kubeconfig"]).fails();
    assert!(said.contains(&format!("Docker has a cluster {} of another home", cluster.profile)), "{said}");
    let deleted = elsewhere(&["delete"]);
    assert!(deleted.stderr.contains("is left as it is"), "{deleted}");
    deleted.ok();

    assert_eq!(cluster.containers(), containers);
    assert_eq!(fs::read_to_string(cluster.kubeconfig()).expect("there"), kubeconfig);
    assert_eq!(cluster.field("deployment/web", "{.status.readyReplicas}"), "1");
    // What serves Services on this machine is there as well.
    cluster.kubectl(&["expose", "deployment", "web", "--port=80"]).ok();
    let pod = cluster.pods("app=web").remove(0);
    cluster.wait("the service answers", || {
        let page = cluster.kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "2", "http://web"]);
        page.stdout.contains("Welcome to nginx").then_some(())
    });
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let check = |ran: coracle_tests::Ran, part: &str| {
        let code = ran.code;
        let text = ran.fails();
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(part), "{part:?} is missing in {text}");
        let said: Vec<&str> = text.lines().filter(|line| !line.starts_with('✔')).collect();
        assert_eq!(said.len(), 1, "{text}");
    };
    let cluster = Cluster::new();

    // Docker cannot be reached.
    let mut command = cluster.coracle_command(&["start"]);
    let output = command.env("DOCKER_HOST", "unix:///no/such/docker.sock").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("docker.sock"), "{text}");
    assert!(!cluster.kubeconfig().exists(), "nothing was changed");
    let homes = cluster.home().join("home");
    assert!(!homes.exists(), "nothing was kept of a cluster that never was");

    // A configuration of the scheduler that is none, a kubeconfig that is none: said before anything is begun.
    let scheduling = cluster.home().join("scheduling.yaml");
    fs::write(&scheduling, "profiles: [").expect("written");
    check(cluster.coracle(&["start", "--scheduler-config", &scheduling.display().to_string()]), "scheduling.yaml");
    fs::write(cluster.kubeconfig(), "garbage").expect("written");
    check(cluster.coracle(&["start"]), "kubeconfig");
    fs::remove_file(cluster.kubeconfig()).expect("removed");
    assert!(!homes.exists(), "nothing was begun");

    // A name that cannot be one, a home that cannot be written.
    check(cluster.coracle(&["start", "-p", "No_Good"]), "No_Good");
    check(cluster.coracle(&["start", "--home", "/proc/nowhere"]), "/proc/nowhere");
    check(cluster.coracle(&["ip"]), "not running");

    // A store that is damaged.
    cluster.coracle(&["start"]).ok();
    cluster.coracle(&["stop"]).ok();
    let store = cluster.home().join("home").join(&cluster.profile).join("store");
    let current = store.join("CURRENT");
    let kept = fs::read(&current).expect("RocksDB has one");
    fs::write(&current, "garbage\n").expect("written");
    check(cluster.coracle(&["start"]), "damaged");
    fs::write(&current, kept).expect("written");

    // A port that is taken: another one is chosen.
    let settings = cluster.home().join("home").join(&cluster.profile).join("settings.json");
    let settings: Value = serde_json::from_str(&fs::read_to_string(settings).expect("there")).expect("JSON");
    let port = settings["apiPort"].as_u64().expect("a port");
    let _taken = TcpListener::bind(format!("127.0.0.1:{port}")).expect("free while stopped");
    cluster.coracle(&["start"]).ok();
    cluster.kubectl(&["get", "nodes"]).ok();
}
