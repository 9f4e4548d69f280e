//! Tables for the plans of both forms of endpoints: objects in, actions out.

use serde_json::{Value, from_value, json};

use super::slices::plan;
use super::*;

fn service(spec: Value) -> Service {
    let mut object = json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "svc", "labels": { "team": "a" }, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "clusterIP": "10.0.0.1", "selector": { "app": "web" }, "ipFamilies": ["IPv4"],
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    from_value(object).expect("service")
}

fn pod_with(number: usize, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"), "labels": { "app": "web" } },
        "spec": {
            "nodeName": "n1",
            "containers": [{ "name": "c", "ports": [{ "name": "web", "containerPort": 9000 + number }] }],
        },
        "status": {
            "phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250),
            "podIPs": [{ "ip": format!("10.1.{}.{}", number / 250, number % 250) }, { "ip": format!("fd00::{number:x}") }],
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:05:00Z" }],
        },
    });
    change(&mut pod);
    Arc::new(from_value(pod).expect("pod"))
}

fn pod(number: usize) -> Arc<Pod> {
    pod_with(number, |_| {})
}

fn unready(pod: &mut Value) {
    pod["status"]["conditions"][0]["status"] = json!("False");
}

fn deleting(pod: &mut Value) {
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:06:00Z");
}

/// What the slices are after a plan was carried out; new ones are called by their number.
fn carry_out(mut slices: Vec<Arc<EndpointSlice>>, actions: Vec<SliceWrite>) -> Vec<Arc<EndpointSlice>> {
    for action in actions {
        match action {
            SliceWrite::Create(mut slice) => {
                slice.metadata.name = Some(format!("web-{}", slices.len()));
                slices.push(Arc::new(*slice));
            }
            SliceWrite::Replace(slice) => {
                slices.retain(|old| meta::name(&**old) != meta::name(&*slice));
                slices.push(Arc::new(*slice));
            }
            SliceWrite::Delete(slice) => slices.retain(|old| !Arc::ptr_eq(old, &slice)),
        }
    }
    slices
}

fn sync(service: &Service, pods: &[Arc<Pod>], slices: Vec<Arc<EndpointSlice>>) -> Vec<Arc<EndpointSlice>> {
    let zones = BTreeMap::from([("n1".to_owned(), "z1".to_owned())]);
    let snapshot =
        |slices: &[Arc<EndpointSlice>]| Snapshot { pods: pods.to_vec(), zones: zones.clone(), slices: slices.to_vec() };
    let actions = plan(&snapshot(&slices), service);
    let after = carry_out(slices, actions);
    assert_eq!(plan(&snapshot(&after), service), [], "a second look finds nothing to do");
    after
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    let mut sizes: Vec<usize> = slices.iter().map(|slice| slice.endpoints.iter().flatten().count()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn a_slice_says_where_and_in_what_state_the_pods_are() {
    let service = service(json!({}));
    let named = pod_with(1, |pod| {
        pod["spec"]["hostname"] = json!("h");
        pod["spec"]["subdomain"] = json!("web");
    });
    let pods = [
        named,
        pod_with(2, unready),
        pod_with(3, deleting),
        pod_with(4, |pod| pod["status"]["phase"] = json!("Succeeded")),
        pod_with(5, |pod| pod["status"] = json!({ "phase": "Pending" })),
    ];
    let slices = sync(&service, &pods, vec![]);
    let slice = serde_json::to_value(&*slices[0]).expect("slice");
    let endpoint = |number: usize, conditions: [bool; 3], hostname: Option<&str>| {
        let mut endpoint = json!({
            "addresses": [format!("10.1.0.{number}")],
            "conditions": { "ready": conditions[0], "serving": conditions[1], "terminating": conditions[2] },
            "nodeName": "n1", "zone": "z1",
            "targetRef": { "kind": "Pod", "namespace": "ns", "name": format!("p{number}"), "uid": format!("u{number}") },
        });
        if let Some(hostname) = hostname {
            endpoint["hostname"] = json!(hostname);
        }
        endpoint
    };
    let expect = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-0", "namespace": "ns", "generateName": "web-",
            "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
            "labels": {
                "team": "a", "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [
            endpoint(1, [true, true, false], Some("h")),
            endpoint(2, [false, false, false], None),
            endpoint(3, [false, true, true], None),
        ],
    });
    assert_eq!(slice, expect);
}

