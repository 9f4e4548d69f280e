//! Tables for the kinds small enough to need no file of tests of their own, and what must hold for all kinds.

use registry::decode::Report;
use registry::kind::{AlternateVersion, Kind};
use serde_json::{Value, json};

use super::all;
use super::config_map::ConfigMap;
use super::controller_revision::ControllerRevision;
use super::daemon_set::DaemonSet;
use super::endpoint_slice::EndpointSlice;
use super::endpoints::Endpoints;
use super::event::{Event, EventView};
use super::lease::Lease;
use super::namespace::Namespace;
use super::node::Node;
use super::pod_template::PodTemplate;
use super::priority_class::PriorityClass;
use super::replication_controller::ReplicationController;
use super::secret::Secret;
use super::service_account::ServiceAccount;
use super::stateful_set::StatefulSet;
use super::testing::{CREATED, check_defaults, defaulted, errors, object, row, update_errors, with};

fn named(rest: Value) -> Value {
    let mut value = json!({"metadata": {"name": "x", "namespace": "default", "creationTimestamp": CREATED}});
    if let (Some(map), Value::Object(rest)) = (value.as_object_mut(), rest) {
        map.extend(rest);
    }
    value
}

#[test]
fn every_kind_keeps_its_promises() {
    for resource in all() {
        let info = resource.info();
        let kind = &info.kind;
        let body = json!({
            "apiVersion": info.api_version, "kind": kind,
            "metadata": {"name": "x", "namespace": if info.namespaced() { json!("n") } else { Value::Null }},
        });
        let bytes = body.to_string().into_bytes();
        let mut object = resource.decode(&bytes, &mut Report::ignore()).unwrap_or_else(|_| panic!("{kind} decodes"));
        resource.strategy().default(object.as_mut()).expect("its own type");
        let encode = |object: &dyn registry::object::Object| {
            let mut out = Vec::new();
            resource.encode(object, &mut out).expect("JSON");
            out
        };
        let once = encode(object.as_ref());
        resource.strategy().default(object.as_mut()).expect("its own type");
        assert_eq!(once, encode(object.as_ref()), "{kind}: defaults are idempotent");
        let again = resource.load(&once).unwrap_or_else(|_| panic!("{kind} loads"));
        assert_eq!(once, encode(again.as_ref()), "{kind}: what is stored reads back the same");

        let columns = resource.columns();
        let cells = resource.row(object.as_ref(), jiff::Timestamp::UNIX_EPOCH).expect("a row");
        assert_eq!(columns.len(), cells.len(), "{kind}: one cell for each column");
        assert!(columns.iter().filter(|column| column.format == "name").count() == 1, "{kind}: one name column");
        assert!(columns.iter().all(|column| !column.description.is_empty()), "{kind}: columns are described");

        let fields = resource.strategy().fields(object.as_ref()).expect("fields");
        for label in &info.selectable {
            let stored = resource.stored_label(label);
            assert!(fields.iter().any(|(name, _)| *name == stored), "{kind}: {label} can be selected by");
        }
        assert!(info.openapi_name.starts_with("io.k8s."), "{kind}: has an OpenAPI definition");
    }
}

#[test]
fn config_maps() {
    assert_eq!(errors::<ConfigMap>(named(json!({"data": {"a.b": "c"}, "binaryData": {"d": "AA=="}}))), [""; 0]);
    assert_eq!(
        errors::<ConfigMap>(named(json!({"data": {"a": "c"}, "binaryData": {"a": "AA=="}}))),
        ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
    );
    assert_eq!(
        errors::<ConfigMap>(named(json!({"data": {"a/b": "c"}}))),
        [
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        ]
    );
    assert_eq!(
        errors::<ConfigMap>(named(json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}}))),
        ["[]: Too long: may not be more than 1048576 bytes"]
    );
    let frozen = named(json!({"immutable": true, "data": {"a": "b"}}));
    assert_eq!(
        update_errors::<ConfigMap>(frozen.clone(), named(json!({"data": {"a": "c"}}))),
        [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ]
    );
    assert_eq!(row::<ConfigMap>(frozen), [json!("x"), json!(1), json!("10m")]);
}

