//! Section CRD (custom resource definition): a kind of one's own, used like any other.

use coracle_tests::webhook::Webhook;
use coracle_tests::{Background, Cluster, example};
use serde_json::{Value, json};

/// As the walkthrough has it: from before every version needed a schema.
const WITHOUT_SCHEMA: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: podgroups.scheduling.sigs.k8s.io
spec:
  group: scheduling.sigs.k8s.io
  names:
    kind: PodGroup
    plural: podgroups
  scope: Namespaced
  versions:
  - name: v1alpha1
    served: true
    storage: true
";

#[test]
fn custom_resource_definitions() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();

    let refused = cluster.kubectl_with_input(&["apply", "-f", "-"], WITHOUT_SCHEMA).fails();
    for part in [
        "The CustomResourceDefinition \"podgroups.scheduling.sigs.k8s.io\" is invalid",
        "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation",
    ] {
        assert!(refused.contains(part), "{part} is missing in {refused}");
    }
    // What kubectl remembers of earlier answers would only be refused by the server.
    let cache = format!("--cache-dir={}", cluster.home().join("unused").display());
    let gone = cluster.kubectl(&["get", "podgroups", &cache]).fails();
    assert!(gone.contains("doesn't have a resource type \"podgroups\""), "{gone}");

    // At once, without a pause for anything to settle.
    kubectl(&["apply", "-f", &example("crd/podgroups.yaml")]);
    kubectl(&["apply", "-f", &example("crd/training.yaml")]);
    kubectl(&["wait", "--for=condition=Established", "crd/podgroups.scheduling.sigs.k8s.io", "--timeout=1s"]);
    let listed = kubectl(&["get", "podgroups"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "MINMEMBER", "PHASE", "AGE"], "{listed}");
    assert_eq!(rows[1][..2], ["training", "4"], "{listed}");
    for name in ["pg", "podgroup", "podgroups.scheduling.sigs.k8s.io", "podgroups.v1alpha1.scheduling.sigs.k8s.io"] {
        assert!(kubectl(&["get", name, "training"]).contains("training"));
    }
    assert!(kubectl(&["api-resources"]).contains("scheduling.sigs.k8s.io/v1alpha1"));
    let explained = kubectl(&["explain", "podgroup.spec"]);
    assert!(explained.contains("How many pods there must be room for."), "{explained}");
    assert!(kubectl(&["describe", "podgroup", "training"]).contains("Schedule Timeout Seconds:  60"));
    assert_eq!(cluster.field("podgroup/training", "{.spec.scheduleTimeoutSeconds}"), "60");

    // What is wrong is said, by the name of the field.
    let manifest = std::fs::read_to_string(example("crd/training.yaml")).expect("the example");
    let wrong = cluster.kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 0"));
    assert!(
        wrong
            .fails()
            .contains("spec.minMember: Invalid value: 0: spec.minMember in body should be greater than or equal to 1")
    );
    let typo = cluster
        .kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 4\n  minMembers: 5"));
    assert!(typo.fails().contains("unknown field \"spec.minMembers\""));

    // Changes, by all that kubectl has.
    let watch = Background::start(cluster.kubectl_command(&["get", "podgroups", "-w"]));
    watch.line(|line| line.starts_with("training"));
    kubectl(&["patch", "podgroup", "training", "--type=merge", "-p", r#"{"spec":{"minMember":3}}"#]);
    watch.line(|line| line.split_whitespace().nth(1) == Some("3"));
    cluster.apply(&manifest.replace("minMember: 4", "minMember: 5"));
    assert_eq!(cluster.field("podgroup/training", "{.spec.minMember}"), "5");
    assert!(
        cluster
            .kubectl_with_input(&["apply", "-f", "-"], &manifest.replace("minMember: 4", "minMember: 5"))
            .ok()
            .contains("unchanged")
    );
    kubectl(&[
        "patch",
        "podgroup",
        "training",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"phase":"Waiting"}}"#,
    ]);
    watch.line(|line| line.contains("Waiting"));
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &example("crd/training.yaml")]);
    assert_eq!(cluster.field("podgroup/training", "{.spec.minMember}{.status.phase}"), "4Waiting");

    // They outlive a restart, and go with their definition.
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    assert_eq!(cluster.field("podgroup/training", "{.status.phase}"), "Waiting");
    kubectl(&["delete", "crd", "podgroups.scheduling.sigs.k8s.io", "--timeout=30s"]);
    // What kubectl remembers of earlier answers would only be refused by the server.
    let cache = format!("--cache-dir={}", cluster.home().join("unused").display());
    let gone = cluster.kubectl(&["get", "podgroups", &cache]).fails();
    assert!(gone.contains("doesn't have a resource type \"podgroups\""), "{gone}");
}

