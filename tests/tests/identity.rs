//! Who somebody is and what they may do: kubectl's questions, tokens, and pods that call the API as their account.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coracle_tests::{Cluster, Ran};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::Value;

/// An image with curl.
const CURL: &str = "nginx:1.21.0";

/// What a pod finds of its account.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// kubectl as somebody who has nothing but a token.
fn with_token(cluster: &Cluster, token: &str, arguments: &[&str]) -> Ran {
    let server = cluster.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let mut all = vec!["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--server", &server, "--token", token];
    all.extend(arguments);
    cluster.kubectl(&all)
}

#[test]
fn rights_are_given_asked_for_and_used() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    assert!(kubectl(&["auth", "whoami"]).contains("kubernetes-admin"));
    assert_eq!(kubectl(&["auth", "can-i", "delete", "nodes"]), "yes\n");
    let robot = "system:serviceaccount:default:robot";
    let can = |verb: &str, resource: &str| {
        cluster.kubectl(&["auth", "can-i", verb, resource, "--as", robot]).stdout.trim().to_owned()
    };

    kubectl(&["create", "serviceaccount", "robot"]);
    assert_eq!(can("list", "pods"), "no");
    let token = kubectl(&["create", "token", "robot"]);
    let refused = with_token(&cluster, token.trim(), &["get", "pods"]).fails();
    assert_eq!(
        refused.trim(),
        format!(
            "Error from server (Forbidden): pods is forbidden: User \"{robot}\" cannot list resource \"pods\" in API \
             group \"\" in the namespace \"default\""
        )
    );
    kubectl(&["create", "rolebinding", "robot", "--clusterrole=view", "--serviceaccount=default:robot"]);
    // What `view` holds is gathered by a controller.
    cluster.wait("the account may look", || (can("list", "pods") == "yes").then_some(()));
    assert_eq!(can("list", "secrets"), "no");
    assert_eq!(can("delete", "pods"), "no");
    with_token(&cluster, token.trim(), &["get", "pods"]).ok();
    assert!(kubectl(&["auth", "can-i", "--list", "--as", robot]).contains("pods/log"));
    let garbage = with_token(&cluster, "garbage", &["get", "pods"]).fails();
    assert!(garbage.contains("Unauthorized") || garbage.contains("You must be logged in"), "{garbage}");

    // Rights do not grow by being written down.
    kubectl(&["create", "role", "author", "--verb=create", "--resource=roles"]);
    kubectl(&["create", "rolebinding", "author", "--role=author", "--serviceaccount=default:robot"]);
    let greedy = ["create", "role", "greedy", "--verb=get", "--resource=secrets"];
    let refused = with_token(&cluster, token.trim(), &greedy).fails();
    assert!(refused.contains("is attempting to grant RBAC permissions not currently held"), "{refused}");

    // The older kind of token lives in a Secret.
    cluster.apply(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: robot\n  \
         annotations: { kubernetes.io/service-account.name: robot }\n",
    );
    let template = ["get", "secret", "robot", "-o", "go-template={{.data.token | base64decode}}"];
    let old = cluster.wait("the secret has a token", || {
        Some(cluster.kubectl(&template).stdout).filter(|token| token.starts_with("ey"))
    });
    with_token(&cluster, &old, &["get", "pods"]).ok();
    kubectl(&["delete", "serviceaccount", "robot"]);
    with_token(&cluster, token.trim(), &["get", "pods"]).fails();
    with_token(&cluster, &old, &["get", "pods"]).fails();

    // Roles can be written as files, and be compared with what is there.
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: mine }\nrules:\n\
                - { apiGroups: [\"\"], resources: [pods], verbs: [get] }\n";
    assert!(cluster.kubectl_with_input(&["auth", "reconcile", "-f", "-"], role).ok().contains("reconciled"));
    let table = kubectl(&["get", "clusterroles"]);
    assert!(table.lines().next().unwrap_or_default().contains("CREATED AT"), "{table}");
}

#[test]
fn a_pod_calls_the_api_as_its_account() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    kubectl(&["run", "caller", "--image", CURL, "--image-pull-policy=Never"]);
    kubectl(&["wait", "--for=condition=Ready", "pod/caller", "--timeout=60s"]);
    let pod = cluster.get(&["pod", "caller"]);
    let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap_or_default();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    let shell = |script: &str| cluster.kubectl(&["exec", "caller", "--", "sh", "-c", script]);
    assert_eq!(shell(&format!("cat {MOUNT}/namespace")).ok(), "default");
    let ask = |address: &str, path: &str| -> Value {
        let token = format!("Authorization: Bearer $(cat {MOUNT}/token)");
        let script = format!("curl -sS -m 10 --cacert {MOUNT}/ca.crt -H \"{token}\" https://{address}{path}");
        let answer = cluster
            .wait("the API answers the pod", || Some(shell(&script)).filter(|ran| ran.code == 0).map(|ran| ran.stdout));
        serde_json::from_str(&answer).expect("JSON")
    };
    let pods = "/api/v1/namespaces/default/pods";
    // By the address that every container is told, and by its name.
    for address in ["$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT", "kubernetes.default.svc"] {
        assert_eq!(ask(address, "/version")["major"], "1");
        assert_eq!(
            ask(address, pods)["message"],
            "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API \
             group \"\" in the namespace \"default\""
        );
    }
    kubectl(&["create", "role", "lister", "--verb=list", "--resource=pods"]);
    kubectl(&["create", "rolebinding", "lister", "--role=lister", "--serviceaccount=default:default"]);
    assert_eq!(ask("kubernetes.default.svc", pods)["items"][0]["metadata"]["name"], "caller");

    // A pod that wants no token has none; one whose account does not exist is refused.
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{ name: alone }}\nspec:\n  automountServiceAccountToken: false\n  \
         containers: [{{ name: main, image: '{CURL}', imagePullPolicy: Never }}]\n"
    ));
    assert!(cluster.get(&["pod", "alone"])["spec"]["volumes"].is_null());
    let overrides = r#"--overrides={"spec":{"serviceAccountName":"nobody"}}"#;
    let refused = cluster.kubectl(&["run", "lost", "--image", CURL, overrides]).fails();
    assert!(
        refused.contains("error looking up service account default/nobody: serviceaccount \"nobody\" not found"),
        "{refused}"
    );
}

