//! The tour of the README, command by command: the first application, its service, an update, a look inside; and what a
//! person who follows the walkthrough does next.
//!
//! Its other sections are in files of their own: `scheduler` (filter, score, bind, gangs), `stateful` and `dns`
//! (StatefulSet), `autoscaling` (HPA), `crd` (CustomResourceDefinition), `operator`; the end of the cluster is in `program`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use coracle_tests::{Background, Cluster, http_get, run};

fn example() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nginx");
    folder.to_string_lossy().into_owned()
}

#[test]
fn the_first_application() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();

    // Looking at the cluster.
    assert!(kubectl(&["cluster-info"]).contains("Kubernetes control plane"));
    let nodes = kubectl(&["get", "nodes"]);
    let row: Vec<&str> = nodes.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(row[..3], [&cluster.profile, "Ready", "control-plane"], "{nodes}");
    assert!(row[4].starts_with("v1.36"), "{nodes}");

    // The Deployment.
    kubectl(&["apply", "-f", &format!("{}/deployment.yaml", example())]);
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    let pods = kubectl(&["get", "pods", "-l", "app=nginx"]);
    let running = pods.lines().skip(1).filter(|line| {
        let row: Vec<&str> = line.split_whitespace().collect();
        row[0].starts_with("nginx-") && row[1..4] == ["1/1", "Running", "0"]
    });
    assert_eq!(running.count(), 2, "{pods}");
    assert!(kubectl(&["get", "pods", "-o", "wide"]).contains(&cluster.profile));
    assert!(kubectl(&["get", "pods", "-o", "yaml"]).contains("kind: Pod"));

    // The Service.
    kubectl(&["apply", "-f", &format!("{}/service.yaml", example())]);
    assert!(kubectl(&["get", "svc"]).contains("80:30080/TCP"));
    let page = cluster.wait("the node port answers", || http_get("localhost:30080", "/"));
    assert!(page.contains("<title>Welcome to nginx!</title>"), "{page}");
    assert_eq!(cluster.coracle(&["service", "nginx-svc", "--url"]).ok(), "http://127.0.0.1:30080\n");

    // By its cluster IP, from the host and from a pod.
    let ip = cluster.field("service/nginx-svc", "{.spec.clusterIP}");
    cluster.wait("the cluster IP answers the host", || http_get(&format!("{ip}:80"), "/"));
    let pod = cluster.pods("app=nginx").remove(0);
    let from_pod = cluster.wait("the cluster IP answers a pod", || {
        let ran = cluster.kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "5", &format!("http://{ip}")]);
        (ran.code == 0).then_some(ran.stdout)
    });
    assert!(from_pod.contains("Welcome to nginx!"));
    // Also when the service leads back to the pod that asks.
    for _ in 0..8 {
        kubectl(&["exec", &pod, "--", "curl", "-s", "-m", "5", "-o", "/dev/null", &format!("http://{ip}")]);
    }

    // The update, and back.
    let manifest = std::fs::read_to_string(format!("{}/deployment.yaml", example())).expect("the example");
    cluster.apply(&manifest.replace("nginx:latest", "nginx:1.21.0"));
    let status = kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    assert!(status.contains("successfully rolled out"), "{status}");
    let image = |pod: &str| kubectl(&["exec", pod, "--", "cat", "/etc/image-reference"]);
    cluster.wait_for("deployment/nginx", "{.status.replicas}", "2");
    let spec = cluster.field("deployment/nginx", "{.spec.template.spec.containers[0].image}");
    assert_eq!(spec, "nginx:1.21.0");
    let newest = cluster.wait("only new pods are left", || {
        let pods = cluster.pods("app=nginx");
        (pods.len() == 2).then(|| pods[0].clone())
    });
    // Only an image built here says which one it is.
    if cluster.kubectl(&["exec", &newest, "--", "test", "-e", "/etc/image-reference"]).code == 0 {
        assert_eq!(image(&newest).trim(), "nginx:1.21.0");
    }
    assert!(kubectl(&["rollout", "history", "deployment/nginx"]).contains("2         <none>"));
    kubectl(&["rollout", "undo", "deployment/nginx"]);
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    let spec = cluster.field("deployment/nginx", "{.spec.template.spec.containers[0].image}");
    assert_eq!(spec, "nginx:latest");
    let revision = cluster.field("deployment/nginx", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}");
    assert_eq!(revision, "3", "revisions move on, never back");
    kubectl(&["rollout", "restart", "deployment/nginx"]);
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    kubectl(&["scale", "deployment/nginx", "--replicas=3"]);
    cluster.wait_for("deployment/nginx", "{.status.readyReplicas}", "3");

    // Debugging.
    let pod = cluster.pods("app=nginx").remove(0);
    let description = kubectl(&["describe", "pod", &pod]);
    for part in ["Successfully assigned", "  Created ", "  Started ", "Restart Count:"] {
        assert!(description.contains(part), "{part} is missing in\n{description}");
    }

    // The end.
    kubectl(&["delete", "deployment", "nginx"]);
    kubectl(&["delete", "svc", "nginx-svc"]);
    cluster.wait("all pods are gone", || cluster.pods("app=nginx").is_empty().then_some(()));
    cluster.wait("all containers are gone", || cluster.containers().is_empty().then_some(()));
    cluster.wait("the node port is closed", || http_get("localhost:30080", "/").is_none().then_some(()));
}