#[test]
fn endpoints_are_packed_by_the_hundred_and_stay_where_they_are() {
    let service = service(json!({}));
    let mut pods: Vec<_> = (0..250).map(pod).collect();
    let slices = sync(&service, &pods, vec![]);
    assert_eq!(sizes(&slices), [50, 100, 100]);

    pods[7] = pod_with(7, unready);
    let snapshot = Snapshot {
        pods: pods.clone(),
        zones: BTreeMap::from([("n1".to_owned(), "z1".to_owned())]),
        slices: slices.clone(),
    };
    let actions = plan(&snapshot, &service);
    assert_eq!(actions.len(), 1, "one changed endpoint is one changed slice");
    let SliceWrite::Replace(slice) = &actions[0] else { panic!("{actions:?}") };
    let annotations = slice.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(annotations[address::TRIGGER_TIME], "2026-01-01T00:05:00Z");

    let slices = sync(&service, &pods, slices);
    pods.extend((250..260).map(pod));
    let slices = sync(&service, &pods, slices);
    assert_eq!(sizes(&slices), [60, 100, 100]);
    let slices = sync(&service, &pods[..5], slices);
    assert_eq!(sizes(&slices), [2, 3], "what is left stays where it is");
    let slices = sync(&service, &[], slices);
    assert_eq!(sizes(&slices), [0], "one empty slice says that there are none");
    assert_eq!(slices[0].ports, Some(vec![]));
    let slices = sync(&service, &pods[..1], slices);
    assert_eq!((sizes(&slices), slices.len()), (vec![1], 1), "the empty slice became a full one");
}

#[test]
fn slices_follow_ports_labels_and_families() {
    let pods = [pod(1), pod(2)];
    let ports = |slices: &[Arc<EndpointSlice>]| {
        let mut ports: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice.ports.clone().unwrap_or_default())
            .filter_map(|port| port.port)
            .collect();
        ports.sort_unstable();
        ports
    };
    let slices = sync(&service(json!({})), &pods, vec![]);
    assert_eq!(ports(&slices), [8080]);
    let named = service(json!({ "ports": [{ "port": 80, "targetPort": "web" }] }));
    let slices = sync(&named, &pods, slices);
    assert_eq!(ports(&slices), [9001, 9002], "a named port may have another number in each Pod");
    let unnamed = service(json!({ "ports": [{ "port": 80 }] }));
    assert_eq!(ports(&sync(&unnamed, &pods, slices.clone())), [80]);
    let unknown = service(json!({ "ports": [{ "port": 80, "targetPort": "none" }] }));
    assert_eq!(ports(&sync(&unknown, &pods, slices.clone())), Vec::<i32>::new());

    let headless = service(json!({ "clusterIP": "None", "ports": [] }));
    let slices = sync(&headless, &pods, slices);
    assert_eq!(sizes(&slices), [2], "a headless Service needs no ports");
    let labels = slices[0].metadata.labels.clone().unwrap_or_default();
    assert!(labels.contains_key(address::HEADLESS_LABEL));

    let dual = service(json!({ "ipFamilies": ["IPv4", "IPv6"] }));
    let slices = sync(&dual, &pods, slices);
    let mut families: Vec<_> = slices.iter().map(|slice| slice.address_type.clone()).collect();
    families.sort_unstable();
    assert_eq!(families, ["IPv4", "IPv6"]);
    assert_eq!(sync(&service(json!({})), &pods, slices).len(), 1);
}

