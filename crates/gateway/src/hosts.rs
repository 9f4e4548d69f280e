//! What belongs to a host of a request: by its name, by a wildcard, or whatever the host.

use std::collections::HashMap;

/// Which hosts are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum HostPattern {
    /// This one, in lower case.
    Exact(String),
    /// Those with exactly one label before this suffix: what `*.` stands for in an Ingress (networking.k8s.io/v1,
    /// `IngressRule.host`) and in a certificate (RFC 6125, section 6.4.3).
    OneLabel(String),
    /// Those with at least one label before this suffix: what `*.` stands for in the Gateway API
    /// (`apis/v1/shared_types.go`, `Hostname`).
    Suffix(String),
    /// All.
    Any,
}

impl HostPattern {
    /// The host of an Ingress's rule or TLS section.
    pub(crate) fn of_ingress(host: Option<&str>) -> Self {
        Self::parse(host, Self::OneLabel)
    }

    /// The hostname of a Gateway's listener or an HTTPRoute.
    pub(crate) fn of_gateway(hostname: Option<&str>) -> Self {
        Self::parse(hostname, Self::Suffix)
    }

    fn parse(host: Option<&str>, wildcard: fn(String) -> Self) -> Self {
        match host.map(str::to_ascii_lowercase) {
            None => Self::Any,
            Some(host) if host.is_empty() || host == "*" => Self::Any,
            Some(host) => match host.strip_prefix("*.") {
                Some(suffix) => wildcard(suffix.to_owned()),
                None => Self::Exact(host),
            },
        }
    }

    /// The hosts that both mean, of two that follow the Gateway API; none where there is none.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        let within = |name: &str, suffix: &str| name.strip_suffix(suffix).is_some_and(|labels| labels.ends_with('.'));
        match (self, other) {
            (Self::Any, hosts) | (hosts, Self::Any) => Some(hosts.clone()),
            (Self::Exact(name), Self::Suffix(suffix)) | (Self::Suffix(suffix), Self::Exact(name)) => {
                within(name, suffix).then(|| Self::Exact(name.clone()))
            }
            (Self::Suffix(one), Self::Suffix(two)) => {
                let (long, short) = if one.len() >= two.len() { (one, two) } else { (two, one) };
                (long == short || within(long, short)).then(|| Self::Suffix(long.clone()))
            }
            (one, two) => (one == two).then(|| one.clone()),
        }
    }

    /// The name as it stands in an object or a certificate; none for all hosts.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Exact(name) => Some(name.clone()),
            Self::OneLabel(suffix) | Self::Suffix(suffix) => Some(format!("*.{suffix}")),
            Self::Any => None,
        }
    }
}

/// How closely a pattern describes a host: the greater, the closer. A name is closer than any wildcard, a wildcard the closer the
/// longer it is (Gateway API, `HTTPRouteSpec.hostnames`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Specificity(u8, usize);

/// Something for each pattern.
#[derive(Debug, Clone)]
pub(crate) struct Hosts<T> {
    exact: HashMap<String, T>,
    one_label: HashMap<String, T>,
    suffixes: HashMap<String, T>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), one_label: HashMap::new(), suffixes: HashMap::new(), any: None }
    }
}

