//! kubectl's other everyday commands, and the oldest kubectl that must work.

use coracle_tests::{BUSYBOX, Background, Cluster, example, http_get};

#[test]
fn the_oldest_kubectl_works_too() {
    let cluster = Cluster::start().with_oldest_kubectl();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["apply", "-f", &example("nginx/deployment.yaml")]);
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

/// Runs short commands attached, a dozen times: each prints what it says once, and ends, whoever is first.
fn short_commands(cluster: &Cluster) {
    for number in 0..12 {
        let name = format!("short-{number}");
        let image = format!("--image={BUSYBOX}");
        let run = ["run", &name, &image, "--image-pull-policy=Never", "--rm", "-i", "--restart=Never", "--quiet", "--"];
        let script = "echo first; echo second >&2; echo third";
        let ran = cluster.kubectl(&[&run[..], &["sh", "-c", script]].concat());
        let said = |word: &str| ran.stdout.matches(word).count() + ran.stderr.matches(word).count();
        let counts = ["first", "second", "third"].map(said);
        assert_eq!((ran.code, counts), (0, [1, 1, 1]), "{ran}");
    }
    // What is typed reaches it, and what it says before anybody listens is not lost.
    let image = format!("--image={BUSYBOX}");
    let run = ["run", "typed", &image, "--image-pull-policy=Never", "--rm", "-i", "--restart=Never", "--quiet", "--"];
    let ran = cluster.kubectl_with_input(&[&run[..], &["sh", "-c", "echo ready; cat"]].concat(), "typed\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ready\ntyped\n"), "{ran}");
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]).ok(), "");
}

#[test]
fn run_attached_prints_once_and_ends() {
    short_commands(&Cluster::start());
}

#[test]
fn run_attached_with_the_oldest_kubectl() {
    short_commands(&Cluster::start().with_oldest_kubectl());
}

/// What every cluster has of priority and fairness, and what an administrator adds to it.
#[test]
fn flow_schemas_and_priority_levels() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let levels = kubectl(&["get", "prioritylevelconfigurations"]);
    let lines: Vec<_> = levels.lines().map(words).collect();
    let header = ["NAME", "TYPE", "NOMINALCONCURRENCYSHARES", "QUEUES", "HANDSIZE", "QUEUELENGTHLIMIT", "AGE"];
    assert_eq!((lines.len(), lines[0].as_slice()), (9, header.map(str::to_owned).as_slice()), "{levels}");
    let system = lines.iter().find(|line| line[0] == "system").expect("the level of the system");
    assert_eq!(system[..6], ["system", "Limited", "30", "64", "6", "50"].map(str::to_owned));
    cluster.wait("the schemas say that their levels are there", || {
        let schemas = cluster.kubectl(&["get", "flowschemas", "--no-headers"]).ok();
        let all = schemas.lines().map(words).collect::<Vec<_>>();
        (all.len() == 13 && all.iter().all(|line| line[5] == "False")).then_some(())
    });
    assert!(kubectl(&["explain", "flowschema.spec.matchingPrecedence"]).contains("integer"));
    kubectl(&[
        "annotate",
        "prioritylevelconfiguration",
        "workload-low",
        "--overwrite",
        "apf.kubernetes.io/autoupdate-spec=false",
    ]);
    let patch = r#"{"spec":{"limited":{"nominalConcurrencyShares":50}}}"#;
    kubectl(&["patch", "prioritylevelconfiguration", "workload-low", "--type=merge", "-p", patch]);
    let refused = cluster.kubectl(&[
        "patch",
        "flowschema",
        "exempt",
        "--type=merge",
        "-p",
        r#"{"spec":{"matchingPrecedence":9}}"#,
    ]);
    assert!(refused.stderr.contains("must equal the fixed value"), "{refused}");
}