#[test]
fn unready_pods_are_published_where_asked() {
    let service = service(json!({ "publishNotReadyAddresses": true }));
    let slices = sync(&service, &[pod_with(1, unready)], vec![]);
    let endpoint = &slices[0].endpoints.clone().unwrap_or_default()[0];
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    assert_eq!((conditions.ready, conditions.serving), (Some(true), Some(false)));
    let endpoints = legacy::plan(&[pod_with(1, unready)], &service, None).expect("endpoints");
    assert!(endpoints.subsets.unwrap_or_default()[0].addresses.is_some());
}

#[test]
fn only_services_with_a_selector_are_managed() {
    for (spec, expect) in [
        (json!({}), true),
        (json!({ "selector": {} }), false),
        (json!({ "selector": null }), false),
        (json!({ "type": "ExternalName" }), false),
    ] {
        assert_eq!(address::is_managed(&service(spec.clone())), expect, "{spec}");
    }
}

/// The subsets in words: `ready|unready:ports`.
fn words(endpoints: &Endpoints) -> Vec<String> {
    let ips = |addresses: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        let ips: Vec<_> = addresses.iter().flatten().map(|address| address.ip.trim_start_matches("10.1.0.")).collect();
        ips.join(",")
    };
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .map(|subset| {
            let ports: Vec<_> = subset.ports.iter().flatten().map(|port| port.port.to_string()).collect();
            format!("{}|{}:{}", ips(&subset.addresses), ips(&subset.not_ready_addresses), ports.join(","))
        })
        .collect()
}

#[test]
fn endpoints_are_repacked_as_upstream_does() {
    let two_ports = json!({ "ports": [{ "name": "a", "port": 80, "targetPort": 8080 }, { "name": "b", "port": 81, "targetPort": 8081 }] });
    let mixed = json!({ "ports": [{ "name": "a", "port": 80, "targetPort": 8080 }, { "name": "b", "port": 81, "targetPort": "web" }] });
    let table = [
        (json!({}), vec![], vec![]),
        (json!({}), vec![pod(1), pod(2)], vec!["1,2|:8080"]),
        (json!({}), vec![pod(1), pod_with(2, unready)], vec!["1|2:8080"]),
        (json!({}), vec![pod(1), pod_with(2, deleting)], vec!["1|:8080"]),
        (two_ports, vec![pod(1), pod(2)], vec!["1,2|:8080,8081"]),
        (mixed, vec![pod(1), pod(2)], vec!["1|:9001", "1,2|:8080", "2|:9002"]),
        (json!({ "clusterIP": "None", "ports": [] }), vec![pod(1)], vec!["1|:"]),
    ];
    for (spec, pods, expect) in table {
        let service = service(spec);
        let endpoints = legacy::plan(&pods, &service, None).expect("endpoints");
        assert_eq!(words(&endpoints), expect);
        assert_eq!(legacy::plan(&pods, &service, Some(&endpoints)), None, "a second look finds nothing to do");
        assert!(legacy::is_managed(&endpoints));
    }
}

#[test]
fn too_many_addresses_are_cut_and_it_is_said() {
    let pods: Vec<_> =
        (0..1_010).map(|number| if number < 20 { pod_with(number, unready) } else { pod(number) }).collect();
    let endpoints = legacy::plan(&pods, &service(json!({})), None).expect("endpoints");
    let subset = &endpoints.subsets.clone().unwrap_or_default()[0];
    let count = |addresses: &Option<Vec<_>>| addresses.as_ref().map_or(0, Vec::len);
    assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (990, 10));
    assert_eq!(meta::annotation(&endpoints, "endpoints.kubernetes.io/over-capacity"), Some("truncated"));
}

