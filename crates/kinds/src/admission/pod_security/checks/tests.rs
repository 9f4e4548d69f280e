//! Each check with pods that keep to it and pods that do not, around the versions in which it changed.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

/// The messages about a pod, which keeps to every other check, at a level in the version `v1.N`.
fn messages(level: Level, minor: i64, annotations: &Value, spec: &Value) -> String {
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "annotations": annotations }, "spec": spec })).unwrap();
    let view = PodView { annotations: &pod.metadata.annotations, spec: pod.spec.as_ref().unwrap() };
    details(&evaluate(LevelVersion { level, version: Version::Minor(minor) }, &view))
}

/// A specification that keeps to `restricted`, with something laid over it; containers over its container.
fn hardened(over: Value) -> Value {
    let mut spec = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [container("c", json!({}))],
    });
    lay_over(&mut spec, over);
    spec
}

fn container(name: &str, over: Value) -> Value {
    let mut container = json!({
        "name": name,
        "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
    });
    lay_over(&mut container, over);
    container
}

/// JSON merge, where null takes away.
fn lay_over(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    lay_over(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Checks what is said of a specification at each of the versions.
fn check(level: Level, spec: Value, expect: &[(i64, &str)]) {
    let spec = hardened(spec);
    for (minor, expect) in expect {
        assert_eq!(messages(level, *minor, &Value::Null, &spec), *expect, "v1.{minor}: {spec}");
    }
}

const BASELINE: Level = Level::Baseline;
const RESTRICTED: Level = Level::Restricted;

#[test]
fn the_table_is_in_order() {
    let keys: Vec<_> = CHECKS.iter().map(|check| (check.level, check.id)).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    for check in &CHECKS {
        assert!(check.revisions.iter().is_sorted_by(|a, b| a.0 < b.0), "{}", check.id);
        let overridden = check.overrides.map(|id| CHECKS.iter().any(|other| other.id == id && other.level == BASELINE));
        assert!(overridden.unwrap_or(true), "{}", check.id);
    }
}

#[test]
fn a_hardened_pod_keeps_to_every_level_in_every_version() {
    for level in [Level::Privileged, BASELINE, RESTRICTED] {
        for minor in 0..50 {
            assert_eq!(messages(level, minor, &Value::Null, &hardened(json!({}))), "", "v1.{minor}");
        }
    }
}

#[test]
fn privileged_allows_everything() {
    let spec =
        json!({ "hostNetwork": true, "containers": [{ "name": "c", "securityContext": { "privileged": true } }] });
    assert_eq!(messages(Level::Privileged, 36, &Value::Null, &spec), "");
}

#[test]
fn host_namespaces() {
    check(BASELINE, json!({ "hostNetwork": false, "hostPID": false, "hostIPC": false }), &[(0, "")]);
    let expect = "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)";
    check(BASELINE, json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true }), &[(0, expect), (36, expect)]);
    check(RESTRICTED, json!({ "hostPID": true }), &[(36, "host namespaces (hostPID=true)")]);
}

#[test]
fn privileged_containers() {
    let one = json!({ "containers": [container("c", json!({ "securityContext": { "privileged": true } }))] });
    let expect = "privileged (container \"c\" must not set securityContext.privileged=true)";
    check(BASELINE, one, &[(0, expect), (36, expect)]);
    let all = json!({
        "initContainers": [container("i", json!({ "securityContext": { "privileged": true } }))],
        "containers": [container("c", json!({ "securityContext": { "privileged": false } }))],
        "ephemeralContainers": [container("e", json!({ "securityContext": { "privileged": true } }))],
    });
    check(BASELINE, all, &[(36, "privileged (containers \"i\", \"e\" must not set securityContext.privileged=true)")]);
}

