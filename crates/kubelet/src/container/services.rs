//! Environment variables that tell of services, as Docker's links once did.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The variables for `services`, in the form of upstream's `envvars.FromServices`.
pub(crate) fn environment<'a>(services: impl IntoIterator<Item = &'a Service>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        let mut set = |suffix: String, value: String| {
            variables.insert(format!("{name}_{suffix}"), value);
        };
        set("SERVICE_HOST".to_owned(), ip.to_owned());
        for (index, port) in spec.ports.iter().flatten().enumerate() {
            let number = port.port;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{number}", protocol.to_lowercase());
            if index == 0 {
                set("SERVICE_PORT".to_owned(), number.to_string());
                set("PORT".to_owned(), url.clone());
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let suffix = format!("SERVICE_PORT_{}", variable_name(port_name));
                set(suffix, number.to_string());
            }
            let prefix = format!("PORT_{number}_{}", protocol.to_uppercase());
            set(prefix.clone(), url);
            set(format!("{prefix}_PROTO"), protocol.to_lowercase());
            set(format!("{prefix}_PORT"), number.to_string());
            set(format!("{prefix}_ADDR"), ip.to_owned());
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_service() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "my-web"}, "spec": {"clusterIP": "10.0.0.9", "ports": [
                {"name": "http-main", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}},
            {"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        ]))
        .unwrap();
        let variables: Vec<String> =
            environment(&services).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            variables,
            [
                "MY_WEB_PORT=tcp://10.0.0.9:80",
                "MY_WEB_PORT_53_UDP=udp://10.0.0.9:53",
                "MY_WEB_PORT_53_UDP_ADDR=10.0.0.9",
                "MY_WEB_PORT_53_UDP_PORT=53",
                "MY_WEB_PORT_53_UDP_PROTO=udp",
                "MY_WEB_PORT_80_TCP=tcp://10.0.0.9:80",
                "MY_WEB_PORT_80_TCP_ADDR=10.0.0.9",
                "MY_WEB_PORT_80_TCP_PORT=80",
                "MY_WEB_PORT_80_TCP_PROTO=tcp",
                "MY_WEB_SERVICE_HOST=10.0.0.9",
                "MY_WEB_SERVICE_PORT=80",
                "MY_WEB_SERVICE_PORT_DNS=53",
                "MY_WEB_SERVICE_PORT_HTTP_MAIN=80",
            ]
        );
    }
}
