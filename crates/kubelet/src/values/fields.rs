//! `fieldRef`: values of the pod's own object, for the environment and for downward API files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// What a field reference may ask for that is not in the pod's object yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The pod's addresses.
    pub(crate) pod: Vec<IpAddr>,
    /// The node's address.
    pub(crate) host: IpAddr,
}

/// The value of `path`, for the environment.
pub(crate) fn value(pod: &Pod, path: &str, addresses: &Addresses) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let join = |ips: &[IpAddr]| {
        let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
        ips.join(",")
    };
    Ok(match path {
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => addresses.host.to_string(),
        "status.podIP" => addresses.pod.first().map(ToString::to_string).unwrap_or_default(),
        "status.podIPs" => join(&addresses.pod),
        _ => return metadata(pod, path),
    })
}

/// The value of `path`, for a file: of the metadata only.
pub(crate) fn metadata(pod: &Pod, path: &str) -> Result<String, String> {
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    let meta = &pod.metadata;
    match path {
        "metadata.name" => return Ok(text(meta.name.as_ref())),
        "metadata.namespace" => return Ok(text(meta.namespace.as_ref())),
        "metadata.uid" => return Ok(text(meta.uid.as_ref())),
        "metadata.labels" => return Ok(format_map(meta.labels.as_ref())),
        "metadata.annotations" => return Ok(format_map(meta.annotations.as_ref())),
        _ => {}
    }
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    if let Some(key) = subscript("metadata.labels['") {
        return Ok(text(meta.labels.as_ref().and_then(|map| map.get(key))));
    }
    if let Some(key) = subscript("metadata.annotations['") {
        return Ok(text(meta.annotations.as_ref().and_then(|map| map.get(key))));
    }
    Err(format!("unsupported fieldPath: {path}"))
}

/// `key="value"` lines in the order of keys, quoted as Go quotes.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", quote(value));
    let lines: Vec<String> = map.into_iter().flatten().map(line).collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u1",
                "labels": {"app": "a", "tier": "b\"c\nd"}, "annotations": {"k/x": "v"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa", "containers": []},
        }))
        .unwrap();
        let addresses = Addresses {
            pod: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            host: "192.168.0.1".parse().unwrap(),
        };
        for (path, expect) in [
            ("metadata.name", Ok("web")),
            ("metadata.namespace", Ok("default")),
            ("metadata.uid", Ok("u1")),
            ("metadata.labels['app']", Ok("a")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['k/x']", Ok("v")),
            ("metadata.labels", Ok("app=\"a\"\ntier=\"b\\\"c\\nd\"")),
            ("spec.nodeName", Ok("n1")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.hostIP", Ok("192.168.0.1")),
            ("status.podIP", Ok("10.0.0.2")),
            ("status.podIPs", Ok("10.0.0.2,fd00::2")),
            ("spec.priority", Err("unsupported fieldPath: spec.priority")),
        ] {
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(value(&pod, path, &addresses), expect, "{path}");
        }
    }
}
