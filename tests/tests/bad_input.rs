//! What cannot work: each says what is wrong where its user looks (the answer of the API, a condition, an event), and harms
//! nothing else.
//!
//! Beside what is here: custom resources that break their schema and conversions that are down in
//! `walkthrough/custom_resource_definition`, autoscalers without metrics in `walkthrough/horizontal_pod_autoscaler`, gangs that
//! wait for room in `walkthrough/gang_scheduling`, roles that depend on themselves in `walkthrough/role_based_group`, webhooks
//! of which the server is down in `apply`.

use coracle_tests::{BUSYBOX, Cluster};

/// A container that does nothing until it is told to stop.
fn idle() -> String {
    format!(r#"{{name: c, image: "{BUSYBOX}", command: [sh, -c, "trap 'exit 0' TERM; sleep 1000000 & wait"]}}"#)
}

fn stateful_set(name: &str, service: &str, more: &str) -> String {
    let containers = idle();
    format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {service}
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{containers}]}}
  {more}
"
    )
}

/// Waits until an event about an object says this.
#[track_caller]
fn told(cluster: &Cluster, object: &str, words: &str) {
    let (kind, name) = object.split_once('/').expect("KIND/NAME");
    let selector = format!("--field-selector=involvedObject.kind={kind},involvedObject.name={name}");
    let mut last = String::new();
    let found = coracle_tests::wait(|| {
        last = cluster.kubectl(&["get", "events", &selector, "-o", "jsonpath={.items[*].message}"]).stdout;
        last.contains(words).then_some(())
    });
    assert!(found.is_some(), "{object} is told {last:?}, not {words:?}");
}

/// That nothing else came to harm: a pod can be had.
#[track_caller]
fn unharmed(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["run", name, "--image", BUSYBOX, "--image-pull-policy=Never", "--", "sleep", "1000"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).ok();
}

const NOT_STRUCTURAL: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  names: {kind: Thing, plural: things}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            properties:
              size: {type: strings}
          list: {type: array}
          ref: {$ref: '#/definitions/x'}
";

#[test]
fn a_schema_that_is_not_structural() {
    let cluster = Cluster::start();
    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], NOT_STRUCTURAL).fails();
    let schema = "spec.versions[0].schema.openAPIV3Schema";
    for part in [
        "The CustomResourceDefinition \"things.example.com\" is invalid",
        &format!("{schema}.properties[spec].type: Required value: must not be empty for specified object fields"),
        &format!("{schema}.properties[spec].properties[size].type: Unsupported value: \"strings\""),
        &format!("{schema}.properties[list].items: Required value: must be specified"),
        &format!("{schema}.properties[ref].$ref: Forbidden: $ref is not supported"),
    ] {
        assert!(refused.contains(part), "{part} is missing in {refused}");
    }
    assert_eq!(cluster.kubectl(&["get", "crd", "-o", "name"]).ok(), "");
    assert!(!cluster.kubectl(&["api-resources"]).ok().contains("example.com"));
}

#[test]
fn a_webhook_whose_service_is_missing() {
    let cluster = Cluster::start();
    cluster.apply(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: down}
webhooks:
- name: pods.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: nowhere, namespace: default, path: /mutate}}
  rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]
  objectSelector: {matchLabels: {app: hooked}}
",
    );
    let why = "failed calling webhook \"pods.example.com\": failed to call webhook: Post \
               \"https://nowhere.default.svc:443/mutate?timeout=10s\": service \"nowhere\" not found";
    let refused = cluster.kubectl(&["run", "x", "--image", BUSYBOX, "--labels=app=hooked"]).fails();
    assert!(refused.contains(why), "{refused}");
    // Somebody whose pods are made for them finds it in two places.
    cluster.kubectl(&["create", "deployment", "hooked", "--image", "nginx:latest"]).ok();
    let condition = "{.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
    cluster
        .wait("the Deployment says why", || cluster.field("deployment/hooked", condition).contains(why).then_some(()));
    let set = cluster.field("replicasets", "{.items[0].metadata.name}");
    told(&cluster, &format!("ReplicaSet/{set}"), why);
    unharmed(&cluster, "other");
    // Once it is gone, all goes on by itself.
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "down"]).ok();
    cluster.kubectl(&["wait", "--for=condition=Available", "deployment/hooked", "--timeout=120s"]).ok();
}