#[test]
fn logs_exec_attach_copy_and_forward() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["run", "web", "--image=nginx:latest", "--port=80"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);

    // exec: output, exit codes, standard input, a terminal.
    assert_eq!(kubectl(&["exec", "web", "--", "echo", "hello"]), "hello\n");
    assert_eq!(cluster.kubectl(&["exec", "web", "--", "sh", "-c", "exit 7"]).code, 7);
    let ran = cluster.kubectl_with_input(&["exec", "-i", "web", "--", "cat"], "one\ntwo\n");
    assert_eq!(ran.ok(), "one\ntwo\n");
    let ran = cluster.kubectl(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let typed = cluster.kubectl_on_terminal(&["exec", "-it", "web", "--", "bash"], "tty; stty size\nexit 5\n");
    assert!(typed.stdout.contains("/dev/pts/"), "{typed}");
    assert_eq!(typed.code, 5, "{typed}");
    let missing = cluster.kubectl(&["exec", "web", "--", "no-such-program"]);
    assert_ne!(missing.code, 0, "{missing}");

    // port-forward, and what the access leaves in the log.
    let forward = Background::start(cluster.kubectl_command(&["port-forward", "pod/web", ":80"]));
    let line = forward.line(|line| line.contains("Forwarding from 127.0.0.1"));
    let address = line.split_whitespace().nth(2).expect("an address").to_owned();
    for _ in 0..3 {
        let page = cluster.wait("the forwarded port answers", || http_get(&address, "/?forwarded"));
        assert!(page.contains("Welcome to nginx!"));
    }
    drop(forward);
    let log = cluster.wait("the log has the access", || {
        let log = kubectl(&["logs", "web"]);
        log.contains("GET /?forwarded").then_some(log)
    });
    assert_eq!(kubectl(&["logs", "web", "--tail=1"]).lines().count(), 1);
    assert!(log.lines().count() >= 3);
    let stamped = kubectl(&["logs", "web", "--timestamps", "--tail=1"]);
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    assert!(kubectl(&["logs", "web", "--since=1h", "-c", "web"]).contains("GET"));
    let follow = Background::start(cluster.kubectl_command(&["logs", "-f", "--tail=0", "web"]));
    thread::sleep(Duration::from_millis(500));
    kubectl(&["exec", "web", "--", "curl", "-s", "-o", "/dev/null", "http://127.0.0.1/?followed"]);
    follow.line(|line| line.contains("GET /?followed"));
    drop(follow);

    // cp, there and back.
    let here = cluster.home().join("file");
    std::fs::write(&here, "copied\n").expect("written");
    let here = here.to_string_lossy().into_owned();
    kubectl(&["cp", &here, "web:/tmp/there"]);
    assert_eq!(kubectl(&["exec", "web", "--", "cat", "/tmp/there"]), "copied\n");
    let back = format!("{here}.back");
    kubectl(&["cp", "web:/tmp/there", &back]);
    assert_eq!(std::fs::read_to_string(&back).expect("copied back"), "copied\n");

    // attach.
    kubectl(&["run", "cat", "--image", coracle_tests::BUSYBOX, "--stdin", "--image-pull-policy=Never", "--", "cat"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/cat", "--timeout=60s"]);
    let ran = cluster.kubectl_with_input(&["attach", "-i", "cat"], "through attach\n");
    assert!(ran.stdout.contains("through attach"), "{ran}");
}

/// The section on levels and namespaces: what lies in what, and who belongs to whom.
#[test]
fn the_hierarchy_of_objects() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let namespaces = kubectl(&["get", "namespaces", "-o", "name"]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(&format!("namespace/{name}\n")), "{namespaces}");
    }
    // What names no namespace is in `default`; the same name elsewhere is something else.
    kubectl(&["create", "namespace", "rbgs-test"]);
    kubectl(&["apply", "-f", &format!("{}/deployment.yaml", example())]);
    kubectl(&["apply", "-n", "rbgs-test", "-f", &format!("{}/deployment.yaml", example())]);
    assert_eq!(cluster.field("deployment/nginx", "{.metadata.namespace}"), "default");
    assert_eq!(kubectl(&["get", "deployments", "-A", "-o", "name"]).matches("deployment.apps/nginx").count(), 2);
    assert!(kubectl(&["get", "deployment", "-n", "rbgs-test"]).contains("nginx"));
    // Some kinds are in none.
    let wide = kubectl(&["api-resources", "--namespaced=false", "-o", "name"]);
    for kind in ["nodes", "namespaces", "persistentvolumes", "customresourcedefinitions.apiextensions.k8s.io"] {
        assert!(wide.lines().any(|line| line == kind), "{kind} is missing in {wide}");
    }
    // Deployment → ReplicaSet → Pods, in one namespace; and they go from the top down.
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    let pod = cluster.pods("app=nginx").remove(0);
    let owner = "{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}";
    let set = cluster.field(&format!("pod/{pod}"), owner);
    assert!(set.starts_with("ReplicaSet/nginx-"), "{set}");
    assert_eq!(cluster.field(&set, owner), "Deployment/nginx");
    kubectl(&["delete", "namespace", "rbgs-test", "--timeout=60s"]);
    assert_eq!(kubectl(&["get", "pods", "-A", "-l", "app=nginx", "-o", "name"]).lines().count(), 2);
    kubectl(&["delete", "deployment", "nginx"]);
    cluster.wait("all are gone", || kubectl(&["get", "replicasets,pods", "-o", "name"]).is_empty().then_some(()));
}