#[test]
fn capabilities() {
    let adds = |names: &[&str]| json!({ "containers": [container("c", json!({ "securityContext": { "capabilities": { "add": names } } }))] });
    let bind = adds(&["NET_BIND_SERVICE"]);
    check(BASELINE, bind.clone(), &[(0, "")]);
    check(RESTRICTED, bind, &[(21, ""), (22, ""), (36, "")]);
    let chown = adds(&["CHOWN"]);
    check(BASELINE, chown.clone(), &[(36, "")]);
    let expect =
        "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)";
    check(RESTRICTED, chown, &[(21, ""), (22, expect), (36, expect)]);
    let raw = adds(&["NET_RAW", "BPF"]);
    let expect = "non-default capabilities (container \"c\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)";
    check(BASELINE, raw.clone(), &[(0, expect), (36, expect)]);
    // Nobody is told the same thing twice.
    let only = "unrestricted capabilities (container \"c\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)";
    check(RESTRICTED, raw, &[(21, expect), (22, only)]);
    let keeps = json!({ "containers": [
        { "name": "c", "securityContext": { "allowPrivilegeEscalation": false } },
        container("d", json!({ "securityContext": { "capabilities": { "drop": ["CHOWN"], "add": ["CHOWN"] } } })),
    ] });
    let expect = "unrestricted capabilities (containers \"c\", \"d\" must set securityContext.capabilities.drop=[\"ALL\"]; \
                  container \"d\" must not include \"CHOWN\" in securityContext.capabilities.add)";
    check(RESTRICTED, keeps, &[(21, ""), (22, expect), (36, expect)]);
}

#[test]
fn volumes() {
    let allowed = json!({ "volumes": [
        { "name": "1", "configMap": {} }, { "name": "2", "csi": { "driver": "d" } }, { "name": "3", "downwardAPI": {} },
        { "name": "4", "emptyDir": {} }, { "name": "5", "ephemeral": {} }, { "name": "6", "image": {} },
        { "name": "7", "persistentVolumeClaim": { "claimName": "c" } }, { "name": "8", "projected": {} },
        { "name": "9", "secret": {} },
    ] });
    check(RESTRICTED, allowed, &[(0, ""), (36, "")]);
    let host = json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] });
    check(BASELINE, host.clone(), &[(0, "hostPath volumes (volume \"v\")"), (36, "hostPath volumes (volume \"v\")")]);
    let expect = "restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")";
    check(RESTRICTED, host, &[(0, expect), (36, expect)]);
    let several = json!({ "volumes": [
        { "name": "b", "nfs": { "server": "s", "path": "/" } }, { "name": "a", "hostPath": { "path": "/" } }, { "name": "c" },
    ] });
    check(BASELINE, several.clone(), &[(36, "hostPath volumes (volume \"a\")")]);
    let expect = "restricted volume types (volumes \"b\", \"a\", \"c\" use restricted volume types \"hostPath\", \"nfs\", \"unknown\")";
    check(RESTRICTED, several, &[(36, expect)]);
}

#[test]
fn host_ports() {
    let ports = |name: &str, ports: &[i32]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({ "containerPort": 1, "hostPort": port })).collect();
        container(name, json!({ "ports": ports }))
    };
    check(BASELINE, json!({ "containers": [ports("c", &[0])] }), &[(36, "")]);
    let expect = "hostPort (container \"c\" uses hostPort 80)";
    check(BASELINE, json!({ "containers": [ports("c", &[0, 80])] }), &[(0, expect), (36, expect)]);
    let expect = "hostPort (containers \"c\", \"d\" use hostPorts 80, 9)";
    check(BASELINE, json!({ "containers": [ports("c", &[80, 9]), ports("d", &[80])] }), &[(36, expect)]);
}

#[test]
fn host_probes_and_host_lifecycle() {
    let probed = |host: &str| {
        json!({ "containers": [container("c", json!({
            "livenessProbe": { "httpGet": { "port": 1, "host": host } },
            "readinessProbe": { "tcpSocket": { "port": 1, "host": host } },
            "lifecycle": { "preStop": { "httpGet": { "port": 1, "host": host } } },
        }))] })
    };
    check(BASELINE, probed(""), &[(36, "")]);
    let expect = "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")";
    check(BASELINE, probed("10.0.0.1"), &[(33, ""), (34, expect), (36, expect)]);
    let several = json!({ "containers": [
        container("d", json!({ "startupProbe": { "tcpSocket": { "port": 1, "host": "b" } } })),
        container("c", json!({ "lifecycle": { "postStart": { "tcpSocket": { "port": 1, "host": "a" } } } })),
    ] });
    let expect = "probe or lifecycle host (containers \"c\", \"d\" use probe or lifecycle hosts \"a\", \"b\")";
    check(BASELINE, several, &[(34, expect)]);
}