/// Shirts of two versions: in v2 the color is called colour. What has been sold may not shrink.
fn shirts(rule: &str, conversion: &Value) -> String {
    let version = |name: &str, color: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage,
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": {
                "type": "object",
                "x-kubernetes-validations": [
                    { "rule": rule, "message": "a shirt is red or blue" },
                    { "rule": "self.sold >= oldSelf.sold", "messageExpression": "'%d are sold already'.format([oldSelf.sold])", "fieldPath": ".sold" },
                ],
                "properties": { color: { "type": "string" }, "sold": { "type": "integer", "default": 0 } },
            } } } },
        })
    };
    let mut versions = vec![version("v1", "color", true)];
    if !conversion.is_null() {
        let mut second = version("v2", "colour", false);
        let schema = &mut second["schema"]["openAPIV3Schema"]["properties"]["spec"];
        schema["x-kubernetes-validations"] = json!([]);
        versions.push(second);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "shirts.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": versions, "conversion": conversion,
            "names": { "plural": "shirts", "singular": "shirt", "kind": "Shirt" },
        },
    })
    .to_string()
}

const COLORS: &str = "!has(self.color) || self.color in ['red', 'blue']";

#[test]
fn rules_in_cel() {
    let cluster = Cluster::start();
    // One that makes no sense is refused with its definition.
    let bad = cluster.kubectl_with_input(&["apply", "-f", "-"], &shirts("self.colour == 'red'", &Value::Null)).fails();
    for part in [
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value:",
        "compilation failed: ERROR: <input>:1:5: undefined field 'colour'",
        " | self.colour == 'red'",
        " | ....^",
    ] {
        assert!(bad.contains(part), "{part} is missing in {bad}");
    }
    cluster.apply(&shirts(COLORS, &Value::Null));
    let explained = cluster.kubectl(&["get", "--raw", "/openapi/v3/apis/example.com/v1"]).ok();
    assert!(explained.contains("a shirt is red or blue"), "the messages are published with the schema");

    let shirt = |spec: &str| format!("apiVersion: example.com/v1\nkind: Shirt\nmetadata:\n  name: a\nspec: {spec}\n");
    let apply = |spec: &str| cluster.kubectl_with_input(&["apply", "-f", "-"], &shirt(spec));
    let green = apply("{color: green}").fails();
    assert!(green.contains("The Shirt \"a\" is invalid: spec: Invalid value: a shirt is red or blue"), "{green}");
    apply("{color: red, sold: 5}").ok();
    apply("{color: blue, sold: 6}").ok();
    let fewer = apply("{color: blue, sold: 1}").fails();
    assert!(fewer.contains("spec.sold: Invalid value: 6 are sold already"), "{fewer}");
    assert_eq!(cluster.field("shirt/a", "{.spec.color}{.spec.sold}"), "blue6");
    // They outlive a restart.
    cluster.coracle(&["stop"]).ok();
    cluster.coracle(&["start"]).ok();
    apply("{color: blue, sold: 5}").fails();
    apply("{color: blue, sold: 7}").ok();
}

/// Converts shirts.
fn paint(request: &Value) -> Value {
    let mut objects = request["objects"].as_array().cloned().unwrap_or_default();
    let wanted = request["desiredAPIVersion"].clone();
    let (from, to) = if wanted == "example.com/v2" { ("color", "colour") } else { ("colour", "color") };
    for object in &mut objects {
        object["apiVersion"] = wanted.clone();
        let color = object["spec"].as_object_mut().and_then(|spec| spec.remove(from)).unwrap_or_default();
        object["spec"][to] = color;
    }
    json!({ "result": { "status": "Success" }, "convertedObjects": objects })
}

fn by_webhook(client_config: &Value) -> Value {
    let webhook = json!({ "conversionReviewVersions": ["v1"], "clientConfig": client_config });
    json!({ "strategy": "Webhook", "webhook": webhook })
}

