//! The pod network on a real daemon: who connects the pods, and that they stay connected. Needs Docker, root, and
//! /bin/busybox (Debian's busybox-static).

mod support;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use coracle_docker::{Config, Docker, Subnet};
use runtime::{Error, Runtime, Sandbox, SandboxConfig};
use support::{Fixture, eventually, with};

const MINUTE: Duration = Duration::from_secs(60);

/// What a command prints in a container.
async fn output(docker: &Docker, id: &str, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let ran = docker.exec_sync(id, command, MINUTE).await.unwrap();
    String::from_utf8(ran.output.to_vec()).unwrap()
}

fn v4(sandbox: &Sandbox) -> std::net::Ipv4Addr {
    match sandbox.ip() {
        Some(IpAddr::V4(ip)) => ip,
        other => panic!("no address: {other:?}"),
    }
}

/// The machine's end of a pod's link.
fn link(sandbox: &Sandbox) -> String {
    format!("/sys/class/net/veth{:08x}", v4(sandbox).to_bits())
}

fn is_connected(sandbox: &Sandbox) -> bool {
    Path::new(&link(sandbox)).join("brport").exists()
}

#[tokio::test]
async fn pods_are_connected_without_docker() {
    with(async |fixture: Fixture| {
        let Fixture { docker, network, .. } = &fixture;
        let config = SandboxConfig {
            sysctls: [("net.core.somaxconn".to_owned(), "77".to_owned())].into(),
            ..fixture.sandbox_config("one")
        };
        let one = docker.run_sandbox(&config).await.unwrap();
        let two = fixture.sandbox("two").await;
        assert!(is_connected(&one) && is_connected(&two));
        let read = |file: &str| std::fs::read_to_string(format!("{}/{file}", link(&one))).unwrap();
        assert_eq!(read("ifalias").trim(), "default/one");
        assert_eq!(read("brport/hairpin_mode").trim(), "1", "a pod reaches itself through its service");

        let serve = fixture.run_script(&one, "serve", "while true; do echo hello | nc -l -p 80; done").await;
        let client = fixture.run_script(&two, "client", "sleep 1000").await;
        let ask = format!("nc {} 80 </dev/null", v4(&one));
        eventually(async || (output(docker, &client, &ask).await == "hello\n").then_some(())).await;
        // Its own loopback, and the way to everything else.
        let own = "nc 127.0.0.1 80 </dev/null; cat /proc/net/route /proc/sys/net/core/somaxconn";
        // Nobody listens between one answer of the server and the next.
        let own = eventually(async || {
            let own = output(docker, &serve, own).await;
            own.starts_with("hello\n").then_some(own)
        })
        .await;
        assert!(own.ends_with("77\n"), "{own}");
        let gateway = format!("eth0\t00000000\t{:08X}", network.gateway.to_bits().swap_bytes());
        assert!(own.contains(&gateway), "{own}");
        // The machine reaches the pod.
        eventually(async || tokio::net::TcpStream::connect((v4(&one), 80)).await.ok()).await;
        let stats = docker.stats(&serve).await.unwrap();
        assert!(stats.network_rx_bytes > 0 && stats.network_tx_bytes > 0, "{stats:?}");

        // The kernel takes the link down together with the pod's network.
        let last = link(&one);
        docker.stop_sandbox(&one.id).await.unwrap();
        eventually(async || (!Path::new(&last).exists()).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn addresses_are_kept_over_a_restart() {
    with(async |fixture: Fixture| {
        let mut made = vec![fixture.sandbox("a").await, fixture.sandbox("b").await];
        fixture.docker.stop_sandbox(&made[0].id).await.unwrap();
        let again = Docker::connect(Config::new(fixture.docker.profile())).await.unwrap();
        again.prepare(fixture.network.subnet).await.unwrap();
        made.push(again.run_sandbox(&fixture.sandbox_config("c")).await.unwrap());
        assert_ne!(v4(&made[1]), v4(&made[2]));
        let pods = again.pods().await.unwrap();
        let of = |name: &str| pods.iter().find(|pod| pod.pod.name == name).unwrap();
        assert_eq!(of("b").ips, made[1].ips);
        assert_eq!((of("a").ready, &of("a").ips), (false, &Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn docker_connects_pods_where_nobody_else_can() {
    with(async |fixture: Fixture| {
        let config = Config { direct_networking: false, ..Config::new(fixture.docker.profile()) };
        let docker = Docker::connect(config).await.unwrap();
        docker.prepare(fixture.network.subnet).await.unwrap();
        let by_docker = docker.run_sandbox(&fixture.sandbox_config("docker")).await.unwrap();
        assert!(!Path::new(&link(&by_docker)).exists());
        // Both kinds live side by side, and a restart finds both.
        let own = fixture.sandbox("own").await;
        assert_ne!(v4(&own), v4(&by_docker));
        let id = fixture.run_script(&by_docker, "serve", "while true; do echo hello | nc -l -p 80; done").await;
        let client = fixture.run_script(&own, "client", "sleep 1000").await;
        let ask = format!("nc {} 80 </dev/null", v4(&by_docker));
        eventually(async || (output(&docker, &client, &ask).await == "hello\n").then_some(())).await;
        assert!(docker.stats(&id).await.unwrap().network_rx_bytes > 0);
        let pods = fixture.docker.pods().await.unwrap();
        for made in [&by_docker, &own] {
            let found = pods.iter().find(|pod| pod.id == made.id).unwrap();
            assert_eq!((found.ready, &found.ips), (true, &made.ips));
        }
    })
    .await;
}

/// What `docker network prune` does, for Docker does not know of the pods on the network.
#[tokio::test]
async fn a_network_that_was_removed_comes_back_under_the_pods() {
    with(async |fixture: Fixture| {
        let Fixture { docker, network, .. } = &fixture;
        let sandbox = fixture.sandbox("web").await;
        let keeper = docker.clone();
        let keeper = tokio::spawn(async move { keeper.keep_network(|| {}).await });
        let client = bollard::Docker::connect_with_defaults().unwrap();
        // Until the keeper listens, and then once more.
        for _ in 0..2 {
            client.remove_network(&network.name).await.unwrap();
            eventually(async || (is_connected(&sandbox) && docker.network().await.unwrap().is_some()).then_some(()))
                .await;
        }
        assert!(docker.pods().await.unwrap()[0].ready);
        keeper.abort();
    })
    .await;
}

#[tokio::test]
async fn nodes_share_a_machine_and_see_their_own_pods() {
    with(async |fixture: Fixture| {
        let range: Subnet = Subnet::new(fixture.network.subnet.nth(128), 25);
        let other = fixture.docker.for_node("other", range);
        let here = fixture.sandbox("here").await;
        let there = other.run_sandbox(&fixture.sandbox_config("there")).await.unwrap();
        assert!(range.contains(v4(&there)), "{there:?}");
        let names = async |docker: &Docker| {
            docker.pods().await.unwrap().into_iter().map(|sandbox| sandbox.pod.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&fixture.docker).await, ["here"]);
        assert_eq!(names(&other).await, ["there"]);
        let id = fixture.run_script(&here, "main", "sleep 1000").await;
        assert!(fixture.docker.container(&id).await.unwrap().is_some());
        assert_eq!(other.container(&id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_node_without_free_addresses_says_so() {
    with(async |fixture: Fixture| {
        let tiny = fixture.docker.for_node("tiny", Subnet::new(fixture.network.subnet.nth(248), 30));
        tiny.run_sandbox(&fixture.sandbox_config("one")).await.unwrap();
        let error = tiny.run_sandbox(&fixture.sandbox_config("two")).await.unwrap_err();
        assert!(error.to_string().contains("no IP addresses available"), "{error}");
        tiny.stop_sandbox(&tiny.pods().await.unwrap()[0].id).await.unwrap();
        tiny.run_sandbox(&fixture.sandbox_config("three")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn networks_of_others_are_not_touched() {
    let client = bollard::Docker::connect_with_defaults().unwrap();
    let profile = support::unique();
    let name = coracle_docker::network_name(&profile);
    client
        .create_network(bollard::models::NetworkCreateRequest { name: name.clone(), ..Default::default() })
        .await
        .unwrap();
    let docker = Docker::connect(Config::new(&profile)).await.unwrap();
    let ensured = docker.ensure_network("10.127.3.0/24".parse().unwrap()).await;
    let removed = docker.remove_network().await;
    let still_there = client.inspect_network(&name, None).await.is_ok();
    client.remove_network(&name).await.unwrap();
    assert!(matches!(ensured, Err(Error::Conflict(_))), "{ensured:?}");
    assert!(matches!(removed, Err(Error::Conflict(_))), "{removed:?}");
    assert!(still_there);
}

#[tokio::test]
async fn a_network_is_verified_and_made_anew_while_empty() {
    with(async |fixture: Fixture| {
        let Fixture { docker, network, .. } = &fixture;
        assert_eq!(&docker.ensure_network(network.subnet).await.unwrap(), network);
        let taken = docker.taken_subnets().await.unwrap();
        assert!(!taken.contains(&network.subnet), "its own is free for itself: {taken:?}");
        let other = Subnet::new(network.subnet.address(), 25);
        let changed = docker.ensure_network(other).await.unwrap();
        assert_eq!(changed.subnet, other);
        fixture.sandbox("web").await;
        let error = docker.ensure_network(network.subnet).await.unwrap_err();
        assert!(matches!(error, Error::Conflict(_)), "{error:?}");
    })
    .await;
}