/// Manifests of a definition in example.com that serves these versions, of which the last is stored.
fn definition(plural: &str, kind: &str, versions: &[&str]) -> String {
    let schema = r#"{"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}"#;
    let version = |name: &&str| {
        let stored = Some(name) == versions.last();
        format!(r#"{{"name": "{name}", "served": true, "storage": {stored}, "schema": {schema}}}"#)
    };
    let versions: Vec<String> = versions.iter().map(version).collect();
    format!(
        r#"{{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {{"name": "{plural}.example.com"}},
            "spec": {{"group": "example.com", "scope": "Namespaced", "names": {{"plural": "{plural}", "kind": "{kind}"}},
                "versions": [{}]}}}}"#,
        versions.join(", ")
    )
}

#[test]
fn definitions_that_come_and_change_cost_no_dependents() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    // Makes an object of the kind, and a ConfigMap that belongs to it.
    let own = |version: &str, kind: &str, name: &str| {
        cluster.apply(&format!(
            r#"{{"apiVersion": "example.com/{version}", "kind": "{kind}", "metadata": {{"name": "{name}"}}}}"#
        ));
        let uid = cluster.field(&format!("{kind}/{name}"), "{.metadata.uid}");
        cluster.apply(&format!(
            r#"{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "{name}", "ownerReferences":
                [{{"apiVersion": "example.com/{version}", "kind": "{kind}", "name": "{name}", "uid": "{uid}"}}]}}}}"#
        ));
    };
    // Once what belongs to an object of the kind goes with it, garbage collection knows the kind.
    let collects = |version: &str, kind: &str, name: &str| {
        own(version, kind, name);
        kubectl(&["delete", kind, name]);
        cluster.wait("a dependent goes", || {
            cluster.kubectl(&["get", "configmap", name]).stderr.contains("NotFound").then_some(())
        });
    };
    cluster.apply(&definition("widgets", "Widget", &["v1alpha1"]));
    own("v1alpha1", "Widget", "kept");
    collects("v1alpha1", "Widget", "first");
    // The version that the group prefers is now one that widgets do not have.
    cluster.apply(&definition("gadgets", "Gadget", &["v1"]));
    collects("v1", "Gadget", "second");
    kubectl(&["get", "configmap", "kept"]);
    // And now one that they had not when the object was made.
    cluster.apply(&definition("widgets", "Widget", &["v1alpha1", "v1"]));
    collects("v1", "Widget", "third");
    kubectl(&["get", "configmap", "kept"]);
    kubectl(&["delete", "widget", "kept"]);
    cluster.wait("it goes with its owner all the same", || {
        cluster.kubectl(&["get", "configmap", "kept"]).stderr.contains("NotFound").then_some(())
    });
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
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: reader, namespace: team}}\nspec:\n  containers:\n  - name: c\n    image: {BUSYBOX}\n    imagePullPolicy: Never\n    command: [sh, -c, 'echo $COLOR $(cat /etc/secret/word) $(cat /etc/config/color); sleep 1000']\n    env:\n    - name: COLOR\n      valueFrom: {{configMapKeyRef: {{name: settings, key: color}}}}\n    volumeMounts:\n    - {{name: secret, mountPath: /etc/secret}}\n    - {{name: config, mountPath: /etc/config}}\n  volumes:\n  - name: secret\n    secret: {{secretName: password}}\n  - name: config\n    configMap: {{name: settings}}\n  terminationGracePeriodSeconds: 0\n"
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
fn components_say_how_they_are_and_classes_of_attributes_are_kept() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let shown = kubectl(&["get", "cs", "--no-headers"]);
    let components: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(components, [["controller-manager", "Healthy"], ["etcd-0", "Healthy"], ["scheduler", "Healthy"]]);

    cluster.apply(
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: gold}, driverName: csi.example.com, \
         parameters: {iops: '3000'}}",
    );
    assert!(kubectl(&["get", "vac", "gold"]).contains("csi.example.com"));
    let patch = r#"{"parameters":{"iops":"1"}}"#;
    let refused = cluster.kubectl(&["patch", "vac", "gold", "--type=merge", "-p", patch]).fails();
    assert!(refused.contains("updates to parameters are forbidden"), "{refused}");
    // Nobody names it, so that nothing keeps it.
    kubectl(&["delete", "vac", "gold", "--timeout=60s"]);
}