#[test]
fn app_armor_profiles() {
    let of_pod = |kind: &str| json!({ "securityContext": { "appArmorProfile": { "type": kind } } });
    check(BASELINE, of_pod("RuntimeDefault"), &[(0, ""), (36, "")]);
    check(BASELINE, of_pod("Localhost"), &[(36, "")]);
    let expect = "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")";
    check(BASELINE, of_pod("Unconfined"), &[(0, expect), (36, expect)]);
    let annotations = json!({
        "container.apparmor.security.beta.kubernetes.io/a": "unconfined",
        "container.apparmor.security.beta.kubernetes.io/b": "runtime/default",
        "container.apparmor.security.beta.kubernetes.io/c": "localhost/x",
    });
    let spec = hardened(json!({ "containers": [container("c", of_pod("Unconfined"))] }));
    assert_eq!(
        messages(BASELINE, 36, &annotations, &spec),
        "forbidden AppArmor profiles (container \"c\" and annotation must not set AppArmor profile type to \"Unconfined\", \
         \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")"
    );
}

#[test]
fn se_linux_options() {
    let of_pod = |options: Value| json!({ "securityContext": { "seLinuxOptions": options } });
    for kind in ["", "container_t", "container_init_t", "container_kvm_t"] {
        check(BASELINE, of_pod(json!({ "type": kind, "level": "s0" })), &[(0, ""), (36, "")]);
    }
    let expect = "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\")";
    check(BASELINE, of_pod(json!({ "type": "container_engine_t" })), &[(30, expect), (31, "")]);
    let several = json!({
        "securityContext": { "seLinuxOptions": { "type": "foo", "user": "u" } },
        "containers": [container("c", of_pod(json!({ "type": "bar", "role": "r" })))],
    });
    let expect = "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: types \"bar\", \"foo\"; \
                  user may not be set; role may not be set)";
    check(BASELINE, several, &[(36, expect)]);
}

#[test]
fn proc_mounts() {
    let mounts = |mount: &str, host_users: Value| json!({ "hostUsers": host_users, "containers": [container("c", json!({ "securityContext": { "procMount": mount } }))] });
    check(BASELINE, mounts("Default", Value::Null), &[(0, ""), (36, "")]);
    let expect = "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")";
    check(BASELINE, mounts("Unmasked", json!(true)), &[(0, expect), (36, expect)]);
    // A user namespace, which it does not get here, excuses nothing.
    check(BASELINE, mounts("Unmasked", json!(false)), &[(34, expect), (36, expect)]);
}

#[test]
fn seccomp_profiles() {
    let of_pod = |kind: &str| json!({ "securityContext": { "seccompProfile": { "type": kind } } });
    check(RESTRICTED, of_pod("Localhost"), &[(18, ""), (36, "")]);
    let expect = "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")";
    for level in [BASELINE, RESTRICTED] {
        check(level, of_pod("Unconfined"), &[(18, ""), (19, expect), (36, expect)]);
    }
    let of_both = json!({
        "securityContext": { "seccompProfile": { "type": "Unconfined" } },
        "containers": [container("c", of_pod("Unconfined"))],
    });
    let expect =
        "seccompProfile (pod and container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")";
    check(BASELINE, of_both, &[(36, expect)]);
    let of_none = json!({ "securityContext": { "seccompProfile": null } });
    check(BASELINE, of_none.clone(), &[(36, "")]);
    let expect = "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    check(RESTRICTED, of_none, &[(18, ""), (19, expect), (36, expect)]);
    let by_container = json!({
        "securityContext": { "seccompProfile": null },
        "containers": [container("c", of_pod("RuntimeDefault"))],
    });
    check(RESTRICTED, by_container, &[(36, "")]);
}

#[test]
fn seccomp_annotations() {
    let annotations = json!({
        "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/c": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/other": "unconfined",
    });
    let expect = "seccompProfile (forbidden annotations container.seccomp.security.alpha.kubernetes.io/c=\"unconfined\", \
                  seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")";
    for (minor, expect) in [(0, expect), (18, expect), (19, "")] {
        assert_eq!(messages(BASELINE, minor, &annotations, &hardened(json!({}))), expect);
    }
    for value in ["runtime/default", "docker/default", "localhost/x"] {
        let annotations = json!({ "seccomp.security.alpha.kubernetes.io/pod": value });
        assert_eq!(messages(BASELINE, 0, &annotations, &hardened(json!({}))), "");
    }
}

#[test]
fn sysctls() {
    for (name, since) in [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
        ("net.core.somaxconn", i64::MAX),
    ] {
        let spec = hardened(json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } }));
        for minor in 0..40 {
            let expect = if minor < since { format!("forbidden sysctls ({name})") } else { String::new() };
            assert_eq!(messages(BASELINE, minor, &Value::Null, &spec), expect, "v1.{minor}");
        }
    }
}

