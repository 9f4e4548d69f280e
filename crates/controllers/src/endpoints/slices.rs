//! EndpointSlices of a Service: at most a hundred endpoints each, changed as little as possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::{self, HEADLESS_LABEL, TRIGGER_TIME};
use crate::{meta, pods};

/// The label that says who keeps a slice.
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// What it says of this controller's.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";

/// No slice has more endpoints.
const MAX_ENDPOINTS: usize = 100;

/// What a plan is made from.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The Pods that the Service selects.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The zones of their nodes.
    pub(crate) zones: BTreeMap<String, String>,
    /// The slices that this controller keeps for the Service.
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
}

/// One thing to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Create a slice, under a name that begins with its `generateName`.
    Create(Box<EndpointSlice>),
    /// Replace a slice.
    Replace(Box<EndpointSlice>),
    /// Delete a slice.
    Delete(Arc<EndpointSlice>),
}

/// Decides what the slices of `service` need. Nothing, if they are what they ought to be.
pub(crate) fn plan(snapshot: &Snapshot, service: &Service) -> Vec<Action> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut actions = Vec::new();
    for family in families(spec) {
        actions.extend(Family { snapshot, service, spec, family }.plan());
    }
    // Of a family that the Service no longer has, nothing stays.
    let wanted = families(spec);
    let stale = snapshot.slices.iter().filter(|slice| !wanted.contains(&slice.address_type.as_str()));
    actions.extend(stale.map(|slice| Action::Delete(Arc::clone(slice))));
    actions
}

fn families(spec: &ServiceSpec) -> Vec<&str> {
    match spec.ip_families.as_deref() {
        None | Some([]) => vec!["IPv4"],
        Some(families) => families.iter().map(String::as_str).collect(),
    }
}

struct Family<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    spec: &'a ServiceSpec,
    family: &'a str,
}

/// Endpoints that have the same ports, by what tells them apart.
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<Identity, Endpoint>,
}

type Identity = (Vec<String>, Option<String>);

/// A slice in the making.
struct Draft {
    /// What it replaces.
    existing: Option<Arc<EndpointSlice>>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Family<'_> {
    fn plan(&self) -> Vec<Action> {
        let mut spare: Vec<Arc<EndpointSlice>> =
            self.snapshot.slices.iter().filter(|slice| slice.address_type == self.family).cloned().collect();
        spare.sort_by(|a, b| meta::name(&**a).cmp(meta::name(&**b)));
        let mut changed_pods = Vec::new();
        let mut drafts = Vec::new();
        for group in self.groups() {
            drafts.extend(pack(group, &mut spare, &mut changed_pods));
        }
        // A Service without endpoints has one empty slice: it says that there are none.
        if drafts.is_empty() {
            drafts.push(Draft { existing: None, ports: Vec::new(), endpoints: Vec::new(), changed: true });
        }
        // Rather than to delete one slice and create another, the one becomes the other.
        for draft in drafts.iter_mut().filter(|draft| draft.existing.is_none()) {
            draft.existing = spare.pop();
        }
        let labels = self.labels();
        let trigger = self.trigger(&changed_pods);
        let mut actions: Vec<Action> = Vec::new();
        for draft in drafts {
            actions.extend(self.finish(draft, &labels, trigger));
        }
        actions.extend(spare.into_iter().map(Action::Delete));
        actions
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for pod in &self.snapshot.pods {
            let addresses = address::addresses(pod, self.family == "IPv6");
            if addresses.is_empty() {
                continue;
            }
            let ports = self.ports(pod);
            let endpoint = self.endpoint(pod, addresses);
            let (identity, group) = (identity(&endpoint), groups.iter_mut().find(|group| group.ports == ports));
            match group {
                Some(group) => {
                    group.endpoints.insert(identity, endpoint);
                }
                None => groups.push(Group { ports, endpoints: BTreeMap::from([(identity, endpoint)]) }),
            }
        }
        groups
    }

