//! The addresses of a cluster that a person chooses.

use std::fs;

use coracle_tests::{BUSYBOX, Cluster, run};

/// An address of this machine that is not on loopback: that of Docker's own bridge.
fn own_address() -> String {
    let name = r#"{{index .Options "com.docker.network.bridge.name"}}"#;
    let bridge = run("docker", &["network", "inspect", "bridge", "--format", name]).ok();
    // A daemon that was started for the first time does not tell the gateway that it has chosen.
    let addresses = run("ip", &["-4", "-oneline", "address", "show", "dev", bridge.trim()]).ok();
    let address =
        addresses.split_whitespace().skip_while(|word| *word != "inet").nth(1).and_then(|it| it.split_once('/'));
    address.expect("Docker's bridge has an address").0.to_owned()
}

#[test]
fn addresses_are_those_that_are_asked_for() {
    let cluster = Cluster::new();
    let address = own_address();
    let start =
        ["start", "--subnet", "10.213.0.0/16", "--service-subnet", "10.214.7.0/24", "--dns-domain", "cluster.example"];
    cluster.coracle(&[&start[..], &["--listen", &address]].concat()).ok();
    assert_eq!(cluster.field("service/kubernetes", "{.spec.clusterIP}"), "10.214.7.1");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: {BUSYBOX}, command: [sleep, \
         '1000']}}]}}}}"
    ));
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "pod/p"]).ok();
    let ip = cluster.field("pod/p", "{.status.podIP}");
    assert!(ip.starts_with("10.213."), "{ip}");
    let resolver = cluster.kubectl(&["exec", "p", "--", "cat", "/etc/resolv.conf"]).ok();
    assert!(resolver.contains("search default.svc.cluster.example svc.cluster.example cluster.example"), "{resolver}");
    cluster.wait("the name of the API", || {
        let answer = cluster.kubectl(&["exec", "p", "--", "nslookup", "kubernetes.default.svc.cluster.example"]);
        answer.stdout.contains("10.214.7.1").then_some(())
    });

    // The API answers on the other address, too, with a certificate that is made out to it.
    let server = cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let other = server.replace("127.0.0.1", &address);
    assert_ne!(server, other);
    assert!(cluster.kubectl(&["--server", &other, "get", "nodes"]).ok().contains("Ready"));

    // It keeps them, and the port of the API that is asked for.
    cluster.coracle(&["stop"]).ok();
    let why = cluster.coracle(&["start", "--subnet", "10.215.0.0/16"]).fails();
    assert!(why.contains("is 10.213.0.0/16 as long as it lives") && why.contains("coracle delete"), "{why}");
    let port = server.rsplit(':').next().expect("a port");
    cluster.coracle(&["start", "--api-port", port]).ok();
    assert_eq!(cluster.field("service/kubernetes", "{.spec.clusterIP}"), "10.214.7.1");

    // What is taken is refused, and nothing is left of it.
    let second = Cluster::new();
    let why = second.coracle(&["start", "--subnet", "10.213.128.0/17"]).fails();
    assert!(why.contains("overlaps 10.213.0.0/16") && why.contains("--subnet"), "{why}");
    let why = second.coracle(&["start", "--api-port", port]).fails();
    assert!(why.contains(&format!("127.0.0.1:{port}")) && why.contains("--api-port"), "{why}");
    for (option, value) in
        [("--subnet", "10.0.0.0/8"), ("--listen", "0.0.0.0"), ("--service-subnet", "x"), ("--api-port", "0")]
    {
        assert!(second.coracle(&["start", option, value]).fails().contains(option));
    }
    assert!(!second.coracle(&["status"]).stdout.contains("10.2"));
}

#[test]
fn a_file_has_the_options() {
    let cluster = Cluster::new();
    let folder = cluster.home().join("config");
    fs::create_dir(&folder).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    write("web.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-a-file}\n");
    let config = folder.join("cluster.yaml");
    let config = config.to_str().expect("a path");
    let wrong = |text: &str, expected: &str| {
        write("cluster.yaml", text);
        let why = cluster.coracle(&["start", "--config", config]).fails();
        assert!(why.contains(config) && why.contains(expected) && why.lines().count() == 1, "{text}: {why}");
    };
    wrong("nodez: 1", "there is no option nodez");
    wrong("nodes: many", "--nodes");
    wrong("subnet: 10.0.0.0/8", "/12 to /24");
    assert!(cluster.coracle(&["start", "--config", "/nowhere.yaml"]).fails().contains("/nowhere.yaml"));
    assert!(cluster.coracle(&["status"]).stdout.contains("Nonexistent") || cluster.coracle(&["status"]).code == 4);

    write(
        "cluster.yaml",
        &format!("service-subnet: 10.215.3.0/24\nfake-nodes: 2\nimages: [{BUSYBOX}]\napply: [web.yaml]\nnodes: 9\n"),
    );
    cluster.coracle(&["start", "--config", config, "--nodes", "1"]).ok();
    assert_eq!(cluster.field("service/kubernetes", "{.spec.clusterIP}"), "10.215.3.1");
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).ok();
    assert_eq!(nodes, format!("fake-0 fake-1 {}", cluster.profile));
    cluster.kubectl(&["get", "configmap", "from-a-file"]).ok();
    // Again: what is there stays.
    cluster.coracle(&["start", "--config", config, "--nodes", "1", "--fake-nodes", "3"]).ok();
    cluster.kubectl(&["get", "node", "fake-2"]).ok();
    let why = cluster.coracle(&["start", "--apply", "/nowhere.yaml"]).fails();
    assert!(why.contains("runs, but /nowhere.yaml was not applied"), "{why}");
}
