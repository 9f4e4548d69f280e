//! `/etc/hosts` and `/etc/resolv.conf` of a pod. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodSpec;

/// What the hosts file of a pod says. With the machine's network it is the machine's own, `of_host`, with the pod's
/// aliases.
pub(crate) fn hosts(spec: &PodSpec, hostname: &str, domain: Option<&str>, ips: &[IpAddr], of_host: &str) -> String {
    let mut hosts = String::new();
    if spec.host_network == Some(true) {
        hosts.push_str("# Kubernetes-managed hosts file (host network).\n");
        hosts.push_str(of_host);
    } else {
        hosts.push_str("# Kubernetes-managed hosts file.\n");
        for line in [
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
        ] {
            hosts.push_str(line);
            hosts.push('\n');
        }
        for ip in ips {
            match domain {
                Some(domain) => hosts.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
                None => hosts.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
    }
    let aliases = spec.host_aliases.iter().flatten().map(|alias| {
        let names = alias.hostnames.iter().flatten();
        let names: Vec<&str> = names.map(String::as_str).collect();
        format!("{}\t{}\n", alias.ip, names.join("\t"))
    });
    let aliases: String = aliases.collect();
    if !aliases.is_empty() {
        hosts.push_str("\n# Entries added by HostAliases.\n");
        hosts.push_str(&aliases);
    }
    hosts
}

/// The pod's host name: `spec.hostname` or its own name, which may be longer than a host name can be.
pub(crate) fn hostname(spec: &PodSpec, pod_name: &str) -> String {
    let name = spec.hostname_override.as_deref().or(spec.hostname.as_deref());
    let name = name.filter(|name| !name.is_empty()).unwrap_or(pod_name);
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The domain below which the pod has its host name: that of the service it names as its subdomain.
pub(crate) fn domain(spec: &PodSpec, namespace: &str, cluster_domain: &str) -> Option<String> {
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty())?;
    // Upstream: the override is the whole name, whatever else is asked for.
    let overridden = spec.hostname_override.as_deref().is_some_and(|name| !name.is_empty());
    (!overridden).then(|| format!("{subdomain}.{namespace}.svc.{cluster_domain}"))
}

/// What the kernel calls the pod: its host name, or with `setHostnameAsFQDN` that with its domain.
pub(crate) fn kernel_name(spec: &PodSpec, pod_name: &str, domain: Option<&str>) -> String {
    let name = hostname(spec, pod_name);
    match domain.filter(|_| spec.set_hostname_as_fqdn == Some(true)) {
        Some(domain) => format!("{name}.{domain}"),
        None => name,
    }
}

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolver {
    /// Addresses of servers.
    pub(crate) servers: Vec<String>,
    /// Domains to search.
    pub(crate) searches: Vec<String>,
    /// Options.
    pub(crate) options: Vec<String>,
}

impl Resolver {
    /// Reads a `resolv.conf`. Servers on the loopback are left out: a pod has a loopback of its own.
    pub(crate) fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let servers = words.filter(|server| {
                        let address = server.split('%').next().unwrap_or_default();
                        address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
                    });
                    resolver.servers.extend(servers.map(str::to_owned));
                }
                // The last one counts.
                Some("search" | "domain") => {
                    resolver.searches = words
                        .filter(|domain| *domain != ".")
                        .map(|domain| domain.trim_end_matches('.').to_owned())
                        .collect();
                }
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    /// The configuration of a pod in `namespace`, by its `dnsPolicy` and `dnsConfig`. `cluster` is the cluster's DNS
    /// server, as long as there is one.
    pub(crate) fn of_pod(spec: &PodSpec, namespace: &str, host: &Self, cluster: &[IpAddr], domain: &str) -> Self {
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let host_network = spec.host_network == Some(true);
        let cluster_first = match policy {
            "ClusterFirst" => !host_network,
            "ClusterFirstWithHostNet" => true,
            _ => false,
        };
        let mut resolver = match policy {
            "None" => Self::default(),
            _ if cluster_first && !cluster.is_empty() => {
                let own = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
                Self {
                    servers: cluster.iter().map(ToString::to_string).collect(),
                    searches: own.into_iter().chain(host.searches.clone()).collect(),
                    options: vec!["ndots:5".to_owned()],
                }
            }
            _ => host.clone(),
        };
        if let Some(config) = &spec.dns_config {
            extend(&mut resolver.servers, config.nameservers.iter().flatten().cloned());
            extend(&mut resolver.searches, config.searches.iter().flatten().cloned());
            for option in config.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                let name_of = |option: &str| option.split(':').next() == Some(name.as_str());
                resolver.options.retain(|option| !name_of(option));
                resolver.options.push(match &option.value {
                    Some(value) => format!("{name}:{value}"),
                    None => name.clone(),
                });
            }
        }
        resolver
    }

    /// The text of a `resolv.conf`.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn extend(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(mut spec: Value) -> PodSpec {
        spec["containers"] = json!([]);
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn resolvers() {
        let host =
            Resolver::parse("# comment\nnameserver 127.0.0.53\nnameserver 192.168.1.1\nsearch lan.\noptions edns0\n");
        let cluster: [IpAddr; 1] = ["10.96.0.10".parse().unwrap()];
        let in_cluster =
            "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        let on_host = "search lan\nnameserver 192.168.1.1\noptions edns0\n";
        for (pod, cluster, expect) in [
            (json!({}), &cluster[..], in_cluster),
            (json!({}), &[], on_host),
            (json!({"dnsPolicy": "Default"}), &cluster, on_host),
            (json!({"hostNetwork": true}), &cluster, on_host),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), &cluster, in_cluster),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"], "searches": ["x"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                &cluster,
                "search x\nnameserver 1.2.3.4\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsConfig": {"nameservers": ["1.2.3.4"], "options": [{"name": "ndots", "value": "1"}]}}),
                &cluster,
                "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\nnameserver 1.2.3.4\noptions ndots:1\n",
            ),
        ] {
            let resolver = Resolver::of_pod(&spec(pod.clone()), "ns", &host, cluster, "cluster.local");
            assert_eq!(resolver.to_text(), expect, "{pod}");
        }
    }

    #[test]
    fn hosts_files() {
        let ips = ["10.0.0.2".parse().unwrap()];
        let own = hosts(&spec(json!({})), "web", None, &ips, "");
        assert!(own.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(own.ends_with("\n10.0.0.2\tweb\n"));
        let aliases = json!({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]});
        let own = hosts(&spec(aliases), "web", Some("sub.ns.svc.cluster.local"), &ips, "");
        assert!(own.ends_with(
            "\n10.0.0.2\tweb.sub.ns.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
        let host = hosts(&spec(json!({"hostNetwork": true})), "web", None, &ips, "127.0.0.1 me\n");
        assert_eq!(host, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n");
    }

    #[test]
    fn host_names() {
        let long = "a".repeat(62) + "-b";
        assert_eq!(hostname(&spec(json!({})), &long), "a".repeat(62));
        assert_eq!(hostname(&spec(json!({"hostname": "h"})), "pod"), "h");
        assert_eq!(hostname(&spec(json!({})), "pod"), "pod");
        let check = |fields: serde_json::Value, expected: &str| {
            let spec = spec(fields);
            let domain = domain(&spec, "ns", "cluster.local");
            assert_eq!(kernel_name(&spec, "pod", domain.as_deref()), expected);
        };
        check(json!({"subdomain": "web"}), "pod");
        check(json!({"setHostnameAsFQDN": true}), "pod");
        check(json!({"setHostnameAsFQDN": true, "subdomain": "web"}), "pod.web.ns.svc.cluster.local");
    }
}