#[test]
fn conversion_webhooks() {
    let cluster = Cluster::start();
    let painter = Webhook::start(paint);
    let conversion = |hook: &Webhook| by_webhook(&hook.client_config("convert"));
    cluster.apply(&shirts(COLORS, &conversion(&painter)));
    for (name, version, color) in [("a", "v1", "color: red"), ("b", "v2", "colour: blue")] {
        cluster.apply(&format!(
            "apiVersion: example.com/{version}\nkind: Shirt\nmetadata:\n  name: {name}\nspec:\n  {color}\n"
        ));
    }
    let colors = |resource: &str, path: &str| {
        let path = format!("-o=jsonpath={{.items[*].spec.{path}}}");
        cluster.kubectl(&["get", resource, &path]).ok()
    };
    assert_eq!(colors("shirts.v1.example.com", "color"), "red blue");
    assert_eq!(colors("shirts.v2.example.com", "colour"), "red blue");
    let listed = cluster.kubectl(&["get", "shirts.v2.example.com"]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let watch = Background::start(cluster.kubectl_command(&[
        "get",
        "shirts.v2.example.com",
        "-w",
        "-o=jsonpath={.metadata.name}={.spec.colour}{\"\\n\"}",
    ]));
    watch.line(|line| line == "a=red");
    let patch = r#"{"spec":{"colour":"blue"}}"#;
    cluster.kubectl(&["patch", "shirts.v2.example.com", "a", "--type=merge", "-p", patch]).ok();
    watch.line(|line| line == "a=blue");
    assert_eq!(colors("shirts.v1.example.com", "color"), "blue blue");

    // One that is down says so to whoever needs it, and to nobody else.
    cluster.apply(&shirts(COLORS, &conversion(&painter.gone())));
    let down = cluster.kubectl(&["get", "shirts.v2.example.com", "a"]).fails();
    for part in [
        "conversion webhook for example.com/v1, Kind=Shirt failed: Post \"https://127.0.0.1:1/convert?timeout=30s\": ",
        "connection refused",
    ] {
        assert!(down.contains(part), "{part} is missing in {down}");
    }
    assert_eq!(colors("shirts.v1.example.com", "color"), "blue blue");
    cluster.kubectl(&["patch", "shirts.v1.example.com", "a", "--type=merge", "-p", r#"{"spec":{"color":"red"}}"#]).ok();
    cluster.kubectl(&["get", "namespaces"]).ok();
    cluster.apply(&shirts(COLORS, &conversion(&painter)));
    assert_eq!(colors("shirts.v2.example.com", "colour"), "red blue");
    cluster.kubectl(&["delete", "crd", "shirts.example.com", "--timeout=30s"]).ok();
}

/// The same behind a Service, and what is said for as long as that leads nowhere.
#[test]
fn conversion_webhooks_by_service() {
    let cluster = Cluster::start();
    // The address of the machine to which the Service `kubernetes` leads too.
    let machine = cluster.field("endpointslice/kubernetes", "{.endpoints[0].addresses[0]}");
    let painter = Webhook::start_at(&machine, "painter.default.svc", paint);
    let mut client_config = painter.client_config_by_service("default/painter", "/convert");
    cluster.apply(&shirts(COLORS, &by_webhook(&client_config)));
    cluster.apply("{apiVersion: example.com/v1, kind: Shirt, metadata: {name: a}, spec: {color: red}}");
    let in_vain = |port: u16, why: &str| {
        for (arguments, kind) in [(&["a"][..], "Shirt"), (&[], "ShirtList")] {
            let told = cluster.kubectl(&[&["get", "shirts.v2.example.com"], arguments].concat()).fails();
            let whole = format!(
                "conversion webhook for example.com/v1, Kind={kind} failed: Post \
                 \"https://painter.default.svc:{port}/convert?timeout=30s\": {why}"
            );
            assert!(told.contains(&whole), "{whole} is missing in {told}");
        }
        // Who asks for what is stored does not notice.
        assert_eq!(cluster.field("shirts.v1.example.com/a", "{.spec.color}"), "red");
    };
    in_vain(443, "service \"painter\" not found");
    let service = |port: u16| {
        let (name, slice) = (
            json!({ "name": "painter" }),
            json!({ "name": "painter-1", "labels": { "kubernetes.io/service-name": "painter" } }),
        );
        let ports = json!([{ "name": "https", "port": port, "targetPort": painter.port() }]);
        cluster.apply(
            &json!({ "apiVersion": "v1", "kind": "Service", "metadata": name, "spec": { "ports": ports } }).to_string(),
        );
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice, "addressType": "IPv4",
            "ports": [{ "name": "https", "port": painter.port() }], "endpoints": [{ "addresses": [machine] }],
        })
        .to_string()
    };
    let slice = service(443);
    in_vain(443, "no endpoints available for service \"painter\"");
    cluster.apply(&slice);
    let colour = || cluster.field("shirts.v2.example.com/a", "{.spec.colour}");
    cluster.wait("the conversion goes through", || (colour() == "red").then_some(()));
    cluster
        .kubectl(&["patch", "shirts.v2.example.com", "a", "--type=merge", "-p", r#"{"spec":{"colour":"blue"}}"#])
        .ok();
    assert_eq!(cluster.field("shirts.v1.example.com/a", "{.spec.color}"), "blue");

    // At another port, and with another program than the one that the definition trusts.
    service(8443);
    client_config["service"]["port"] = 8443.into();
    cluster.apply(&shirts(COLORS, &by_webhook(&client_config)));
    cluster.wait("it is found at its other port", || (colour() == "blue").then_some(()));
    client_config["caBundle"] = Webhook::start(paint).client_config("")["caBundle"].clone();
    cluster.apply(&shirts(COLORS, &by_webhook(&client_config)));
    cluster.apply("{apiVersion: example.com/v1, kind: Shirt, metadata: {name: a}, spec: {color: red}}");
    in_vain(8443, "tls: failed to verify certificate: x509: certificate signed by unknown authority");
}
