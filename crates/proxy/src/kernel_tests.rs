//! Rules in a real kernel, between containers on a Docker bridge: with Docker's own rules in place, which forward nothing
//! they do not know. Needs root, nftables, Docker and /bin/busybox (Debian's busybox-static).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use informer::ObjectKey;
use serde_json::json;

use crate::service::tests::{service, slice};
use crate::service::{Port, Protocol, ports};
use crate::service_map::{ChangeTracker, ServiceMap};
use crate::sync::Kernel;
use crate::table::Table;
use crate::{Config, LocalTools, cleanup, nft};

const TIMEOUT: Duration = Duration::from_secs(5);

fn sh(script: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{script}: {} {}", output.status, text(&output.stderr)))
    }
}

/// A Docker network with an image for its pods; gone with the value.
struct Bridge {
    name: String,
    config: Config,
}

impl Bridge {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let (pid, nanos) = (std::process::id(), now.subsec_nanos());
        let name = format!("px{pid:x}{:x}", nanos & 0xfff);
        let image = format!(
            "d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin/; ln -s busybox $d/bin/sh; tar -C $d -c . | docker import - {name}:1; rm -r $d"
        );
        sh(&image).unwrap();
        let mut failure = String::new();
        for attempt in 0..20 {
            let [b, c, ..] = (nanos.wrapping_add(attempt * 7919)).to_le_bytes();
            let (b, pods) = (64 + (b & 31), format!("10.{}.{c}.0/24", 64 + (b & 31)));
            let create =
                format!("docker network create --subnet {pods} -o com.docker.network.bridge.name={name} {name}");
            match sh(&create) {
                Ok(_) => {
                    let services = format!("10.{}.{c}.0/24", b + 32);
                    return Self { config: Config::new(&name, &name, &pods, &services), name };
                }
                Err(error) => failure = error,
            }
        }
        panic!("no network: {failure}");
    }

    fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.config.pod_cidr.split_once('/').unwrap().0.parse::<Ipv4Addr>().unwrap().octets();
        Ipv4Addr::new(a, b, c, 1)
    }

    /// Starts a pod that serves its name, and answers its address.
    fn pod(&self, pod: &str) -> String {
        let name = &self.name;
        let serve = format!("mkdir /www; echo {pod} > /www/name; exec busybox httpd -f -p 8080 -h /www");
        let serve = serve.replace("mkdir", "busybox mkdir");
        sh(&format!("docker run -d --name {name}-{pod} --network {name} {name}:1 /bin/sh -c '{serve}'")).unwrap();
        let inspect = "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'";
        sh(&format!("{inspect} {name}-{pod}")).unwrap()
    }

    /// What a pod gets from an address.
    fn asked_by_pod(&self, pod: &str, address: SocketAddr) -> Result<String, String> {
        let name = &self.name;
        sh(&format!("docker exec {name}-{pod} busybox timeout 5 busybox wget -q -O - http://{address}/name"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let name = &self.name;
        let pods = format!("docker rm -f $(docker ps -aq --filter network={name})");
        for script in [pods, format!("docker network rm {name}"), format!("docker rmi {name}:1")] {
            // What was not made cannot be removed.
            let _ = sh(&script);
        }
        let _ = sh(&format!("nft delete table ip coracle-{name}"));
    }
}

/// What the machine itself gets from an address.
fn asked_by_host(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /name HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().to_owned())
}

/// Everybody who answers within a number of tries.
fn all<E: std::fmt::Debug>(tries: usize, ask: impl Fn() -> Result<String, E>) -> Vec<String> {
    let answers: BTreeSet<String> = (0..tries).map(|_| ask().unwrap()).collect();
    answers.into_iter().collect()
}

fn refused(address: SocketAddr) {
    let start = Instant::now();
    assert_eq!(asked_by_host(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
    assert!(start.elapsed() < Duration::from_secs(1), "{address}: {:?}", start.elapsed());
}

struct World {
    bridge: Bridge,
    kernel: Kernel,
    service_map: ServiceMap,
    tracker: ChangeTracker,
}

impl World {
    async fn new() -> Self {
        Self::on(Bridge::new()).await
    }

    async fn on(bridge: Bridge) -> Self {
        let kernel = Kernel::new(Table::new(&bridge.config).unwrap(), Arc::new(LocalTools)).await;
        Self { bridge, kernel, service_map: ServiceMap::default(), tracker: ChangeTracker::default() }
    }

    /// Number `n` of the service range.
    fn ip(&self, n: u8) -> Ipv4Addr {
        let [a, b, c, _] =
            self.bridge.config.service_cidr.split_once('/').unwrap().0.parse::<Ipv4Addr>().unwrap().octets();
        Ipv4Addr::new(a, b, c, n)
    }

    /// An address for documentation, another in each run.
    fn external(&self) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, self.ip(0).octets()[2])
    }

    fn gateway(&self) -> Ipv4Addr {
        self.bridge.gateway()
    }

    async fn set(&mut self, name: &str, n: u8, affinity: &str, endpoints: &[&str]) -> SocketAddr {
        let ip = self.ip(n);
        let spec = json!({
            "type": "NodePort", "clusterIP": ip, "sessionAffinity": affinity, "externalIPs": [self.external()],
            "ports": [{ "port": 80, "nodePort": 30000 + u16::from(n) }],
        });
        self.set_spec(name, spec, endpoints).await;
        SocketAddr::new(ip.into(), 80)
    }

    async fn set_spec(&mut self, name: &str, spec: serde_json::Value, endpoints: &[&str]) {
        let range = self.bridge.config.service_cidr.parse().unwrap();
        let ports = ports(&service(name, spec), &[slice(name, ("", 8080), endpoints)], range);
        self.service_map.set(&ObjectKey::new("default", name), ports, &mut self.tracker);
        self.kernel.update(&self.service_map, &std::mem::take(&mut self.tracker)).await;
    }
}

