//! What pods of fake nodes use: what they say, for nothing of them runs.
//!
//! The annotations are those of KWOK's simulation of usage (`kustomize/metrics/usage`), and so is what counts where there is none:
//! a thousandth of a core and a MiB, for each container.

use std::collections::{HashMap, HashSet};

use informer::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use machinery::quantity::Quantity;

use crate::usage::{Reading, Readings};

const CPU: &str = "kwok.x-k8s.io/usage-cpu";
const MEMORY: &str = "kwok.x-k8s.io/usage-memory";
const CORES: f64 = 0.001;
const BYTES: f64 = 1_048_576.0;

/// Adds the nodes of these names, and what of the pods is on them.
pub(crate) fn add<'a>(readings: &mut Readings, nodes: &HashSet<String>, pods: impl Iterator<Item = &'a Pod>, now: i64) {
    let told = |cores: f64, memory: f64| Reading { time: now, memory, cores: Some(cores), ..Reading::default() };
    readings.nodes.extend(nodes.iter().map(|name| (name.clone(), told(0.0, 0.0))));
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).filter(|name| nodes.contains(*name));
        let Some(node) = node.and_then(|name| readings.nodes.get_mut(name)) else { continue };
        let said = |name: &str| {
            let text = pod.metadata.annotations.as_ref()?.get(name)?;
            text.parse::<Quantity>().ok().map(|quantity| quantity.as_f64()).filter(|amount| *amount >= 0.0)
        };
        let (cores, memory) = (said(CPU).unwrap_or(CORES), said(MEMORY).unwrap_or(BYTES));
        let containers =
            pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
        let running = containers.filter(|one| one.state.as_ref().is_some_and(|state| state.running.is_some()));
        let running: HashMap<String, Reading> =
            running.map(|container| (container.name.clone(), told(cores, memory))).collect();
        #[expect(clippy::cast_precision_loss, reason = "a number of containers")]
        let count = running.len() as f64;
        node.cores = node.cores.map(|sum| sum + cores * count);
        node.memory += memory * count;
        readings.pods.insert(ObjectKey::of(pod), running);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::usage::between;

    fn pod(name: &str, node: &str, annotations: &Value, states: &[&str]) -> Pod {
        let containers: Vec<Value> = (0..states.len())
            .map(|number| json!({ "name": format!("c{number}"), "state": { states[number]: {} }, "image": "", "imageID": "", "ready": true, "restartCount": 0 }))
            .collect();
        from_value(json!({
            "metadata": { "name": name, "namespace": "n", "annotations": annotations },
            "spec": { "nodeName": node, "containers": [] }, "status": { "containerStatuses": containers },
        }))
        .expect("a pod")
    }

    #[test]
    fn pods_use_what_they_say_and_nodes_the_sum() {
        let said = json!({ CPU: "250m", MEMORY: "64Mi" });
        let pods = [
            pod("a", "fake", &said, &["running", "running", "waiting"]),
            pod("b", "fake", &json!({ CPU: "nonsense" }), &["running"]),
            pod("c", "real", &said, &["running"]),
        ];
        let mut readings = Readings::default();
        add(&mut readings, &HashSet::from(["fake".to_owned(), "idle".to_owned()]), pods.iter(), 1000);
        let usage =
            |reading: &Reading| between(None, reading).map(|usage| (usage.cores, usage.bytes)).expect("it is told");
        let of = |name: &str, container: &str| readings.pods[&ObjectKey::new("n", name)].get(container).map(usage);
        assert_eq!(of("a", "c0"), Some((0.25, 67_108_864.0)));
        assert_eq!(of("a", "c2"), None, "it does not run");
        assert_eq!(of("b", "c0"), Some((CORES, BYTES)));
        assert!(!readings.pods.contains_key(&ObjectKey::new("n", "c")));
        assert_eq!(usage(&readings.nodes["fake"]), (0.5 + CORES, 2.0 * 67_108_864.0 + BYTES));
        assert_eq!(usage(&readings.nodes["idle"]), (0.0, 0.0));
    }
}