    fn ports(&self, pod: &Pod) -> Vec<EndpointPort> {
        let ports = self.spec.ports.iter().flatten().filter_map(|port| {
            Some(EndpointPort {
                // An empty name is a name.
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(address::target_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        });
        ports.collect()
    }

    fn endpoint(&self, pod: &Pod, addresses: Vec<String>) -> Endpoint {
        let serving = pods::is_ready(pod);
        let terminating = meta::is_deleting(pod);
        let node = pods::node_name(pod);
        Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                // Upstream: a Pod that is being deleted is not ready, for the sake of those who look no further.
                ready: Some(address::tolerates_unready(self.spec) || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: address::hostname(pod, self.service),
            node_name: node.map(str::to_owned),
            target_ref: Some(address::target(pod)),
            zone: node.and_then(|node| self.snapshot.zones.get(node).cloned()),
            ..Endpoint::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.metadata.labels.clone().unwrap_or_default();
        labels.insert(informer::SERVICE_NAME.to_owned(), meta::name(self.service).to_owned());
        labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
        if address::is_headless(self.spec) {
            labels.insert(HEADLESS_LABEL.to_owned(), String::new());
        } else {
            labels.remove(HEADLESS_LABEL);
        }
        labels
    }

    /// When the first of the changes happened that are about to be written.
    fn trigger(&self, changed: &[Identity]) -> Option<Timestamp> {
        let is_changed = |pod: &&Arc<Pod>| {
            let mut changed = changed.iter();
            changed.any(|(_, uid)| uid.as_deref() == Some(meta::uid(&***pod)))
        };
        let pods = self.snapshot.pods.iter().filter(is_changed);
        let service = self.service.metadata.creation_timestamp.as_ref();
        let created = service.filter(|_| self.snapshot.slices.is_empty()).map(|time| time.0);
        pods.filter_map(|pod| address::changed_at(pod)).chain(created).min()
    }

    fn finish(&self, draft: Draft, labels: &BTreeMap<String, String>, trigger: Option<Timestamp>) -> Option<Action> {
        let mut slice = EndpointSlice {
            address_type: self.family.to_owned(),
            endpoints: Some(draft.endpoints),
            ports: Some(draft.ports),
            metadata: ObjectMeta {
                namespace: self.service.metadata.namespace.clone(),
                generate_name: Some(format!("{}-", meta::name(self.service))),
                labels: Some(labels.clone()),
                owner_references: Some(vec![meta::controller_ref(self.service)]),
                ..ObjectMeta::default()
            },
        };
        let trigger = trigger.map(|time| (TRIGGER_TIME.to_owned(), time.to_string()));
        let Some(existing) = draft.existing else {
            slice.metadata.annotations = trigger.map(|trigger| BTreeMap::from([trigger]));
            return Some(Action::Create(Box::new(slice)));
        };
        let same_meta = existing.metadata.labels.as_ref() == Some(labels)
            && existing.metadata.owner_references == slice.metadata.owner_references;
        // A slice that became another (an empty one stays empty, say) may have become itself.
        let same_content = existing.ports.as_deref().unwrap_or_default() == slice.ports.as_deref().unwrap_or_default()
            && existing.endpoints.as_deref().unwrap_or_default() == slice.endpoints.as_deref().unwrap_or_default();
        let same = same_meta && (!draft.changed || same_content);
        if same {
            return None;
        }
        let mut metadata = existing.metadata.clone();
        metadata.labels = slice.metadata.labels;
        metadata.owner_references = slice.metadata.owner_references;
        metadata.managed_fields = None;
        let mut annotations = metadata.annotations.unwrap_or_default();
        match trigger {
            Some((key, value)) => annotations.insert(key, value),
            None => annotations.remove(TRIGGER_TIME),
        };
        metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        slice.metadata = metadata;
        Some(Action::Replace(Box::new(slice)))
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    let target = endpoint.target_ref.as_ref();
    (endpoint.addresses.clone(), target.and_then(|target| target.uid.clone()))
}

/// Shares the endpoints of `group` out among those of `spare` that have its ports, which it takes, and as many new
/// slices as are needed. Endpoints stay where they are; new ones go into slices that change anyway, then into the
/// fullest that have room. What is new or different is noted in `changed`.
fn pack(group: Group, spare: &mut Vec<Arc<EndpointSlice>>, changed: &mut Vec<Identity>) -> Vec<Draft> {
    let Group { ports, mut endpoints } = group;
    let mut drafts = Vec::new();
    let matching = |slice: &mut Arc<EndpointSlice>| slice.ports.as_deref().unwrap_or_default() == ports;
    for slice in spare.extract_if(.., matching) {
        let mut draft = Draft { existing: None, ports: ports.clone(), endpoints: Vec::new(), changed: false };
        for old in slice.endpoints.iter().flatten() {
            let identity = identity(old);
            match endpoints.remove(&identity) {
                Some(new) => {
                    if new != *old {
                        draft.changed = true;
                        changed.push(identity);
                    }
                    draft.endpoints.push(new);
                }
                None => draft.changed = true,
            }
        }
        draft.existing = Some(slice);
        drafts.push(draft);
    }
    changed.extend(endpoints.keys().cloned());
    drafts.sort_by_key(|draft| (!draft.changed, usize::MAX - draft.endpoints.len()));
    let mut new = endpoints.into_values().peekable();
    for draft in &mut drafts {
        while draft.endpoints.len() < MAX_ENDPOINTS
            && let Some(endpoint) = new.next()
        {
            draft.endpoints.push(endpoint);
            draft.changed = true;
        }
    }
    while new.peek().is_some() {
        let endpoints = new.by_ref().take(MAX_ENDPOINTS).collect();
        drafts.push(Draft { existing: None, ports: ports.clone(), endpoints, changed: true });
    }
    // An empty slice is of no use, unless as the beginning of another.
    for draft in drafts.extract_if(.., |draft| draft.endpoints.is_empty()) {
        spare.extend(draft.existing);
    }
    drafts
}
