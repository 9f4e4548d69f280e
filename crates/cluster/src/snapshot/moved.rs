//! Objects of a cluster that has another name, folder or subnet now: what in them says where they are.
//!
//! A node of the cluster is called after it, or named by whoever added it; only the former are renamed. What selects nodes by
//! name follows, in pods, templates and volumes alike.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use docker::Subnet;
use machinery::well_known::{HOSTNAME, NODE_LEASES, SELECTED_NODE, SERVICE_ACCOUNT_TOKEN};
use serde_json::Value;
use store::Key;

/// The field by which a DaemonSet's pods are bound to their nodes.
const NAME_FIELD: &str = "metadata.name";

/// Where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The profile, after which its nodes are called.
    pub(super) name: String,
    /// The folder, in which its volumes are.
    pub(super) folder: PathBuf,
    pub(super) pods: Subnet,
    pub(super) services: Subnet,
    /// Tells whether tokens in Secrets are still valid.
    pub(super) token_key: Option<String>,
}

/// From one place to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: Place,
    pub(super) to: Place,
}

impl Move {
    /// What a node is called now.
    pub(super) fn node(&self, name: &str) -> String {
        let rest = name.strip_prefix(&self.from.name);
        match rest {
            Some(rest) if rest.is_empty() || is_further(rest) => format!("{}{rest}", self.to.name),
            _ => name.to_owned(),
        }
    }

    /// The object in its new place; none where the cluster makes it anew.
    pub(super) fn object(&self, key: Key, value: Vec<u8>) -> Result<Option<(Key, Vec<u8>)>, String> {
        let renames = self.from.name != self.to.name;
        let subnets = self.from.services != self.to.services || self.from.pods != self.to.pods;
        let matters = match &*key.resource {
            "core/secrets" => self.from.token_key != self.to.token_key,
            "core/services" => subnets,
            "core/nodes" => renames || subnets,
            "core/persistentvolumes" => renames || self.from.folder != self.to.folder,
            _ => renames,
        };
        if !matters {
            return Ok(Some((key, value)));
        }
        if renames && &*key.resource == "coordination.k8s.io/leases" && &*key.namespace == NODE_LEASES {
            return Ok(None);
        }
        let mut object: Value = serde_json::from_slice(&value).map_err(|error| error.to_string())?;
        let before = object.clone();
        let key = self.change(key, &mut object);
        // Written as it was where nothing in it is meant.
        let value = if object == before { value } else { object.to_string().into_bytes() };
        Ok(Some((key, value)))
    }

    fn change(&self, key: Key, object: &mut Value) -> Key {
        self.selectors(object);
        match &*key.resource {
            "core/nodes" => {
                self.rename_at(object, &["metadata", "name"]);
                self.rename_at(object, &["metadata", "labels", HOSTNAME]);
                each_text(object.pointer_mut("/spec/podCIDR"), &|text| moved_subnet(self, text));
                each_text(object.pointer_mut("/spec/podCIDRs"), &|text| moved_subnet(self, text));
                let name = self.node(&key.name);
                return Key::new(key.resource, key.namespace, name);
            }
            "core/pods" => self.rename_at(object, &["spec", "nodeName"]),
            "core/persistentvolumeclaims" => self.rename_at(object, &["metadata", "annotations", SELECTED_NODE]),
            "core/persistentvolumes" => {
                for path in ["/spec/hostPath/path", "/spec/local/path"] {
                    each_text(object.pointer_mut(path), &|text| {
                        let below = Path::new(text).strip_prefix(&self.from.folder).ok()?;
                        Some(self.to.folder.join(below).display().to_string())
                    });
                }
            }
            "core/services" => {
                let address = |text: &str| moved(self.from.services, self.to.services, text.parse().ok()?);
                let address = |text: &str| address(text).map(|moved| moved.to_string());
                for path in ["/spec/clusterIP", "/spec/clusterIPs", "/spec/loadBalancerIP"] {
                    each_text(object.pointer_mut(path), &address);
                }
                let ingress = object.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
                for point in ingress.into_iter().flatten() {
                    each_text(point.get_mut("ip"), &address);
                }
            }
            // The controller of these Secrets fills in what is missing.
            "core/secrets" if object.pointer("/type").is_some_and(|kind| kind == SERVICE_ACCOUNT_TOKEN) => {
                if let Some(data) = object.pointer_mut("/data").and_then(Value::as_object_mut) {
                    data.remove("token");
                    data.remove("ca.crt");
                }
            }
            _ => {}
        }
        key
    }

    /// Renames what a field holds.
    fn rename_at(&self, object: &mut Value, path: &[&str]) {
        let found = path.iter().try_fold(object, |value, part| value.get_mut(part));
        each_text(found, &|text| Some(self.node(text)));
    }

    /// Renames the nodes that are selected by name, however deep below.
    fn selectors(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let names_nodes =
                    fields.get("key").and_then(Value::as_str).is_some_and(|key| [HOSTNAME, NAME_FIELD].contains(&key));
                if names_nodes {
                    each_text(fields.get_mut("values"), &|text| Some(self.node(text)));
                }
                if let Some(selector) = fields.get_mut("nodeSelector") {
                    self.rename_at(selector, &[HOSTNAME]);
                }
                fields.values_mut().for_each(|value| self.selectors(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.selectors(item)),
            _ => {}
        }
    }
}

/// What follows the cluster's name in those of its further nodes: `-m02`.
fn is_further(rest: &str) -> bool {
    let digits = rest.strip_prefix("-m").unwrap_or_default();
    digits.len() >= 2 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Changes a text, or each text of a list, to what `change` says.
fn each_text(value: Option<&mut Value>, change: &dyn Fn(&str) -> Option<String>) {
    match value {
        Some(Value::String(text)) => {
            if let Some(changed) = change(text) {
                *text = changed;
            }
        }
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| each_text(Some(item), change)),
        _ => {}
    }
}