#[test]
fn secrets() {
    check_defaults::<Secret>(
        named(json!({"data": {"a": "AAAA", "b": "AAAA"}, "stringData": {"b": "plain"}})),
        &named(json!({"type": "Opaque", "data": {"a": "AAAA", "b": "cGxhaW4="}})),
    );
    let cases: [(Value, &[&str]); 6] = [
        (json!({"type": "kubernetes.io/tls"}), &["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        (
            json!({"type": "kubernetes.io/basic-auth"}),
            &["data[username]: Required value", "data[password]: Required value"],
        ),
        (json!({"type": "kubernetes.io/ssh-auth"}), &["data[ssh-privatekey]: Required value"]),
        (json!({"type": "kubernetes.io/dockerconfigjson"}), &["data[.dockerconfigjson]: Required value"]),
        (
            json!({"type": "kubernetes.io/service-account-token"}),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        (json!({"type": "my/own"}), &[]),
    ];
    for (value, expect) in cases {
        assert_eq!(errors::<Secret>(named(value)), expect);
    }
    assert_eq!(
        update_errors::<Secret>(named(json!({})), named(json!({"type": "other"}))),
        ["type: Invalid value: \"other\": field is immutable"]
    );
    let secret = named(json!({"type": "Opaque", "data": {"a": ""}}));
    assert_eq!(row::<Secret>(secret), [json!("x"), json!("Opaque"), json!(1), json!("10m")]);
}

#[test]
fn namespaces() {
    check_defaults::<Namespace>(
        json!({"metadata": {"name": "x"}}),
        &json!({
            "metadata": {"name": "x", "labels": {"kubernetes.io/metadata.name": "x"}},
            "spec": {}, "status": {"phase": "Active"},
        }),
    );
    assert_eq!(
        errors::<Namespace>(named(json!({"spec": {"finalizers": ["kubernetes", "a.b/c", "odd"]}}))),
        [
            "spec.finalizers: Invalid value: \"odd\": name is neither a standard finalizer name nor is it fully qualified"
        ]
    );
    let mut going = defaulted::<Namespace>(named(json!({"spec": {"finalizers": ["kubernetes"]}})));
    assert!(Namespace::has_other_finalizers(&going));
    Namespace::mark_deleted(&mut going);
    assert_eq!(Namespace::fields(&going), [("status.phase", "Terminating".to_owned())]);
    assert_eq!(
        Namespace::validate_status(&going, &going).to_string(),
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"
    );
    let name = |name: &str| object::<Namespace>(json!({"metadata": {"name": name}}));
    assert_eq!(Namespace::undeletable(&name("kube-system")), Some("this namespace may not be deleted"));
    assert_eq!(Namespace::undeletable(&name("mine")), None);
    assert_eq!(row::<Namespace>(named(json!({"status": {"phase": "Active"}}))), ["x", "Active", "10m"]);
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {"name": "n", "creationTimestamp": CREATED, "labels": {
            "node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/": "", "kubernetes.io/role": "worker"}},
        "spec": {"podCIDR": "10.244.0.0/24", "unschedulable": true},
        "status": {
            "capacity": {"cpu": "2000m"},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "", "containerRuntimeVersion": "docker://20.10",
                "architecture": "", "bootID": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "systemUUID": ""},
        },
    });
    assert_eq!(
        row::<Node>(node.clone()),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "10m",
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "docker://20.10"
        ]
    );
    assert_eq!(row::<Node>(json!({"metadata": {"name": "n"}}))[1..4], ["Unknown", "<none>", "<unknown>"]);
    let value = serde_json::to_value(defaulted::<Node>(node.clone())).expect("JSON");
    assert_eq!(value.pointer("/spec/podCIDRs"), Some(&json!(["10.244.0.0/24"])));
    assert_eq!(value.pointer("/status/allocatable"), Some(&json!({"cpu": "2"})));

    let tainted = with(
        node.clone(),
        "/spec/taints",
        json!([
        {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "x"}, {"key": "b", "effect": "Never"}]),
    );
    assert_eq!(
        errors::<Node>(tainted),
        [
            "metadata.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\",\"value\":\"x\"}: taints must be unique by key and effect pair",
            "metadata.taints[2].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ]
    );
    assert_eq!(
        update_errors::<Node>(node.clone(), with(node, "/spec/podCIDR", json!("10.244.1.0/24"))),
        ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
    );
}