fn by_hand(change: Value) -> Endpoints {
    let endpoints = json!({
        "metadata": {
            "name": "db", "namespace": "ns", "uid": "ep", "labels": { "team": "a" },
            "annotations": { "note": "x", "kubectl.kubernetes.io/last-applied-configuration": "{}" },
        },
        "subsets": [{
            "addresses": [{ "ip": "192.0.2.1", "hostname": "one" }, { "ip": "fd00::1" }],
            "notReadyAddresses": [{ "ip": "192.0.2.2" }],
            "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }],
        }],
    });
    from_value(machinery::patch::merge_patch(&endpoints, &change).expect("objects")).expect("endpoints")
}

#[test]
fn what_is_kept_by_hand_is_mirrored() {
    let service = service(json!({ "selector": null }));
    let mirror = |endpoints: &Endpoints, slices: Vec<Arc<EndpointSlice>>| {
        let after = carry_out(slices.clone(), mirror::plan(Some(endpoints), Some(&service), &slices));
        assert_eq!(mirror::plan(Some(endpoints), Some(&service), &after), [], "a second look finds nothing to do");
        after
    };
    let slices = mirror(&by_hand(json!({})), vec![]);
    let words = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter().flatten().map(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            format!("{} {ready:?} {:?}", endpoint.addresses.join(","), endpoint.hostname)
        });
        endpoints.collect::<Vec<_>>()
    };
    assert_eq!(slices.iter().map(|slice| slice.address_type.as_str()).collect::<Vec<_>>(), ["IPv4", "IPv6"]);
    assert_eq!(words(&slices[0]), ["192.0.2.1 Some(true) Some(\"one\")", "192.0.2.2 Some(false) None"]);
    let slice = serde_json::to_value(&*slices[0]).expect("slice");
    assert_eq!(slice["ports"], json!([{ "name": "sql", "port": 5432, "protocol": "TCP" }]));
    assert_eq!(slice["metadata"]["annotations"], json!({ "note": "x" }));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({
            "team": "a", "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        })
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");

    // What changes there changes here, in the same slice; a family without addresses has none.
    let changed = by_hand(json!({
        "metadata": { "annotations": { "note": null } },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.3" }], "ports": [{ "port": 5432, "protocol": "TCP" }] }],
    }));
    let after = mirror(&changed, slices.clone());
    assert_eq!(after.len(), 1);
    assert_eq!((meta::name(&*after[0]), words(&after[0])), ("web-0", vec!["192.0.2.3 Some(true) None".to_owned()]));
    assert_eq!(after[0].metadata.annotations, None);

    // Whose slices are kept by others, or are not wanted.
    let selecting = self::service(json!({}));
    let skipped = by_hand(json!({ "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } } }));
    let lock = by_hand(json!({ "metadata": { "annotations": { "control-plane.alpha.kubernetes.io/leader": "{}" } } }));
    let plain = by_hand(json!({}));
    for (endpoints, service) in [
        (Some(&plain), None),
        (Some(&plain), Some(&selecting)),
        (Some(&skipped), Some(&service)),
        (Some(&lock), Some(&service)),
        (None, Some(&service)),
    ] {
        assert_eq!(carry_out(slices.clone(), mirror::plan(endpoints, service, &slices)), [], "{endpoints:?}");
    }
}

#[test]
fn only_changes_that_matter_wake_a_service() {
    type Case = (fn(&mut Value), bool);
    let table: [Case; 6] = [
        (unready, true),
        (deleting, true),
        (|pod| pod["metadata"]["labels"]["app"] = json!("x"), true),
        (|pod| pod["status"]["podIPs"] = json!([]), true),
        (|pod| pod["metadata"]["annotations"] = json!({ "a": "b" }), false),
        (|pod| pod["status"]["startTime"] = json!("2026-01-01T00:00:00Z"), false),
    ];
    for (change, expect) in table {
        let changed = pod_with(1, change);
        assert_eq!(address::matters(&pod(1), &changed), expect, "{changed:?}");
    }
}