#[tokio::test]
async fn services_in_the_kernel() {
    let mut world = World::new().await;
    let (a, b) = (world.bridge.pod("a"), world.bridge.pod("b"));
    let web = world.set("web", 10, "None", &[&a, &b]).await;
    let node_port = SocketAddr::new(world.gateway().into(), 30010);

    // The machine and the pods, a pod itself among the endpoints, by cluster IP and by node port.
    for address in [web, node_port] {
        assert_eq!(all(40, || asked_by_host(address)), ["a", "b"]);
        assert_eq!(all(20, || world.bridge.asked_by_pod("a", address)), ["a", "b"]);
    }

    let external = SocketAddr::new(world.external().into(), 80);
    assert_eq!(all(20, || world.bridge.asked_by_pod("a", external)), ["a", "b"]);

    // Nobody gets an address of the service range by asking for it, nor a pod's, the node's or this machine's.
    let asked_for = [world.ip(40), a.parse().unwrap(), world.gateway(), Ipv4Addr::LOCALHOST];
    let spec = json!({ "clusterIP": world.ip(30), "externalIPs": asked_for, "ports": [{ "port": 81 }] });
    world.set_spec("thief", spec, &[&b]).await;
    assert_eq!(all(5, || asked_by_host(SocketAddr::new(world.ip(30).into(), 81))), ["b"]);
    for address in asked_for.map(|ip| SocketAddr::new(ip.into(), 81)) {
        refused(address);
        assert!(world.bridge.asked_by_pod("b", address).is_err(), "{address}");
    }

    // Endpoints change.
    world.set("web", 10, "None", &[&b]).await;
    assert_eq!(all(10, || asked_by_host(web)), ["b"]);
    assert_eq!(all(5, || world.bridge.asked_by_pod("b", web)), ["b"], "a pod reaches itself");

    // Nobody there: refused at once, and not sent anywhere.
    world.set("web", 10, "None", &[]).await;
    for address in [web, node_port, SocketAddr::new(world.ip(99).into(), 80), SocketAddr::new(world.ip(10).into(), 81)]
    {
        refused(address);
        let answer = world.bridge.asked_by_pod("a", address).unwrap_err();
        assert!(answer.contains("refused"), "{answer}");
    }

    // A client stays with its endpoint, also when others come and go.
    let sticky = world.set("sticky", 20, "ClientIP", &[&a]).await;
    assert_eq!(all(5, || asked_by_host(sticky)), ["a"]);
    world.set("sticky", 20, "ClientIP", &[&a, &b]).await;
    assert_eq!(all(20, || asked_by_host(sticky)), ["a"]);
    world.set("sticky", 20, "ClientIP", &[&b]).await;
    assert_eq!(all(5, || asked_by_host(sticky)), ["b"]);

    // Somebody removes the table: the next look notices, and all is back.
    sh(&format!("nft delete table ip coracle-{}", world.bridge.name)).unwrap();
    world.kernel.check().await;
    world.kernel.update(&world.service_map, &ChangeTracker::default()).await;
    assert_eq!(all(5, || asked_by_host(sticky)), ["b"]);
    // So does the next change.
    sh(&format!("nft delete table ip coracle-{}", world.bridge.name)).unwrap();
    world.set("web", 10, "None", &[&a]).await;
    assert_eq!(all(5, || asked_by_host(web)), ["a"]);
    assert_eq!(all(5, || asked_by_host(sticky)), ["b"]);

    // Nothing is left.
    let (table, range) = (format!("coracle-{}", world.bridge.name), world.bridge.config.service_cidr.clone());
    assert!(sh("ip route").unwrap().contains(&range));
    world.kernel.remove().await;
    assert!(!nft::has(&LocalTools, &table, "prerouting").await);
    assert!(!sh("ip route").unwrap().contains(&range));
}