#[test]
fn endpoints() {
    let value = named(json!({"subsets": [
        {"addresses": [{"ip": "10.1.0.1"}, {"ip": "10.1.0.2"}], "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]},
        {"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]},
    ]}));
    assert_eq!(errors::<Endpoints>(value.clone()), [""; 0]);
    assert_eq!(row::<Endpoints>(value), ["x", "10.1.0.1:80,10.1.0.2:80,10.1.0.1:81 + 2 more...", "10m"]);
    assert_eq!(row::<Endpoints>(named(json!({})))[1], "<none>");
    assert_eq!(
        errors::<Endpoints>(named(json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 0}]}]}))),
        [
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ]
    );
}

#[test]
fn endpoint_slices() {
    check_defaults::<EndpointSlice>(
        named(json!({"addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}]})),
        &named(json!({"addressType": "IPv4", "endpoints": [], "ports": [{"name": "", "port": 80, "protocol": "TCP"}]})),
    );
    let slice = named(json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "any"}],
        "endpoints": [{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.3"]}, {"addresses": ["10.1.0.4"]}]}));
    assert_eq!(
        row::<EndpointSlice>(slice.clone()),
        ["x", "IPv4", "80,any", "10.1.0.1,10.1.0.2,10.1.0.3 + 1 more...", "10m"]
    );
    assert_eq!(
        row::<EndpointSlice>(named(json!({"addressType": "IPv4", "endpoints": []})))[2..4],
        ["<unset>", "<unset>"]
    );
    let cases = [
        ("/addressType", json!(""), vec!["addressType: Required value"]),
        (
            "/endpoints",
            json!([{"addresses": []}]),
            vec!["endpoints[0].addresses: Required value: must contain at least 1 address"],
        ),
        (
            "/endpoints",
            json!([{"addresses": ["fd00::1"]}]),
            vec!["endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address"],
        ),
        ("/ports", json!([{"port": 1}, {"port": 2}]), vec!["ports[1].name: Duplicate value: \"\""]),
    ];
    for (pointer, value, expect) in cases {
        assert_eq!(errors::<EndpointSlice>(with(slice.clone(), pointer, value)), expect);
    }
    assert_eq!(
        update_errors::<EndpointSlice>(slice.clone(), with(slice, "/addressType", json!("IPv6"))),
        ["addressType: Invalid value: \"IPv6\": field is immutable"]
    );
}

#[test]
fn leases() {
    assert_eq!(
        errors::<Lease>(named(json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}))),
        [
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
            "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
    assert_eq!(row::<Lease>(named(json!({"spec": {"holderIdentity": "me"}}))), ["x", "me", "10m"]);
}

#[test]
fn controller_revisions_and_service_accounts() {
    let mut revision = named(json!({"data": {"a": 1}, "revision": 3}));
    assert_eq!(row::<ControllerRevision>(revision.clone()), [json!("x"), json!("<none>"), json!(3), json!("10m")]);
    revision["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]);
    assert_eq!(row::<ControllerRevision>(revision.clone())[1], "statefulset.apps/db");
    assert_eq!(
        update_errors::<ControllerRevision>(revision.clone(), with(revision, "/data", json!({"a": 2}))),
        ["data: Invalid value: {\"a\":2}: field is immutable"]
    );
    assert_eq!(
        errors::<ControllerRevision>(named(json!({"revision": 1}))),
        ["data: Required value: data is mandatory"]
    );
    assert_eq!(row::<ServiceAccount>(named(json!({}))), ["x", "10m"]);
}

#[test]
fn events_of_the_old_sort() {
    let event = named(json!({
        "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "fieldPath": "spec.containers{c}"},
        "reason": "Pulled", "message": " Done \n", "type": "Normal", "count": 3,
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:09:30Z",
    }));
    assert_eq!(errors::<Event>(event.clone()), [""; 0]);
    assert_eq!(
        row::<Event>(event.clone()),
        [
            json!("30s"),
            json!("Normal"),
            json!("Pulled"),
            json!("pod/web"),
            json!("spec.containers{c}"),
            json!("kubelet, n"),
            json!("Done"),
            json!("10m"),
            json!(3),
            json!("x")
        ]
    );
    assert_eq!(
        errors::<Event>(with(event, "/involvedObject/namespace", json!("other"))),
        ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
    );
}

#[test]
fn events_of_the_new_sort() {
    let event = named(json!({
        "regarding": {"kind": "Pod", "name": "web", "namespace": "default"}, "note": "Done", "type": "Normal",
        "reason": "Scheduled", "action": "Binding", "eventTime": "2026-01-01T00:05:00.000000Z",
        "reportingController": "default-scheduler", "reportingInstance": "s-1",
        "series": {"count": 4, "lastObservedTime": "2026-01-01T00:09:00.000000Z"},
    }));
    let new: k8s_openapi::api::events::v1::Event = {
        let mut value = event;
        value["apiVersion"] = json!("events.k8s.io/v1");
        value["kind"] = json!("Event");
        serde_json::from_value(value).expect("an event")
    };
    let stored = EventView::to_stored(new.clone());
    assert!(Event::validate(&stored).is_empty());
    let value = serde_json::to_value(&stored).expect("JSON");
    for (pointer, expect) in [
        ("/apiVersion", "v1"),
        ("/message", "Done"),
        ("/involvedObject/name", "web"),
        ("/reportingComponent", "default-scheduler"),
    ] {
        assert_eq!(value.pointer(pointer), Some(&json!(expect)));
    }
    assert_eq!(EventView::from_stored(stored), new);
    let cells = row::<Event>(value.clone());
    assert_eq!(
        (&cells[0], &cells[5], &cells[7], &cells[8]),
        (&json!("60s"), &json!("default-scheduler, s-1"), &json!("5m"), &json!(4))
    );
    let mut lacking = object::<Event>(value);
    lacking.action = None;
    lacking.reporting_instance = None;
    assert_eq!(Event::validate(&lacking).to_string(), "[reportingInstance: Required value, action: Required value]");
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}

#[test]
fn stateful_sets() {
    let set = named(json!({"spec": {
        "serviceName": "x", "selector": {"matchLabels": {"app": "x"}}, "template": template(),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
    }}));
    let value = serde_json::to_value(defaulted::<StatefulSet>(set.clone())).expect("JSON");
    for (pointer, expect) in [
        ("/spec/replicas", json!(1)),
        ("/spec/revisionHistoryLimit", json!(10)),
        ("/spec/podManagementPolicy", json!("OrderedReady")),
        ("/spec/updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
        ("/spec/persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"})),
        ("/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
        ("/spec/volumeClaimTemplates/0/status/phase", json!("Pending")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expect), "{pointer}");
    }
    assert_eq!(errors::<StatefulSet>(set.clone()), [""; 0]);
    // The pods have volumes for the claims, and names of their own.
    let pod = json!({
        "hostname": "Not A Name",
        "containers": [{"name": "c", "image": "x:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    let template_with = |pod: Value| with(set.clone(), "/spec/template/spec", pod);
    assert_eq!(errors::<StatefulSet>(template_with(pod)), [""; 0]);
    assert_eq!(errors::<StatefulSet>(template_with(json!({}))), ["spec.template.spec.containers: Required value"]);
    let invalid = defaulted::<StatefulSet>(template_with(json!({})));
    assert!(StatefulSet::validate_kept(&invalid, &invalid).0.is_empty(), "what was stored before it was validated");
    let created = with(set.clone(), "/spec/serviceName", json!("Not a name"));
    let created = StatefulSet::validate_create(&defaulted::<StatefulSet>(created));
    let created: Vec<String> = created.iter().map(|error| error.field.clone()).collect();
    assert_eq!(created, ["spec.volumeClaimTemplates[0].spec.resources[storage]", "spec.serviceName"]);
    let mut on_delete = set.clone();
    on_delete["spec"]["updateStrategy"] = json!({"type": "RollingUpdate"});
    let value = serde_json::to_value(defaulted::<StatefulSet>(on_delete)).expect("JSON");
    assert_eq!(value.pointer("/spec/updateStrategy"), Some(&json!({"type": "RollingUpdate"})));
    let mut nameless = set.clone();
    nameless["spec"]["serviceName"] = Value::Null;
    nameless["spec"]["ordinals"] = json!({});
    let value = serde_json::to_value(defaulted::<StatefulSet>(nameless)).expect("JSON");
    assert_eq!((&value["spec"]["serviceName"], &value["spec"]["ordinals"]), (&json!(""), &json!({"start": 0})));
    assert_eq!(
        errors::<StatefulSet>(with(set.clone(), "/spec/podManagementPolicy", json!("Chaos"))),
        ["spec.podManagementPolicy: Unsupported value: \"Chaos\": supported values: \"OrderedReady\", \"Parallel\""]
    );
    assert_eq!(update_errors::<StatefulSet>(set.clone(), with(set.clone(), "/spec/replicas", json!(5))), [""; 0]);
    assert_eq!(
        update_errors::<StatefulSet>(set.clone(), with(set.clone(), "/spec/serviceName", json!("y"))),
        [
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        ]
    );
    let mut running = with(set, "/spec/replicas", json!(3));
    running["status"] = json!({"replicas": 3, "readyReplicas": 2});
    assert_eq!(row::<StatefulSet>(running), ["x", "2/3", "10m", "c", "x:1"]);
}

#[test]
fn daemon_sets() {
    let set = named(json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template()}}));
    let old = defaulted::<DaemonSet>(set.clone());
    let strategy = serde_json::to_value(old.spec.as_ref().and_then(|spec| spec.update_strategy.clone())).expect("JSON");
    assert_eq!(strategy, json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}));
    assert_eq!(
        errors::<DaemonSet>(with(
            set.clone(),
            "/spec/updateStrategy",
            json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
        )),
        [
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
        ]
    );
    let mut new = defaulted::<DaemonSet>(with(set.clone(), "/spec/template/spec/hostNetwork", json!(true)));
    DaemonSet::prepare_update(&mut new, &old);
    assert_eq!(
        serde_json::to_value(&new.metadata.annotations).expect("JSON"),
        json!({"deprecated.daemonset.template.generation": "2"})
    );
    let mut running = set;
    running["status"] = json!({"desiredNumberScheduled": 4, "currentNumberScheduled": 3, "numberReady": 2,
        "updatedNumberScheduled": 1, "numberMisscheduled": 0});
    assert_eq!(
        row::<DaemonSet>(running),
        [
            json!("x"),
            json!(4),
            json!(3),
            json!(2),
            json!(1),
            json!(0),
            json!("<none>"),
            json!("10m"),
            json!("c"),
            json!("x:1"),
            json!("app=x")
        ]
    );
}

#[test]
fn replication_controllers_and_pod_templates() {
    let controller = named(json!({"spec": {"template": template()}}));
    let value = serde_json::to_value(defaulted::<ReplicationController>(controller.clone())).expect("JSON");
    assert_eq!(value.pointer("/spec/selector"), Some(&json!({"app": "x"})));
    assert_eq!(value.pointer("/metadata/labels"), Some(&json!({"app": "x"})));
    assert_eq!(value.pointer("/spec/replicas"), Some(&json!(1)));
    assert_eq!(
        errors::<ReplicationController>(with(controller, "/spec/selector", json!({"app": "y"}))),
        ["spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"]
    );
    assert_eq!(row::<PodTemplate>(named(json!({"template": template()}))), ["x", "c", "x:1", "app=x"]);
}

#[test]
fn priority_classes() {
    let class =
        |name: &str, value: i32| json!({"metadata": {"name": name, "creationTimestamp": CREATED}, "value": value});
    assert_eq!(errors::<PriorityClass>(class("high", 1000)), [""; 0]);
    assert_eq!(errors::<PriorityClass>(class("system-node-critical", 2_000_001_000)), [""; 0]);
    assert_eq!(
        errors::<PriorityClass>(class("system-mine", 1)),
        ["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only"]
    );
    assert_eq!(
        errors::<PriorityClass>(class("high", 1_000_000_001)),
        ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
    );
    assert_eq!(
        update_errors::<PriorityClass>(class("high", 1), class("high", 2)),
        ["value: Forbidden: may not be changed in an update."]
    );
    let defaulted = serde_json::to_value(defaulted::<PriorityClass>(class("high", 1))).expect("JSON");
    assert_eq!(
        row::<PriorityClass>(defaulted),
        [json!("high"), json!(1), json!(false), json!("10m"), json!("PreemptLowerPriority")]
    );
}