#[test]
fn a_claim_that_nothing_can_satisfy() {
    let cluster = Cluster::start();
    let claims = "volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: absent, accessModes: \
                  [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]";
    cluster.apply(&stateful_set("db", "db", claims));
    told(&cluster, "PersistentVolumeClaim/data-db-0", "storageclass.storage.k8s.io \"absent\" not found");
    told(&cluster, "Pod/db-0", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    let condition = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    assert_eq!(cluster.field("pod/db-0", condition), "Unschedulable");
    // A pod that names a claim which is not there.
    cluster.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: lost}, spec: {containers: [{name: c, image: x}], volumes: [{name: v, \
         persistentVolumeClaim: {claimName: nothing}}]}}",
    );
    told(&cluster, "Pod/lost", "persistentvolumeclaim \"nothing\" not found");
    unharmed(&cluster, "other");
    // What it waits for may still come.
    cluster.apply(
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: absent}, provisioner: coracle.dev/local-path}",
    );
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/db-0", "--timeout=90s"]).ok();
}

#[test]
fn a_stateful_set_without_its_service() {
    let cluster = Cluster::start();
    cluster.apply(&stateful_set("db", "absent", ""));
    cluster.kubectl(&["rollout", "status", "statefulset/db", "--timeout=60s"]).ok();
    let rest = "names like db-0.absent.default.svc do not resolve";
    told(&cluster, "StatefulSet/db", &format!("which spec.serviceName names, not found: {rest}"));
    // One that is there and cannot do it.
    cluster.kubectl(&["create", "service", "clusterip", "absent", "--tcp=80"]).ok();
    told(&cluster, "StatefulSet/db", &format!("is not headless (clusterIP: None): {rest}"));
    cluster.kubectl(&["delete", "service", "absent"]).ok();
    cluster.kubectl(&["create", "service", "clusterip", "absent", "--clusterip=None"]).ok();
    cluster.kubectl(&["set", "selector", "service/absent", "app=db"]).ok();
    cluster.wait("the name is there", || {
        let name = "db-0.absent.default.svc.cluster.local";
        let ran = cluster.kubectl(&["exec", "db-0", "--", "nslookup", name]);
        (ran.code == 0).then_some(())
    });
}

#[test]
fn a_gang_that_can_never_fit() {
    let cluster = Cluster::start();
    cluster.coracle(&["addons", "enable", "gang"]).ok();
    cluster.coracle(&["node", "add", "gpu", "--fake", "--gpu", "2"]).ok();
    let group = |name: &str, members: u32| {
        cluster.apply(&format!(
            "{{apiVersion: scheduling.x-k8s.io/v1alpha1, kind: PodGroup, metadata: {{name: {name}}}, spec: {{minMember: \
             {members}}}}}"
        ));
    };
    let worker = |name: &str, group: &str| {
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{scheduling.x-k8s.io/pod-group: {group}}}}}, \
             spec: {{containers: [{{name: c, image: x, resources: {{limits: {{nvidia.com/gpu: 1}}}}}}]}}}}"
        ));
    };
    group("big", 3);
    for name in ["big-0", "big-1", "big-2"] {
        worker(name, "big");
    }
    let never = "it never can: nvidia.com/gpu 3 wanted, 2 there in the whole cluster";
    for name in ["big-0", "big-1", "big-2"] {
        told(&cluster, &format!("Pod/{name}"), never);
    }
    assert!(cluster.coracle(&["explain", "pod", "big-1"]).ok().contains(never));
    // One with too few members, and one that nobody made.
    group("few", 5);
    worker("few-0", "few");
    told(
        &cluster,
        "Pod/few-0",
        "pod group default/few cannot find enough sibling pods, current pods number: 1, minMember of group: 5",
    );
    worker("stray", "nobodys");
    told(&cluster, "Pod/stray", "pod group default/nobodys not found");
    // It holds nothing: another gang gets the cards, and so does a pod of its own.
    group("small", 2);
    for name in ["small-0", "small-1"] {
        worker(name, "small");
    }
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/small-0", "pod/small-1", "--timeout=60s"]).ok();
    unharmed(&cluster, "other");
}
