//! Section 调试 (debugging): what a pod printed, a shell in it, what happened to it; and the end of the Deployment.

use std::thread;
use std::time::Duration;

use coracle_tests::{BUSYBOX, Background, Cluster, http_get};

use crate::first_application::deployed;

#[test]
fn logs() {
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let pod = cluster.pods("app=nginx").remove(0);
    let pod = pod.as_str();
    // What an access leaves in the log.
    let forward = Background::start(cluster.kubectl_command(&["port-forward", &format!("pod/{pod}"), ":80"]));
    let line = forward.line(|line| line.contains("Forwarding from 127.0.0.1"));
    let address = line.split_whitespace().nth(2).expect("an address").to_owned();
    for _ in 0..3 {
        let page = cluster.wait("the forwarded port answers", || http_get(&address, "/?forwarded"));
        assert!(page.contains("Welcome to nginx!"));
    }
    drop(forward);
    let log = cluster.wait("the log has the access", || {
        let log = kubectl(&["logs", pod]);
        log.contains("GET /?forwarded").then_some(log)
    });
    assert_eq!(kubectl(&["logs", pod, "--tail=1"]).lines().count(), 1);
    assert!(log.lines().count() >= 3);
    let stamped = kubectl(&["logs", pod, "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert!(kubectl(&["logs", pod, "--since=1h", "-c", "nginx"]).contains("GET"));
    let follow = Background::start(cluster.kubectl_command(&["logs", "-f", "--tail=0", pod]));
    thread::sleep(Duration::from_millis(500));
    kubectl(&["exec", pod, "--", "curl", "-s", "-o", "/dev/null", "http://127.0.0.1/?followed"]);
    follow.line(|line| line.contains("GET /?followed"));
    drop(follow);
}

#[test]
fn exec() {
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let pod = cluster.pods("app=nginx").remove(0);
    let pod = pod.as_str();

    // Output, exit codes, standard input, a terminal.
    assert_eq!(kubectl(&["exec", pod, "--", "echo", "hello"]), "hello\n");
    assert_eq!(cluster.kubectl(&["exec", pod, "--", "sh", "-c", "exit 7"]).code, 7);
    let ran = cluster.kubectl_with_input(&["exec", "-i", pod, "--", "cat"], "one\ntwo\n");
    assert_eq!(ran.ok(), "one\ntwo\n");
    let ran = cluster.kubectl(&["exec", pod, "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let typed = cluster.kubectl_on_terminal(&["exec", "-it", pod, "--", "bash"], "tty; stty size\nexit 5\n");
    assert!(typed.stdout.contains("/dev/pts/"), "{typed}");
    assert_eq!(typed.code, 5, "{typed}");
    let missing = cluster.kubectl(&["exec", pod, "--", "no-such-program"]);
    assert_ne!(missing.code, 0, "{missing}");

    // cp, there and back.
    let here = cluster.home().join("file");
    std::fs::write(&here, "copied\n").expect("written");
    let here = here.to_string_lossy().into_owned();
    let there = format!("{pod}:/tmp/there");
    kubectl(&["cp", &here, &there]);
    assert_eq!(kubectl(&["exec", pod, "--", "cat", "/tmp/there"]), "copied\n");
    let back = format!("{here}.back");
    kubectl(&["cp", &there, &back]);
    assert_eq!(std::fs::read_to_string(&back).expect("copied back"), "copied\n");

    // attach.
    kubectl(&["run", "cat", "--image", BUSYBOX, "--stdin", "--image-pull-policy=Never", "--", "cat"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/cat", "--timeout=60s"]);
    let ran = cluster.kubectl_with_input(&["attach", "-i", "cat"], "through attach\n");
    assert!(ran.stdout.contains("through attach"), "{ran}");
}

#[test]
fn describe_pod() {
    let cluster = deployed();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let pod = cluster.pods("app=nginx").remove(0);
    let pod = pod.as_str();
    let description = kubectl(&["describe", "pod", pod]);
    for part in ["Successfully assigned", "  Created ", "  Started ", "Restart Count:"] {
        assert!(description.contains(part), "{part} is missing in\n{description}");
    }

    // An image that does not exist.
    kubectl(&["run", "absent", "--image=coracle.test/no-such-image:1"]);
    let waiting = "{.status.containerStatuses[0].state.waiting.reason}";
    cluster.wait("the pull fails and backs off", || {
        (cluster.field("pod/absent", waiting) == "ImagePullBackOff").then_some(())
    });
    let description = kubectl(&["describe", "pod", "absent"]);
    for part in ["Failed to pull image", "Error: ErrImagePull", "Back-off pulling image"] {
        assert!(description.contains(part), "{part} is missing in\n{description}");
    }

    // A container that ends at once, again and again.
    kubectl(&["run", "crash", "--image", BUSYBOX, "--image-pull-policy=Never", "--", "sh", "-c", "echo gone; exit 3"]);
    cluster.wait("it is restarted and backs off", || {
        (cluster.field("pod/crash", waiting) == "CrashLoopBackOff").then_some(())
    });
    let list = kubectl(&["get", "pod", "crash"]);
    assert!(list.contains("CrashLoopBackOff"), "{list}");
    let description = kubectl(&["describe", "pod", "crash"]);
    for part in ["Exit Code:    3", "Back-off restarting failed container"] {
        assert!(description.contains(part), "{part} is missing in\n{description}");
    }
    assert_eq!(kubectl(&["logs", "crash", "--previous"]), "gone\n");

    // A pod that fits nowhere.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: huge}\nspec:\n  containers:\n  - name: c\n    image: nginx\n    resources: {requests: {cpu: '1000'}}\n";
    cluster.apply(pod);
    cluster.wait_for("pod/huge", "{.status.conditions[?(@.type==\"PodScheduled\")].reason}", "Unschedulable");
    let events = cluster.wait("the event is there", || {
        let events = kubectl(&["events", "--for", "pod/huge"]);
        events.contains("FailedScheduling").then_some(events)
    });
    assert!(events.contains("0/1 nodes are available: 1 Insufficient cpu."), "{events}");

    // Bad manifests change nothing.
    let typo = cluster.kubectl_with_input(&["apply", "-f", "-"], &pod.replace("image:", "imag:"));
    assert!(typo.fails().contains("unknown field \"spec.containers[0].imag\""));
    let illegal = cluster.kubectl_with_input(&["apply", "-f", "-"], &pod.replace("huge", "Not_Legal"));
    assert!(illegal.fails().contains("metadata.name: Invalid value: \"Not_Legal\""));
}

#[test]
fn delete_deployment() {
    let cluster = deployed();
    let deleted = cluster.kubectl(&["delete", "deployment", "nginx"]).ok();
    assert!(deleted.starts_with("deployment.apps \"nginx\" deleted"), "{deleted}");
    cluster.wait("all pods are gone", || cluster.pods("app=nginx").is_empty().then_some(()));
    cluster.wait("all containers are gone", || cluster.containers().is_empty().then_some(()));
}

#[test]
fn debug_containers() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let image = format!("--image={BUSYBOX}");
    kubectl(&["run", "app", &image, "--image-pull-policy=Never", "--", "sleep", "100000"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/app", "--timeout=60s"]);

    // Beside a container, in the same processes; that the shell ends badly is no failure of the connection.
    let typed = cluster.kubectl_on_terminal(
        &["debug", "app", "-it", &image, "--container=probe", "--target=app", "--", "sh"],
        "true\nps; cat /proc/1/root/etc/hostname\nexit 4\n",
    );
    assert!(typed.stdout.contains("sleep 100000") && typed.stdout.contains("\napp\r"), "{typed}");
    assert!(!typed.to_string().contains("falling back to streaming logs"), "{typed}");
    assert_eq!(typed.code, 0, "{typed}");
    let ended = "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}";
    cluster.wait_for("pod/app", ended, "4");
    assert!(kubectl(&["logs", "app", "-c", "probe"]).contains("sleep 100000"));
    let described = kubectl(&["describe", "pod", "app"]);
    assert!(described.contains("Ephemeral Containers:") && described.contains("probe"), "{described}");
    assert_eq!(cluster.field("pod/app", "{.status.containerStatuses[0].restartCount}"), "0");

    // A copy with a container more, or another image.
    kubectl(&["debug", "app", "--copy-to=copy", "--share-processes", &image, "-c", "probe", "--", "sleep", "100000"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/copy", "--timeout=60s"]);
    assert!(kubectl(&["exec", "copy", "-c", "probe", "--", "ps"]).matches("sleep 100000").count() >= 2);
    kubectl(&["debug", "app", "--copy-to=other", "--set-image=app=nginx:latest"]);
    assert_eq!(cluster.field("pod/other", "{.spec.containers[0].image}"), "nginx:latest");

    // A node, from within.
    let typed = cluster.kubectl_on_terminal(
        &["debug", &format!("node/{}", cluster.profile), "-it", &image, "--", "sh"],
        "true\nls -d /host/proc\nexit\n",
    );
    assert!(typed.stdout.contains("\n/host/proc\r"), "{typed}");
    assert!(kubectl(&["get", "pods"]).contains("node-debugger-"));
}
