//! Policies in a real kernel, between network namespaces that are pods on a bridge: with the table of services before them.
//! Needs root, nftables, iproute2 and the kernel module `br_netfilter`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::compile::{Model, compile};
use super::enforcer::Enforcer;
use super::table::PolicyTable;
use crate::table::Table;
use crate::tools::{NetworkTools, ToolOutput};
use crate::{Config, nft};

/// How long a packet that is let through may take, and how long one that is not is waited for.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Runs programs in the network namespace that is the node.
#[derive(Debug)]
struct Inside(String);

#[async_trait::async_trait]
impl NetworkTools for Inside {
    async fn run(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<ToolOutput> {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0, program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(ToolOutput { success: output.status.success(), stderr })
    }
}

/// A node with a bridge, pods on it, and a host outside; gone with the value.
struct Network {
    id: String,
    tools: Arc<Inside>,
}

const PODS: [u8; 3] = [2, 3, 4];
const OUTSIDE: &str = "out";
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);

fn pod(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, n)
}

fn sh(script: &str) {
    let output = std::process::Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Network {
    fn new() -> Self {
        let id = format!("pol{:x}", std::process::id());
        let network = Self { tools: Arc::new(Inside(format!("{id}-node"))), id };
        let node = network.name("node");
        sh(&format!(
            "ip netns add {node}; ip -n {node} link set lo up; ip -n {node} link add br9 type bridge
             ip -n {node} addr add 10.9.0.1/24 dev br9; ip -n {node} link set br9 up
             ip netns exec {node} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
             modprobe br_netfilter || true
             ip -n {node} link set dev br9 type bridge nf_call_iptables 1
             ip -n {node} route add 10.96.0.0/16 dev br9 src 10.9.0.1"
        ));
        for n in PODS {
            let pod = network.name(&n.to_string());
            sh(&format!(
                "ip netns add {pod}; ip -n {node} link add v{n} type veth peer name eth0 netns {pod}
                 ip -n {node} link set v{n} master br9 up
                 ip -n {node} link set dev v{n} type bridge_slave hairpin on
                 ip -n {pod} link set lo up; ip -n {pod} addr add 10.9.0.{n}/24 dev eth0
                 ip -n {pod} link set eth0 up; ip -n {pod} route add default via 10.9.0.1"
            ));
        }
        let outside = network.name(OUTSIDE);
        sh(&format!(
            "ip netns add {outside}; ip -n {node} link add uplink type veth peer name eth0 netns {outside}
             ip -n {node} addr add 192.0.2.1/24 dev uplink; ip -n {node} link set uplink up
             ip -n {outside} addr add 192.0.2.7/24 dev eth0; ip -n {outside} link set eth0 up
             ip -n {outside} addr add 192.0.2.200/24 dev eth0; ip -n {outside} route add default via 192.0.2.1"
        ));
        network
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.id)
    }

    /// Does something in a namespace. Sockets made there stay there.
    fn within<T: Send>(&self, what: &str, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name(what))).unwrap();
        let act = || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    /// Has somebody answer what comes, by both protocols.
    fn serve(&self, what: &str, ports: &[u16]) {
        for port in ports.iter().copied() {
            let all = (Ipv4Addr::UNSPECIFIED, port);
            let (tcp, udp) = self.within(what, || (TcpListener::bind(all).unwrap(), UdpSocket::bind(all).unwrap()));
            // They end with the test.
            thread::spawn(move || {
                for stream in tcp.incoming() {
                    let mut stream = stream.unwrap();
                    thread::spawn(move || {
                        let mut byte = [0];
                        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                    });
                }
            });
            thread::spawn(move || {
                let mut byte = [0];
                while let Ok((_, from)) = udp.recv_from(&mut byte) {
                    let _ = udp.send_to(&byte, from);
                }
            });
        }
    }

    /// A connection, if it is let through.
    fn connect(&self, from: &str, to: Ipv4Addr, port: u16) -> Option<TcpStream> {
        let address = SocketAddr::new(to.into(), port);
        let mut stream = self.within(from, || TcpStream::connect_timeout(&address, TIMEOUT)).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        answers(&mut stream).then_some(stream)
    }

    fn datagram(&self, from: &str, to: Ipv4Addr, port: u16) -> bool {
        let socket = self.within(from, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.send_to(b"?", (to, port)).is_ok() && socket.recv_from(&mut [0]).is_ok()
    }

    /// Lines `FROM > TO PORT`, as for the tables of the compiler; with `/UDP` by datagrams.
    fn check(&self, when: &str, lines: &[&str]) {
        for line in lines {
            let (expected, rest) = line.strip_prefix('!').map_or((true, *line), |rest| (false, rest));
            let [from, ">", to, port] = rest.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
            let to = match to {
                OUTSIDE => Ipv4Addr::new(192, 0, 2, 7),
                "far" => Ipv4Addr::new(192, 0, 2, 200),
                "service" => SERVICE,
                n => pod(n.parse().unwrap()),
            };
            let (number, protocol) = port.split_once('/').unwrap_or((port, "TCP"));
            let number = number.parse().unwrap();
            let passes = match protocol {
                "UDP" => self.datagram(from, to, number),
                _ => self.connect(from, to, number).is_some(),
            };
            assert_eq!(passes, expected, "{when}: {line}");
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for what in ["node", "2", "3", "4", OUTSIDE] {
            let arguments = ["netns", "del", &self.name(what)];
            // What was not made cannot be removed.
            let _ = std::process::Command::new("ip").args(arguments).output();
        }
    }
}

fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// What policies make of the pods, each labelled with its number.
fn model(specs: &[Value]) -> Model {
    let pods: Vec<Pod> = PODS
        .iter()
        .map(|n| {
            let metadata = json!({ "name": n.to_string(), "namespace": "a", "labels": { "n": n.to_string() } });
            let spec = json!({ "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] }] });
            let status = json!({ "phase": "Running", "podIPs": [{ "ip": pod(*n) }] });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
        })
        .collect();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
    let policies: Vec<NetworkPolicy> = specs
        .iter()
        .map(|spec| serde_json::from_value(json!({ "metadata": { "namespace": "a" }, "spec": spec })).unwrap())
        .collect();
    compile(&policies, [&namespace], &pods)
}

fn selects(n: u8) -> Value {
    json!({ "matchLabels": { "n": n.to_string() } })
}

#[tokio::test]
async fn policies_in_the_kernel() {
    let network = Network::new();
    for n in ["2", "3", "4", OUTSIDE] {
        network.serve(n, &[8080, 9000]);
    }
    // The table of services as the proxy makes it, with one that leads to 2.
    let config = Config::new("pol", "br9", "10.9.0.0/24", "10.96.0.0/16");
    let services = Table::new(&config).unwrap();
    let tools: Arc<dyn NetworkTools> = Arc::clone(&network.tools) as _;
    let service = format!(
        "add rule ip coracle-pol translate ip daddr {SERVICE} tcp dport 80 dnat to 10.9.0.2:8080
         add rule ip coracle-pol translate ip daddr {SERVICE} tcp dport 90 dnat to 10.9.0.2:9000
         add element ip coracle-pol hairpin {{ 10.9.0.2 . 10.9.0.2 }}\n"
    );
    nft::run(&*tools, &(services.base() + &service)).await.unwrap();
    let table = PolicyTable::new(&config).unwrap();
    let mut enforcer = Enforcer::new(table.clone(), Arc::clone(&tools));
    let everything =
        ["3 > 2 9000", "4 > 2 9000/UDP", "2 > out 9000", "out > 2 8080", "3 > service 90", "2 > service 80"];
    network.check("without policies", &everything);
    assert!(!enforcer.apply(Model::default()).await.unwrap(), "there is nothing to do, and no table");
    assert!(!nft::has(&*tools, &table.name, "forward").await);

    // For ingress, with connections that were there before.
    let mut kept = network.connect("3", pod(2), 8080).unwrap();
    let mut cut = network.connect("3", pod(2), 9000).unwrap();
    let range = |protocol: &str, last: u16| json!({ "port": 8000, "endPort": last, "protocol": protocol });
    let block = json!({ "cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"] });
    let ingress = json!({ "podSelector": selects(2), "ingress": [
        { "from": [{ "podSelector": selects(3) }], "ports": [{ "port": "web" }, range("UDP", 8100)] },
        { "from": [{ "ipBlock": block }] },
    ] });
    assert!(enforcer.apply(model(std::slice::from_ref(&ingress))).await.unwrap());
    let in_force = ["3 > 2 8080", "!3 > 2 9000", "3 > 2 8080/UDP", "!3 > 2 9000/UDP", "!4 > 2 8080"];
    network.check("ingress", &in_force);
    network.check("from outside and to there", &["out > 2 9000", "2 > out 9000", "2 > 4 9000", "2 > 3 8080/UDP"]);
    network.check("services are judged by their pods", &["3 > service 80", "!3 > service 90", "!4 > service 80"]);
    network.check("a pod reaches itself", &["2 > 2 9000", "2 > service 80", "2 > service 90"]);
    network.check("the node reaches its pods", &["node > 2 9000", "node > 2 9000/UDP", "node > service 90"]);
    assert!(answers(&mut kept), "what is allowed goes on");
    assert!(!answers(&mut cut), "what is forbidden ends");
    assert!(!enforcer.apply(model(std::slice::from_ref(&ingress))).await.unwrap(), "it is in force");

    // Somebody removes the table.
    nft::run(&*tools, &crate::table::removal(&table.name)).await.unwrap();
    enforcer.check().await;
    assert!(enforcer.apply(model(&[ingress])).await.unwrap());
    network.check("made anew", &in_force);

    // For egress; what was cut is let through again.
    let egress = json!({ "podSelector": selects(4), "policyTypes": ["Egress"], "egress": [
        { "to": [{ "podSelector": selects(2) }], "ports": [{ "port": 8080 }] },
        { "to": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.0.2.128/25"] } }] },
    ] });
    assert!(enforcer.apply(model(std::slice::from_ref(&egress))).await.unwrap());
    network.check("egress", &["4 > 2 8080", "!4 > 2 9000", "!4 > 2 8080/UDP", "!4 > 3 8080", "3 > 4 9000"]);
    network.check("egress to services", &["4 > service 80", "!4 > service 90", "4 > 4 9000"]);
    network.check("egress to the outside", &["4 > out 9000", "4 > out 9000/UDP", "!4 > far 9000", "3 > far 9000"]);
    network.check("no longer isolated", &["3 > 2 9000", "3 > 2 9000/UDP"]);

    // All ways at once: pairs that overlap are no fault for the kernel.
    let both = json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{ "ports": [{ "port": 8080 }] }, { "from": [{ "podSelector": selects(3) }], "ports": [range("TCP", 9999)] }],
        "egress": [{}] });
    assert!(enforcer.apply(model(&[both, egress])).await.unwrap());
    network.check("policies add up", &["4 > 3 8080", "!4 > 2 9000", "3 > 2 9000", "!3 > 2 9000/UDP", "out > 3 8080"]);

    // Nothing is left.
    assert!(enforcer.apply(Model::default()).await.unwrap());
    network.check("without policies again", &everything);
    assert!(!nft::has(&*tools, &table.name, "forward").await);
    let leftover = Enforcer::new(table.clone(), Arc::clone(&tools));
    nft::run(&*tools, &table.transaction(&model(&[json!({})]))).await.unwrap();
    leftover.remove().await.unwrap();
    assert!(!nft::has(&*tools, &table.name, "forward").await);
}
