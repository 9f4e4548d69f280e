//! From policies, pods and namespaces to what each isolated pod may receive and send. Pure.
//!
//! A pod that a policy selects for a direction is isolated in that direction: what no rule of any such policy allows is
//! refused. Pods that the same policies select share one [`Allowed`]: a Deployment of a thousand pods is as much work, and
//! as many rules of the kernel, as one of three.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use machinery::LabelSelector;

use super::peers::{Peers, PodAt, Population, Port, PortsOf, named_ports, selector};
use super::ranges::{Addresses, EVERYWHERE, Ports, divide, union};
use crate::service::Protocol;

/// What isolated pods may receive and send; all other pods may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Model {
    /// Each once.
    pub(super) allowed: Vec<Allowed>,
    /// Pods isolated for ingress: the number of their entry in `allowed`.
    pub(super) ingress: BTreeMap<Ipv4Addr, usize>,
    /// Pods isolated for egress, likewise.
    pub(super) egress: BTreeMap<Ipv4Addr, usize>,
}

impl Model {
    /// How many pods are isolated.
    pub(super) fn isolated(&self) -> usize {
        self.ingress.keys().chain(self.egress.keys()).collect::<BTreeSet<_>>().len()
    }

    /// Whether no pod is.
    pub(super) fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }
}

/// What passes between a pod and others, in one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Allowed {
    /// Others with whom everything passes. They do not overlap.
    pub(super) all: Vec<Addresses>,
    /// Others, and ports of the receiver. They do not overlap.
    pub(super) ports: Vec<(Addresses, Ports)>,
}

/// What a pod is isolated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Ingress,
    Egress,
}

/// What of a policy matters here.
struct Policy {
    selector: LabelSelector,
    /// `None`: it does not isolate for this direction.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

struct Rule {
    peers: Peers,
    ports: PortsOf,
}

impl Policy {
    fn new(policy: &NetworkPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let (ingress, egress) = (spec.ingress.unwrap_or_default(), spec.egress.unwrap_or_default());
        // upstream: `SetDefaults_NetworkPolicy` in `pkg/apis/networking/v1/defaults.go`.
        let types = spec.policy_types.filter(|types| !types.is_empty()).unwrap_or_else(|| {
            let egress = (!egress.is_empty()).then_some("Egress");
            ["Ingress"].into_iter().chain(egress).map(str::to_owned).collect()
        });
        let has = |name: &str| types.iter().any(|type_| type_ == name);
        let ingress = ingress
            .iter()
            .map(|rule| Rule { peers: Peers::new(rule.from.as_deref()), ports: PortsOf::new(rule.ports.as_deref()) });
        let egress = egress
            .iter()
            .map(|rule| Rule { peers: Peers::new(rule.to.as_deref()), ports: PortsOf::new(rule.ports.as_deref()) });
        Self {
            // None given is as good as an empty one: all pods of the namespace.
            selector: spec.pod_selector.as_ref().map_or_else(LabelSelector::default, |object| selector(Some(object))),
            ingress: has("Ingress").then(|| ingress.collect()),
            egress: has("Egress").then(|| egress.collect()),
        }
    }

    fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// Pods with the same key have the same [`Allowed`]: their namespace, the numbers of the policies that select them, and
/// what they call their ports, where a policy asks.
type Group<'a> = (Direction, &'a str, Vec<usize>, BTreeSet<(&'a str, Protocol, u16)>);

/// What policies make of pods.
pub(super) fn compile<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
    namespaces: impl IntoIterator<Item = &'a Namespace>,
    pods: impl IntoIterator<Item = &'a Pod>,
) -> Model {
    let population = Population::new(namespaces, pods);
    let mut by_namespace: BTreeMap<&str, Vec<Policy>> = BTreeMap::new();
    for policy in policies {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        by_namespace.entry(namespace).or_default().push(Policy::new(policy));
    }
    let mut model = Model::default();
    let mut groups: BTreeMap<Group<'_>, usize> = BTreeMap::new();
    let mut numbers: BTreeMap<Allowed, usize> = BTreeMap::new();
    for (namespace, policies) in &by_namespace {
        for pod in population.of_namespace(namespace) {
            let selecting: Vec<usize> =
                (0..policies.len()).filter(|n| pod.is_selected(&policies[*n].selector)).collect();
            for direction in [Direction::Ingress, Direction::Egress] {
                let isolating: Vec<usize> =
                    selecting.iter().copied().filter(|n| policies[*n].rules(direction).is_some()).collect();
                if isolating.is_empty() {
                    continue;
                }
                let rules = || isolating.iter().filter_map(|n| policies[*n].rules(direction)).flatten();
                // A port by name is the receiver's: for ingress the pod itself.
                let asks = direction == Direction::Ingress && rules().any(|rule| rule.ports.has_names());
                let named = if asks { named_ports(pod.pod).collect() } else { BTreeSet::new() };
                let group = (direction, *namespace, isolating.clone(), named);
                let number = *groups.entry(group).or_insert_with(|| {
                    let allowed = allowed(direction, *pod, rules(), &population);
                    let next = numbers.len();
                    *numbers.entry(allowed).or_insert(next)
                });
                match direction {
                    Direction::Ingress => model.ingress.insert(pod.address, number),
                    Direction::Egress => model.egress.insert(pod.address, number),
                };
            }
        }
    }
    let mut allowed: Vec<(Allowed, usize)> = numbers.into_iter().collect();
    allowed.sort_unstable_by_key(|(_, number)| *number);
    model.allowed = allowed.into_iter().map(|(allowed, _)| allowed).collect();
    model
}

/// What these rules together allow to a pod, or to any other of its group.
fn allowed<'a>(
    direction: Direction,
    pod: PodAt<'_>,
    rules: impl Iterator<Item = &'a Rule>,
    population: &Population<'_>,
) -> Allowed {
    let (mut all, mut pairs) = (Vec::new(), BTreeSet::new());
    for Rule { peers, ports } in rules {
        let addresses = peers.addresses(pod.namespace, population);
        let PortsOf::These(ports) = ports else {
            all.extend(addresses);
            continue;
        };
        for port in ports {
            match (port, direction) {
                (Port::Numbers(_), _) | (Port::Named(..), Direction::Ingress) => {
                    for ports in port.at(pod) {
                        pairs.extend(addresses.iter().map(|range| (*range, ports)));
                    }
                }
                // Whoever is no pod has no names for ports.
                (Port::Named(..), Direction::Egress) => {
                    for peer in peers.pods(pod.namespace, population) {
                        pairs.extend(port.at(peer).into_iter().map(|ports| ((peer.address, peer.address), ports)));
                    }
                }
            }
        }
    }
    let all = union(all);
    if all == [EVERYWHERE] {
        pairs.clear();
    }
    Allowed { all, ports: divide(&pairs) }
}