#[test]
fn debug_containers() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let image = format!("--image={}", coracle_tests::BUSYBOX);
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

#[test]
fn failing_pods_say_why() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();

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
    kubectl(&[
        "run",
        "crash",
        "--image",
        coracle_tests::BUSYBOX,
        "--image-pull-policy=Never",
        "--",
        "sh",
        "-c",
        "echo gone; exit 3",
    ]);
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
fn the_oldest_kubectl_works_too() {
    let cluster = Cluster::start().with_oldest_kubectl();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["apply", "-f", &format!("{}/deployment.yaml", example())]);
    kubectl(&["rollout", "status", "deployment/nginx", "--timeout=60s"]);
    let pod = cluster.pods("app=nginx").remove(0);
    // SPDY, where newer ones speak WebSocket.
    assert_eq!(kubectl(&["exec", &pod, "--", "echo", "hello"]), "hello\n");
    assert_eq!(cluster.kubectl(&["exec", &pod, "--", "sh", "-c", "exit 7"]).code, 7);
    let forward = Background::start(cluster.kubectl_command(&["port-forward", &format!("pod/{pod}"), ":80"]));
    let line = forward.line(|line| line.contains("Forwarding from 127.0.0.1"));
    let address = line.split_whitespace().nth(2).expect("an address").to_owned();
    cluster.wait("the forwarded port answers", || http_get(&address, "/"));
    assert!(kubectl(&["explain", "deployment.spec.replicas"]).contains("integer"));
    assert!(kubectl(&["api-resources"]).contains("deployments"));
    kubectl(&["rollout", "undo", "deployment/nginx", "--dry-run=server", "--to-revision=1"]);
    kubectl(&["delete", "deployment", "nginx"]);
}