#[test]
fn windows_host_process() {
    let of_pod = |host: bool| json!({ "securityContext": { "windowsOptions": { "hostProcess": host } } });
    check(BASELINE, of_pod(false), &[(36, "")]);
    let expect = "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)";
    check(BASELINE, of_pod(true), &[(0, expect), (36, expect)]);
    let of_container = json!({ "containers": [container("c", of_pod(true))] });
    let expect = "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)";
    check(BASELINE, of_container, &[(36, expect)]);
}

#[test]
fn privilege_escalation() {
    let sets = |allow: Value| json!({ "containers": [container("c", json!({ "securityContext": { "allowPrivilegeEscalation": allow } }))] });
    let expect =
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)";
    for allow in [Value::Null, json!(true)] {
        check(BASELINE, sets(allow.clone()), &[(36, "")]);
        check(RESTRICTED, sets(allow), &[(7, ""), (8, expect), (36, expect)]);
    }
}

#[test]
fn run_as_non_root() {
    let of_pod = |non_root: Value| json!({ "securityContext": { "runAsNonRoot": non_root } });
    let silent = "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)";
    check(BASELINE, of_pod(Value::Null), &[(36, "")]);
    check(RESTRICTED, of_pod(Value::Null), &[(0, silent), (36, silent)]);
    let expect = "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)";
    check(RESTRICTED, of_pod(json!(false)), &[(36, expect)]);
    let of_container = json!({ "containers": [container("c", of_pod(json!(false)))] });
    let expect = "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)";
    check(RESTRICTED, of_container, &[(36, expect)]);
    let by_container =
        json!({ "securityContext": { "runAsNonRoot": null }, "containers": [container("c", of_pod(json!(true)))] });
    check(RESTRICTED, by_container, &[(36, "")]);
    let mapped = json!({ "hostUsers": false, "securityContext": { "runAsNonRoot": null } });
    check(RESTRICTED, mapped, &[(34, silent), (36, silent)]);
}

#[test]
fn run_as_user() {
    let of_pod = |user: i64| json!({ "securityContext": { "runAsUser": user } });
    check(RESTRICTED, of_pod(1000), &[(36, "")]);
    check(BASELINE, of_pod(0), &[(36, "")]);
    let expect = "runAsUser=0 (pod must not set runAsUser=0)";
    check(RESTRICTED, of_pod(0), &[(22, ""), (23, expect), (36, expect)]);
    let of_both = json!({ "securityContext": { "runAsUser": 0 }, "containers": [container("c", of_pod(0))] });
    check(RESTRICTED, of_both, &[(36, "runAsUser=0 (pod and container \"c\" must not set runAsUser=0)")]);
    let mapped = json!({ "hostUsers": false, "securityContext": { "runAsUser": 0 } });
    check(RESTRICTED, mapped, &[(34, expect), (36, expect)]);
}

/// Upstream's kubelet runs no such pod on Linux. Here it would run, and with all that it was excused from.
#[test]
fn windows_in_a_pod_excuses_nothing() {
    let windows = json!({
        "os": { "name": "windows" },
        "securityContext": { "seccompProfile": null },
        "containers": [container("c", json!({ "securityContext": { "capabilities": { "add": ["SYS_ADMIN"] } } }))],
    });
    for minor in [24, 36] {
        let said = messages(RESTRICTED, minor, &Value::Null, &hardened(windows.clone()));
        for reason in ["unrestricted capabilities", "seccompProfile", "must not include \"SYS_ADMIN\""] {
            assert!(said.contains(reason), "{reason}: {said}");
        }
    }
}

#[test]
fn violations_come_in_upstreams_order() {
    let spec = json!({
        "hostNetwork": true,
        "volumes": [{ "name": "v", "hostPath": { "path": "/" } }],
        "containers": [{ "name": "c", "securityContext": { "privileged": true } }],
    });
    let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
    let view = PodView { annotations: &None, spec: pod.spec.as_ref().unwrap() };
    let violations = evaluate(LevelVersion { level: RESTRICTED, version: Version::Latest }, &view);
    assert_eq!(
        reasons(&violations),
        "host namespaces, privileged, allowPrivilegeEscalation != false, unrestricted capabilities, restricted volume types, \
         runAsNonRoot != true, seccompProfile"
    );
}