/// The address that lies as far behind the first one of another subnet.
fn moved(from: Subnet, to: Subnet, address: Ipv4Addr) -> Option<Ipv4Addr> {
    from.contains(address).then(|| to.nth(address.to_bits() - from.address().to_bits()))
}

/// A node's part of the pods' subnet, of the other one.
fn moved_subnet(moving: &Move, text: &str) -> Option<String> {
    let part: Subnet = text.parse().ok()?;
    let address = moved(moving.from.pods, moving.to.pods, part.address())?;
    Some(Subnet::new(address, part.prefix()).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(name: &str, second: u8) -> Place {
        Place {
            name: name.to_owned(),
            folder: PathBuf::from(format!("/home/{name}")),
            pods: Subnet::new(Ipv4Addr::new(10, 244 + second, 0, 0), 16),
            services: Subnet::new(Ipv4Addr::new(10, 96 + second, 0, 0), 16),
            token_key: Some(name.to_owned()),
        }
    }

    fn check(moving: &Move, resource: &str, name: &str, object: Value, expected: (&str, Value)) {
        let key = Key::new(resource, "default", name);
        let (key, value) = moving.object(key, object.to_string().into_bytes()).unwrap().unwrap();
        let value: Value = serde_json::from_slice(&value).unwrap();
        assert_eq!((&*key.name, value), expected, "{resource}");
    }

    #[test]
    fn nodes_called_after_the_cluster_are_renamed() {
        let moving = Move { from: place("dev", 0), to: place("test", 1) };
        for (name, expected) in [
            ("dev", "test"),
            ("dev-m02", "test-m02"),
            ("dev-m117", "test-m117"),
            ("dev-m2", "dev-m2"),
            ("dev-mobile", "dev-mobile"),
            ("development", "development"),
            ("fake-1", "fake-1"),
        ] {
            assert_eq!(moving.node(name), expected);
        }
    }

    #[test]
    fn what_says_where_things_are_follows() {
        let moving = Move { from: place("dev", 0), to: place("test", 1) };
        let node = |name: &str, cidr: &str| json!({ "metadata": { "name": name, "labels": { HOSTNAME: name, "app": "dev" } }, "spec": { "podCIDR": cidr, "podCIDRs": [cidr] } });
        check(
            &moving,
            "core/nodes",
            "dev-m02",
            node("dev-m02", "10.244.3.0/24"),
            ("test-m02", node("test-m02", "10.245.3.0/24")),
        );
        let pod = |node: &str| {
            let term = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] });
            let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } });
            json!({ "metadata": { "name": "dev" }, "spec": { "nodeName": node, "affinity": affinity, "nodeSelector": { HOSTNAME: node, "name": "dev" } } })
        };
        check(&moving, "core/pods", "dev", pod("dev"), ("dev", pod("test")));
        let template =
            |node: &str| json!({ "spec": { "template": { "spec": { "nodeSelector": { HOSTNAME: node } } } } });
        check(&moving, "apps/deployments", "a", template("dev-m02"), ("a", template("test-m02")));
        let volume = |node: &str, path: &str| {
            let term =
                json!({ "matchExpressions": [{ "key": HOSTNAME, "operator": "In", "values": [node, "other"] }] });
            json!({ "spec": { "hostPath": { "path": path }, "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } } } })
        };
        let (old, new) = (volume("dev", "/home/dev/volumes/a"), volume("test", "/home/test/volumes/a"));
        check(&moving, "core/persistentvolumes", "a", old, ("a", new));
        let (old, new) = (volume("dev", "/home/develop/a"), volume("test", "/home/develop/a"));
        check(&moving, "core/persistentvolumes", "a", old, ("a", new));
        let claim = |node: &str| json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
        check(&moving, "core/persistentvolumeclaims", "a", claim("dev"), ("a", claim("test")));
        let service = |second: u8| {
            let at = |last: u8| format!("10.{second}.1.{last}");
            json!({
                "spec": { "clusterIP": at(7), "clusterIPs": [at(7)], "externalIPs": ["192.0.2.1"] },
                "status": { "loadBalancer": { "ingress": [{ "ip": at(9) }, { "hostname": "a" }] } },
            })
        };
        check(&moving, "core/services", "a", service(96), ("a", service(97)));
        let headless = json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } });
        check(&moving, "core/services", "a", headless.clone(), ("a", headless));
        let token = json!({ "type": SERVICE_ACCOUNT_TOKEN, "data": { "token": "a", "ca.crt": "b", "namespace": "c" } });
        check(
            &moving,
            "core/secrets",
            "a",
            token,
            ("a", json!({ "type": SERVICE_ACCOUNT_TOKEN, "data": { "namespace": "c" } })),
        );
        let opaque = json!({ "type": "Opaque", "data": { "token": "a" } });
        check(&moving, "core/secrets", "a", opaque.clone(), ("a", opaque));
        let lease = Key::new("coordination.k8s.io/leases", NODE_LEASES, "dev");
        assert_eq!(moving.object(lease, b"{}".to_vec()), Ok(None));
        assert!(moving.object(Key::new("core/pods", "default", "a"), b"{".to_vec()).is_err());
    }

    #[test]
    fn in_its_own_place_nothing_is_even_read() {
        let moving = Move { from: place("dev", 0), to: place("dev", 0) };
        for resource in ["core/nodes", "core/pods", "core/services", "core/secrets", "core/persistentvolumes"] {
            let key = Key::new(resource, "default", "dev");
            let value = b"no JSON".to_vec();
            assert_eq!(moving.object(key.clone(), value.clone()), Ok(Some((key, value))), "{resource}");
        }
    }
}