#[test]
fn everyday_commands() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["create", "deployment", "web", "--image=nginx:latest", "--replicas=1"]);
    kubectl(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]);
    kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]);
    let port = cluster.field("service/web", "{.spec.ports[0].nodePort}");
    cluster.wait("the service answers", || http_get(&format!("127.0.0.1:{port}"), "/"));

    kubectl(&["label", "deployment", "web", "tier=front"]);
    assert!(kubectl(&["get", "deployments", "-l", "tier=front", "-o", "name"]).contains("deployment.apps/web"));
    kubectl(&["annotate", "deployment", "web", "note=seen"]);
    assert_eq!(cluster.field("deployment/web", "{.metadata.annotations.note}"), "seen");
    kubectl(&["patch", "deployment", "web", "-p", "{\"spec\":{\"revisionHistoryLimit\":3}}"]);
    kubectl(&["patch", "deployment", "web", "--type=merge", "-p", "{\"spec\":{\"minReadySeconds\":1}}"]);
    kubectl(&[
        "patch",
        "deployment",
        "web",
        "--type=json",
        "-p",
        "[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]",
    ]);
    assert_eq!(
        cluster.field("deployment/web", "{.spec.revisionHistoryLimit}{.spec.minReadySeconds}{.spec.replicas}"),
        "312"
    );
    kubectl(&["set", "image", "deployment/web", "nginx=nginx:1.21.0"]);
    kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let edited = run_editor(&cluster, "s/revisionHistoryLimit: 3/revisionHistoryLimit: 5/", "deployment/web");
    assert!(edited.contains("edited"), "{edited}");
    assert_eq!(cluster.field("deployment/web", "{.spec.revisionHistoryLimit}"), "5");
    assert!(kubectl(&["explain", "pod.spec.containers"]).contains("KIND:       Pod"));
    assert!(kubectl(&["api-versions"]).contains("apps/v1"));
    assert!(kubectl(&["version"]).contains("Server Version: v1.36"));
    assert!(kubectl(&["get", "all"]).contains("service/kubernetes"));
    assert!(kubectl(&["get", "events"]).contains("ScalingReplicaSet"));

    // A namespace and what is in it.
    kubectl(&["create", "namespace", "team"]);
    kubectl(&["create", "configmap", "settings", "--from-literal=color=blue", "-n", "team"]);
    kubectl(&["create", "secret", "generic", "password", "--from-literal=word=open", "-n", "team"]);
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: reader, namespace: team}}\nspec:\n  containers:\n  - name: c\n    image: {}\n    imagePullPolicy: Never\n    command: [sh, -c, 'echo $COLOR $(cat /etc/secret/word) $(cat /etc/config/color); sleep 1000']\n    env:\n    - name: COLOR\n      valueFrom: {{configMapKeyRef: {{name: settings, key: color}}}}\n    volumeMounts:\n    - {{name: secret, mountPath: /etc/secret}}\n    - {{name: config, mountPath: /etc/config}}\n  volumes:\n  - name: secret\n    secret: {{secretName: password}}\n  - name: config\n    configMap: {{name: settings}}\n  terminationGracePeriodSeconds: 0\n",
        coracle_tests::BUSYBOX
    );
    cluster.apply(&pod);
    kubectl(&["wait", "--for=condition=Ready", "pod/reader", "-n", "team", "--timeout=60s"]);
    cluster.wait("the pod read its settings", || {
        (kubectl(&["logs", "reader", "-n", "team"]) == "blue open blue\n").then_some(())
    });
    kubectl(&["patch", "configmap", "settings", "-n", "team", "-p", "{\"data\":{\"color\":\"green\"}}"]);
    cluster.wait("the mounted file follows the ConfigMap", || {
        let ran = cluster.kubectl(&["exec", "reader", "-n", "team", "--", "cat", "/etc/config/color"]);
        (ran.stdout == "green").then_some(())
    });
    kubectl(&["delete", "namespace", "team", "--timeout=60s"]);
    assert!(cluster.kubectl(&["get", "pod", "reader", "-n", "team"]).fails().contains("NotFound"));

    kubectl(&["delete", "service,deployment", "web"]);
    cluster.wait("the pods follow their owner", || cluster.pods("app=web").is_empty().then_some(()));
}

fn run_editor(cluster: &Cluster, script: &str, object: &str) -> String {
    let mut command = cluster.kubectl_command(&["edit", object]);
    command.env("KUBE_EDITOR", format!("sed -i '{script}'"));
    let output = command.output().expect("kubectl runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn nothing_is_left_behind() {
    let profile = {
        let cluster = Cluster::start();
        cluster.kubectl(&["create", "deployment", "web", "--image=nginx:latest"]).ok();
        cluster.kubectl(&["wait", "--for=condition=Available", "deployment/web", "--timeout=60s"]).ok();
        cluster.profile.clone()
    };
    let label = format!("label=io.coracle.profile={profile}");
    assert_eq!(run("docker", &["ps", "-aq", "--filter", &label]).ok(), "");
    assert_eq!(run("docker", &["network", "ls", "-q", "--filter", &label]).ok(), "");
    let rules = run("nft", &["list", "ruleset"]).ok();
    assert!(!rules.contains(&profile), "{rules}");
}