impl<T> Hosts<T> {
    /// What there is for a pattern, and `make()` where there was nothing.
    pub(crate) fn get_or_insert_with(&mut self, pattern: &HostPattern, make: impl FnOnce() -> T) -> &mut T {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_insert_with(make),
            HostPattern::OneLabel(suffix) => self.one_label.entry(suffix.clone()).or_insert_with(make),
            HostPattern::Suffix(suffix) => self.suffixes.entry(suffix.clone()).or_insert_with(make),
            HostPattern::Any => self.any.get_or_insert_with(make),
        }
    }

    /// Whether there is something for this very pattern.
    pub(crate) fn contains(&self, pattern: &HostPattern) -> bool {
        match pattern {
            HostPattern::Exact(name) => self.exact.contains_key(name),
            HostPattern::OneLabel(suffix) => self.one_label.contains_key(suffix),
            HostPattern::Suffix(suffix) => self.suffixes.contains_key(suffix),
            HostPattern::Any => self.any.is_some(),
        }
    }

    /// What there is for a host, which is in lower case: the closest first.
    pub(crate) fn matching<'a>(&'a self, host: &'a str) -> impl Iterator<Item = (Specificity, &'a T)> + 'a {
        let exact = self.exact.get(host).map(|found| (Specificity(3, host.len()), found));
        let suffixes = std::iter::successors(parent(host), |suffix| parent(suffix)).enumerate();
        let wildcards = suffixes.flat_map(|(depth, suffix)| {
            let one_label = if depth == 0 { self.one_label.get(suffix) } else { None };
            let one_label = one_label.map(|found| (Specificity(2, suffix.len()), found));
            let deeper = self.suffixes.get(suffix).map(|found| (Specificity(1, suffix.len()), found));
            one_label.into_iter().chain(deeper)
        });
        let any = self.any.as_ref().map(|found| (Specificity(0, 0), found));
        exact.into_iter().chain(wildcards).chain(any)
    }
}

/// A name without its first label.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent).filter(|parent| !parent.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_pattern_comes_first() {
        let mut hosts = Hosts::default();
        for name in ["foo.com", "a.foo.com", "*.foo.com", "*.com", "*"] {
            hosts.get_or_insert_with(&HostPattern::of_gateway(Some(name)), || format!("gateway {name}"));
            hosts.get_or_insert_with(&HostPattern::of_ingress(Some(name)), || format!("ingress {name}"));
        }
        let check = |host: &str, expected: &[&str]| {
            let found: Vec<(Specificity, &String)> = hosts.matching(host).collect();
            assert!(found.is_sorted_by(|one, next| one.0 > next.0), "{host}: {found:?}");
            let found: Vec<&str> = found.into_iter().map(|(_, name)| name.as_str()).collect();
            assert_eq!(found, expected, "{host}");
        };
        check("foo.com", &["gateway foo.com", "ingress *.com", "gateway *.com", "gateway *"]);
        check(
            "a.foo.com",
            &["gateway a.foo.com", "ingress *.foo.com", "gateway *.foo.com", "gateway *.com", "gateway *"],
        );
        // `*` is one label in an Ingress, and as many as you like for a Gateway.
        check("b.a.foo.com", &["gateway *.foo.com", "gateway *.com", "gateway *"]);
        check("xfoo.com", &["ingress *.com", "gateway *.com", "gateway *"]);
        check("com", &["gateway *"]);
        check("10.0.0.1", &["gateway *"]);
        check("", &["gateway *"]);
    }

    #[test]
    fn hostnames_that_listener_and_route_have_in_common() {
        let check = |listener: &str, route: &str, expected: Option<&str>| {
            let [listener, route] = [listener, route].map(|name| HostPattern::of_gateway(Some(name)));
            let expected = expected.map(|name| HostPattern::of_gateway(Some(name)));
            assert_eq!(listener.intersection(&route), expected, "{listener:?} {route:?}");
            assert_eq!(route.intersection(&listener), expected, "{route:?} {listener:?}");
        };
        check("", "", Some(""));
        check("", "foo.com", Some("foo.com"));
        check("*.foo.com", "", Some("*.foo.com"));
        check("foo.com", "Foo.com", Some("foo.com"));
        check("foo.com", "bar.com", None);
        check("*.foo.com", "a.foo.com", Some("a.foo.com"));
        check("*.foo.com", "b.a.foo.com", Some("b.a.foo.com"));
        check("*.foo.com", "foo.com", None);
        check("*.foo.com", "afoo.com", None);
        check("*.foo.com", "*.foo.com", Some("*.foo.com"));
        check("*.com", "*.foo.com", Some("*.foo.com"));
        check("*.foo.com", "*.bar.com", None);
        check("*.foo.com", "*.oo.com", None);
    }
}
