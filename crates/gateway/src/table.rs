//! The routing table: what listens where, and which rule a request is answered by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::hosts::{HostPattern, Hosts};
use crate::route::{Action, Rule, Wanted};

/// All rules. Made anew when an object changes, and exchanged as a whole: a request sees one state of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By where their connections come in.
    pub(crate) entry_points: BTreeMap<Place, Arc<EntryPoint>>,
}

/// Where connections come in, as objects say it: port 80 is the one for HTTP, which may be another on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// What is answered at a place.
#[derive(Debug, Default)]
pub(crate) struct EntryPoint {
    /// The certificates; none where no TLS is spoken.
    pub(crate) tls: Option<Certificates>,
    /// The rules of HTTPRoutes, by the hostnames of listeners and then by their own. A request is for one listener, the closest,
    /// and for no other ("listener isolation", `apis/v1/gateway_types.go`).
    pub(crate) listeners: Hosts<Hosts<Rules>>,
    /// The rules of Ingresses.
    pub(crate) ingresses: Hosts<Rules>,
    /// Where Ingresses lead what no rule matches.
    pub(crate) defaults: Hosts<Rules>,
}

/// The certificates of a place.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// By the name that clients ask for (SNI).
    pub(crate) by_host: Hosts<Arc<CertifiedKey>>,
    /// Whether others get the default certificate. Otherwise their handshake fails.
    pub(crate) or_default: bool,
}

/// The rules for a host, by precedence.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Adds a rule, whose place is its precedence.
    pub(crate) fn add(&mut self, rule: Rule) {
        let at = self.0.partition_point(|other| other.precedence <= rule.precedence);
        self.0.insert(at, rule);
    }

    fn find(&self, request: &Wanted<'_>) -> Option<&Arc<Action>> {
        self.0.iter().find(|rule| rule.matches.matches(request)).map(|rule| &rule.action)
    }
}

impl EntryPoint {
    /// One with TLS.
    pub(crate) fn with_tls() -> Self {
        Self { tls: Some(Certificates::default()), ..Self::default() }
    }

    /// The rules of Ingresses for a host.
    pub(crate) fn ingress(&mut self, host: &HostPattern) -> &mut Rules {
        self.ingresses.get_or_insert_with(host, Rules::default)
    }

    /// What Ingresses do with what no rule for a host matches.
    pub(crate) fn default_for(&mut self, host: &HostPattern) -> &mut Rules {
        self.defaults.get_or_insert_with(host, Rules::default)
    }

    /// Whether a client that asked for a host by this name (SNI), in lower case, gets to a listener other than that of its
    /// request: it has used a connection again that a certificate seemed to allow it for (GEP-3567).
    pub(crate) fn is_misdirected(&self, server_name: &str, host: &str) -> bool {
        let listener = |host| self.listeners.matching(host).next().map(|(_, routes)| std::ptr::from_ref(routes));
        listener(server_name) != listener(host)
    }

    /// What becomes of a request. Rules for closer hosts come first, whatever object they are of; one that matches by its host but
    /// not otherwise leaves the request to the next.
    pub(crate) fn find<'a>(&'a self, request: &Wanted<'a>) -> Option<&'a Arc<Action>> {
        let listener = self.listeners.matching(request.host).next().map(|(_, routes)| routes);
        let mut routes = listener.into_iter().flat_map(|routes| routes.matching(request.host)).peekable();
        let mut ingresses = self.ingresses.matching(request.host).peekable();
        loop {
            let is_route = match (routes.peek(), ingresses.peek()) {
                (Some((route, _)), Some((ingress, _))) => route >= ingress,
                (route, _) => route.is_some(),
            };
            let Some((_, rules)) = (if is_route { routes.next() } else { ingresses.next() }) else { break };
            if let Some(action) = rules.find(request) {
                return Some(action);
            }
        }
        self.defaults.matching(request.host).find_map(|(_, rules)| rules.find(request))
    }
}