#[tokio::test]
async fn a_pod_that_floods_the_dns_is_stopped_before_others_are_lost() {
    let mut bridge = Bridge::new();
    let server = UdpSocket::bind((bridge.gateway(), 0)).unwrap();
    server.set_read_timeout(Some(TIMEOUT)).unwrap();
    let SocketAddr::V4(at) = server.local_addr().unwrap() else { unreachable!() };
    bridge.config.dns = vec![at];
    let mut world = World::on(bridge).await;
    let (name, flooding) = (world.bridge.name.clone(), world.bridge.pod("a"));
    world.bridge.pod("b");
    // The kernel has the table from the first service on.
    world.set("web", 10, "None", &[&flooding]).await;
    let ask = |pod: &str, questions: &str| {
        let pid = sh(&format!("docker inspect -f '{{{{.State.Pid}}}}' {name}-{pod}")).unwrap();
        let send = format!("{questions} >/dev/udp/{}/{}", at.ip(), at.port());
        sh(&format!("nsenter -t {pid} -n bash -c '{send}'")).unwrap()
    };
    let dropped = || {
        let rules = sh(&format!("nft list chain ip coracle-{name} questions")).unwrap();
        let count = rules.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(dropped(), 0);
    let start = Instant::now();
    while dropped() == 0 {
        assert!(start.elapsed() < 12 * TIMEOUT, "a flood passes");
        ask("a", "dd if=/dev/zero bs=512 count=100000 status=none");
    }
    // What the socket has of the flood, and then what another pod asks.
    let before = dropped();
    server.set_nonblocking(true).unwrap();
    while server.recv(&mut [0; 65536]).is_ok() {}
    server.set_nonblocking(false).unwrap();
    ask("b", "echo question");
    let mut question = [0; 16];
    let length = server.recv(&mut question).unwrap();
    assert_eq!(&question[..length], b"question\n");
    assert_eq!(dropped(), before, "nothing of the other pod's is dropped");
    world.kernel.remove().await;
}

#[tokio::test]
async fn a_flow_of_udp_goes_where_its_service_has_gone() {
    let mut world = World::new().await;
    let servers = [(); 2].map(|()| UdpSocket::bind((world.gateway(), 0)).unwrap());
    let client = UdpSocket::bind((world.gateway(), 0)).unwrap();
    for socket in servers.iter().chain([&client]) {
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    }
    client.connect((world.ip(30), 53)).unwrap();
    // The second time with the same socket.
    for server in &servers {
        let SocketAddr::V4(endpoint) = server.local_addr().unwrap() else { unreachable!() };
        let port = Port {
            guard: None,
            service: ObjectKey::new("default", "dns"),
            protocol: Protocol::Udp,
            addresses: vec![world.ip(30)],
            port: 53,
            node_port: None,
            affinity: None,
            endpoints: vec![endpoint],
        };
        world.service_map.set(&port.service.clone(), vec![port], &mut world.tracker);
        world.kernel.update(&world.service_map, &std::mem::take(&mut world.tracker)).await;
        client.send(b"ping").unwrap();
        let (_, from) = server.recv_from(&mut [0; 4]).unwrap();
        server.send_to(b"pong", from).unwrap();
        client.recv(&mut [0; 4]).unwrap();
    }
    world.kernel.remove().await;
}

#[tokio::test]
async fn pods_are_masqueraded_where_bridged_packets_pass_no_hooks() {
    let mut world = World::new().await;
    let hooks = format!("/sys/class/net/{}/bridge/nf_call_iptables", world.bridge.name);
    let global = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    std::fs::write(&hooks, "0").unwrap();
    // The setting of the whole machine is not ours to change; where it is on, this case does not occur.
    let occurs = std::fs::read_to_string(global).is_ok_and(|value| value.trim() == "0");
    world.kernel.masquerade_pods().await;
    let (a, b) = (world.bridge.pod("a"), world.bridge.pod("b"));
    let web = world.set("web", 10, "None", &[&a, &b]).await;
    if occurs {
        assert_eq!(all(20, || world.bridge.asked_by_pod("a", web)), ["a", "b"]);
    }
    assert_eq!(all(40, || asked_by_host(web)), ["a", "b"]);
    world.kernel.remove().await;
}

#[tokio::test]
async fn leftovers_are_removed() {
    let profile = format!("left{:x}", std::process::id());
    cleanup(&profile, &LocalTools).await.unwrap();
    nft::run(&LocalTools, &format!("add table ip coracle-{profile}\nadd chain ip coracle-{profile} prerouting\n"))
        .await
        .unwrap();
    cleanup(&profile, &LocalTools).await.unwrap();
    assert!(!nft::has(&LocalTools, &format!("coracle-{profile}"), "prerouting").await);
}
