//! Services and slices in, rules out.

use serde_json::json;

use super::*;
use crate::service::ports;
use crate::service::tests::{RANGE, service, slice};

/// A service map and what is installed of it.
#[derive(Default)]
struct World {
    service_map: ServiceMap,
    installed: KernelState,
    tracker: ChangeTracker,
}

impl World {
    fn set(&mut self, name: &str, node_port: Option<u16>, endpoints: &[&str]) -> &mut Self {
        self.set_with(name, json!({ "nodePort": node_port }), endpoints)
    }

    fn set_with(&mut self, name: &str, extra: serde_json::Value, endpoints: &[&str]) -> &mut Self {
        let spec = json!({
            "type": "NodePort",
            "clusterIP": extra.get("clusterIP").cloned().unwrap_or(json!("10.96.0.1")),
            "sessionAffinity": extra.get("affinity"),
            "externalIPs": extra.get("externalIPs"),
            "ports": [{ "port": 80, "nodePort": extra.get("nodePort") }],
        });
        let ports = ports(&service(name, spec), &[slice(name, ("", 8080), endpoints)], RANGE);
        self.service_map.set(&ObjectKey::new("default", name), ports, &mut self.tracker);
        self
    }

    fn delete(&mut self, name: &str) -> &mut Self {
        self.service_map.set(&ObjectKey::new("default", name), Vec::new(), &mut self.tracker);
        self
    }

    /// The transaction for what was done since the last one; it always goes through here.
    fn expect(&mut self, script: &str) {
        let changes = self.installed.changes(&self.service_map, &std::mem::take(&mut self.tracker));
        let got = transaction("t", &changes).replace("ip t ", "");
        assert_eq!(got, script, "\n--- got\n{got}");
        self.installed.apply(changes);
        // What was added bit by bit is what would be made at once.
        let mut anew = KernelState::default();
        anew.apply(anew.changes(&self.service_map, &self.service_map.all()));
        assert_eq!(self.installed, anew);
    }
}

#[test]
fn a_service_comes_changes_and_goes() {
    let mut world = World::default();
    world.set("web", Some(30080), &["10.0.0.1", "10.0.0.2"]).expect(
        "\
add chain svc/default/web/tcp/80
add rule svc/default/web/tcp/80 meta l4proto tcp dnat to numgen random mod 2 map { 0 : 10.0.0.1 . 8080, 1 : 10.0.0.2 . 8080 }
add element services { 10.96.0.1 . tcp . 80 : goto svc/default/web/tcp/80 }
add element node-ports { tcp . 30080 : goto svc/default/web/tcp/80 }
add element hairpin { 10.0.0.1 . 10.0.0.1 }
add element hairpin { 10.0.0.2 . 10.0.0.2 }
",
    );
    // Nothing changed: nothing to do.
    world.set("web", Some(30080), &["10.0.0.2", "10.0.0.1"]).expect("");
    // Endpoints change: the maps stay.
    world.set("web", Some(30080), &["10.0.0.2"]).expect(
        "\
flush chain svc/default/web/tcp/80
add rule svc/default/web/tcp/80 meta l4proto tcp dnat to 10.0.0.2:8080
delete element hairpin { 10.0.0.1 . 10.0.0.1 }
",
    );
    // Another node port: the chain stays.
    world.set("web", Some(30081), &["10.0.0.2"]).expect(
        "\
delete element node-ports { tcp . 30080 : goto svc/default/web/tcp/80 }
add element node-ports { tcp . 30081 : goto svc/default/web/tcp/80 }
",
    );
    // Without endpoints nothing is left to take its packets, so they are refused.
    let gone = "\
delete element services { 10.96.0.1 . tcp . 80 : goto svc/default/web/tcp/80 }
delete element node-ports { tcp . 30081 : goto svc/default/web/tcp/80 }
delete element hairpin { 10.0.0.2 . 10.0.0.2 }
flush chain svc/default/web/tcp/80
delete chain svc/default/web/tcp/80
";
    world.set("web", Some(30081), &[]).expect(gone);
    assert_eq!(world.service_map.node_port((Protocol::Tcp, 30081)).map(|port| port.port), Some(80));
    world.delete("web").expect("");
    assert_eq!(world.service_map.node_port((Protocol::Tcp, 30081)), None);
}

#[test]
fn many_changes_at_once_are_one_transaction_of_what_is_left_of_them() {
    let mut world = World::default();
    world.set("a", None, &["10.0.0.1"]).set("a", None, &[]).delete("a").expect("");
    world.set_with("b", json!({ "clusterIP": "10.96.0.2" }), &["10.0.0.1"]);
    world.set_with("c", json!({ "clusterIP": "10.96.0.3" }), &["10.0.0.1"]).expect(
        "\
add chain svc/default/b/tcp/80
add chain svc/default/c/tcp/80
add rule svc/default/b/tcp/80 meta l4proto tcp dnat to 10.0.0.1:8080
add rule svc/default/c/tcp/80 meta l4proto tcp dnat to 10.0.0.1:8080
add element services { 10.96.0.2 . tcp . 80 : goto svc/default/b/tcp/80 }
add element services { 10.96.0.3 . tcp . 80 : goto svc/default/c/tcp/80 }
add element hairpin { 10.0.0.1 . 10.0.0.1 }
",
    );
    // External addresses lead to the same chain, as long as it serves.
    world.set_with("c", json!({ "clusterIP": "10.96.0.3", "externalIPs": ["192.0.2.9"] }), &["10.0.0.1"]);
    world.expect("add element services { 192.0.2.9 . tcp . 80 : goto svc/default/c/tcp/80 }\n");
    world.set_with("c", json!({ "clusterIP": "10.96.0.3" }), &["10.0.0.1"]);
    world.expect("delete element services { 192.0.2.9 . tcp . 80 : goto svc/default/c/tcp/80 }\n");
    // The endpoint is still needed by the other.
    world.delete("b").expect(
        "\
delete element services { 10.96.0.2 . tcp . 80 : goto svc/default/b/tcp/80 }
flush chain svc/default/b/tcp/80
delete chain svc/default/b/tcp/80
",
    );
}