/// A CertificateSigningRequest for client certificates of `jane`, as a manifest.
fn request_of_jane(name: &str, key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "developers");
    params.distinguished_name.push(DnType::CommonName, "jane");
    let pem = params.serialize_request(key).and_then(|request| request.pem()).expect("a request");
    let request = BASE64_STANDARD.encode(pem);
    format!(
        "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name}}}, spec: {{request: {request}, \
         signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], expirationSeconds: 86400}}}}"
    )
}

#[test]
fn a_user_gets_a_certificate_by_asking_for_it() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments).ok();
    let key = KeyPair::generate().expect("a key");
    cluster.apply(&request_of_jane("jane", &key));
    let shown = kubectl(&["get", "csr", "jane"]);
    for expect in ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "24h", "Pending"] {
        assert!(shown.contains(expect), "{shown}");
    }
    kubectl(&["certificate", "approve", "jane"]);
    let template = ["get", "csr", "jane", "-o", "go-template={{with .status.certificate}}{{. | base64decode}}{{end}}"];
    let certificate = cluster.wait("the certificate is issued", || {
        Some(cluster.kubectl(&template).stdout).filter(|pem| pem.starts_with("-----BEGIN CERTIFICATE"))
    });
    assert!(kubectl(&["get", "csr", "jane"]).contains("Approved,Issued"));

    let home = tempfile::tempdir().expect("a directory");
    let (certificate_path, key_path) = (home.path().join("jane.crt"), home.path().join("jane.key"));
    std::fs::write(&certificate_path, certificate).expect("a file");
    std::fs::write(&key_path, key.serialize_pem()).expect("a file");
    let server = kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let whoami = cluster.kubectl(&[
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        "--server",
        &server,
        "--client-certificate",
        &certificate_path.to_string_lossy(),
        "--client-key",
        &key_path.to_string_lossy(),
        "auth",
        "whoami",
    ]);
    let whoami = whoami.ok();
    assert!(whoami.contains("jane") && whoami.contains("developers"), "{whoami}");

    // A request that is denied stays without.
    cluster.apply(&request_of_jane("denied", &key));
    kubectl(&["certificate", "deny", "denied"]);
    let shown = kubectl(&["get", "csr", "denied"]);
    assert!(shown.contains("Denied") && !shown.contains("Issued"), "{shown}");
    let refused = cluster.kubectl(&["certificate", "approve", "denied"]).fails();
    assert!(refused.contains("is already Denied"), "{refused}");
}