#[test]
fn a_service_that_takes_over_an_address() {
    let mut world = World::default();
    world.set("old", Some(30080), &["10.0.0.1"]);
    world.expect(
        "\
add chain svc/default/old/tcp/80
add rule svc/default/old/tcp/80 meta l4proto tcp dnat to 10.0.0.1:8080
add element services { 10.96.0.1 . tcp . 80 : goto svc/default/old/tcp/80 }
add element node-ports { tcp . 30080 : goto svc/default/old/tcp/80 }
add element hairpin { 10.0.0.1 . 10.0.0.1 }
",
    );
    // The news of the new one comes first.
    world.set("other", Some(30080), &["10.0.0.1"]).expect(
        "\
add chain svc/default/other/tcp/80
add rule svc/default/other/tcp/80 meta l4proto tcp dnat to 10.0.0.1:8080
",
    );
    world.delete("old").expect(
        "\
delete element services { 10.96.0.1 . tcp . 80 : goto svc/default/old/tcp/80 }
delete element node-ports { tcp . 30080 : goto svc/default/old/tcp/80 }
add element services { 10.96.0.1 . tcp . 80 : goto svc/default/other/tcp/80 }
add element node-ports { tcp . 30080 : goto svc/default/other/tcp/80 }
flush chain svc/default/old/tcp/80
delete chain svc/default/old/tcp/80
",
    );
}

#[test]
fn clients_stay_with_their_endpoint() {
    let mut world = World::default();
    let affinity = json!({ "affinity": "ClientIP" });
    world.set_with("web", affinity.clone(), &["10.0.0.1"]).expect(
        "\
add set clients/svc/default/web/tcp/80/10.0.0.1/8080 { type ipv4_addr; flags dynamic,timeout; timeout 10800s; }
add chain to/svc/default/web/tcp/80/10.0.0.1/8080
add chain svc/default/web/tcp/80
add rule to/svc/default/web/tcp/80/10.0.0.1/8080 update @clients/svc/default/web/tcp/80/10.0.0.1/8080 { ip saddr }
add rule to/svc/default/web/tcp/80/10.0.0.1/8080 meta l4proto tcp dnat to 10.0.0.1:8080
add rule svc/default/web/tcp/80 ip saddr @clients/svc/default/web/tcp/80/10.0.0.1/8080 goto to/svc/default/web/tcp/80/10.0.0.1/8080
add rule svc/default/web/tcp/80 numgen random mod 1 vmap { 0 : goto to/svc/default/web/tcp/80/10.0.0.1/8080 }
add element services { 10.96.0.1 . tcp . 80 : goto svc/default/web/tcp/80 }
add element hairpin { 10.0.0.1 . 10.0.0.1 }
",
    );
    // The old endpoint's set and chain do not change, so its clients are remembered.
    world.set_with("web", affinity, &["10.0.0.1", "10.0.0.2"]);
    let changes = world.installed.changes(&world.service_map, &world.tracker);
    let script = transaction("t", &changes);
    assert!(!script.contains("delete"), "{script}");
    assert!(!script.contains("flush chain ip t to/"), "{script}");
    assert!(script.contains("add set ip t clients/svc/default/web/tcp/80/10.0.0.2/8080"), "{script}");
}

#[test]
fn a_load_balancer_lets_some_in() {
    let mut world = World::default();
    let set = |world: &mut World, ranges: serde_json::Value| {
        let mut service = service(
            "web",
            json!({
                "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }],
                "loadBalancerSourceRanges": ranges,
            }),
        );
        service.status =
            serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "10.96.0.9" }] } })).unwrap();
        let ports = ports(&service, &[slice("web", ("", 8080), &["10.0.0.1"])], RANGE);
        world.service_map.set(&ObjectKey::new("default", "web"), ports, &mut world.tracker);
    };
    set(&mut world, json!(["192.0.2.0/24", "198.51.100.7/32"]));
    world.expect(
        "\
add chain svc/default/web/tcp/80
add chain guard/default/web/tcp/80
add rule svc/default/web/tcp/80 meta l4proto tcp dnat to 10.0.0.1:8080
add rule guard/default/web/tcp/80 ip saddr { 192.0.2.0/24, 198.51.100.7/32 } goto svc/default/web/tcp/80
add rule guard/default/web/tcp/80 drop
add element services { 10.96.0.1 . tcp . 80 : goto svc/default/web/tcp/80 }
add element services { 10.96.0.9 . tcp . 80 : goto guard/default/web/tcp/80 }
add element hairpin { 10.0.0.1 . 10.0.0.1 }
",
    );
    set(&mut world, json!(["fd00::/8"]));
    world.expect(
        "\
flush chain guard/default/web/tcp/80
add rule guard/default/web/tcp/80 drop
",
    );
    // Everybody: the address leads to the port itself, and then the guard goes.
    set(&mut world, json!([]));
    world.expect(
        "\
delete element services { 10.96.0.9 . tcp . 80 : goto guard/default/web/tcp/80 }
add element services { 10.96.0.9 . tcp . 80 : goto svc/default/web/tcp/80 }
flush chain guard/default/web/tcp/80
delete chain guard/default/web/tcp/80
",
    );
}
