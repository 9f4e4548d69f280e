//! EndpointSlices of a Service: at most a hundred endpoints each, changed as little as possible.
//!
//! [`plan`] finds the endpoints among the Pods that the Service selects. [`Family`] makes slices of endpoints, whoever found
//! them.

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
pub(crate) enum SliceWrite {
    /// Create a slice, under a name that begins with its `generateName`.
    Create(Box<EndpointSlice>),
    /// Replace a slice.
    Replace(Box<EndpointSlice>),
    /// Delete a slice.
    Delete(Arc<EndpointSlice>),
}

/// Decides what the slices of `service` need. Nothing, if they are what they ought to be.
pub(crate) fn plan(snapshot: &Snapshot, service: &Service) -> Vec<SliceWrite> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let source = Source { snapshot, service, spec };
    let template = source.template();
    let wanted = families(spec);
    let mut actions = Vec::new();
    for name in &wanted {
        let family =
            Family { name, template: &template, slices: &snapshot.slices, max: MAX_ENDPOINTS, keeps_empty: true };
        actions.extend(family.plan(source.groups(name), |changed| source.trigger(changed)));
    }
    // Of a family that the Service no longer has, nothing stays.
    let stale = snapshot.slices.iter().filter(|slice| !wanted.contains(&slice.address_type.as_str()));
    actions.extend(stale.map(|slice| SliceWrite::Delete(Arc::clone(slice))));
    actions
}

fn families(spec: &ServiceSpec) -> Vec<&str> {
    match spec.ip_families.as_deref() {
        None | Some([]) => vec!["IPv4"],
        Some(families) => families.iter().map(String::as_str).collect(),
    }
}

/// Endpoints that have the same ports, by what tells them apart.
pub(crate) struct Group {
    ports: Vec<EndpointPort>,
    endpoints: BTreeMap<Identity, Endpoint>,
}

pub(crate) type Identity = (Vec<String>, Option<String>);

/// Adds an endpoint to those of `groups` that have its ports.
pub(crate) fn add(groups: &mut Vec<Group>, ports: Vec<EndpointPort>, endpoint: Endpoint) {
    let identity = identity(&endpoint);
    match groups.iter_mut().find(|group| group.ports == ports) {
        Some(group) => {
            group.endpoints.insert(identity, endpoint);
        }
        None => groups.push(Group { ports, endpoints: BTreeMap::from([(identity, endpoint)]) }),
    }
}

/// What the endpoints of a Service are found by.
struct Source<'a> {
    snapshot: &'a Snapshot,
    service: &'a Service,
    spec: &'a ServiceSpec,
}

impl Source<'_> {
    fn groups(&self, family: &str) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for pod in &self.snapshot.pods {
            let addresses = address::addresses(pod, family == "IPv6");
            if !addresses.is_empty() {
                add(&mut groups, self.ports(pod), self.endpoint(pod, addresses));
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

    /// What all slices of the Service have in common.
    fn template(&self) -> ObjectMeta {
        let mut labels = self.service.metadata.labels.clone().unwrap_or_default();
        labels.insert(informer::SERVICE_NAME.to_owned(), meta::name(self.service).to_owned());
        labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
        if address::is_headless(self.spec) {
            labels.insert(HEADLESS_LABEL.to_owned(), String::new());
        } else {
            labels.remove(HEADLESS_LABEL);
        }
        ObjectMeta {
            namespace: self.service.metadata.namespace.clone(),
            generate_name: Some(format!("{}-", meta::name(self.service))),
            labels: Some(labels),
            owner_references: Some(vec![meta::controller_ref(self.service)]),
            ..ObjectMeta::default()
        }
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
}

/// The slices of one family of addresses.
pub(crate) struct Family<'a> {
    /// The type of the addresses.
    pub(crate) name: &'a str,
    /// What new slices begin with: the prefix of their name, labels, owner and annotations. Existing ones get its labels and
    /// owner, and its annotations if it has any to give.
    pub(crate) template: &'a ObjectMeta,
    /// All slices there are, of any family.
    pub(crate) slices: &'a [Arc<EndpointSlice>],
    /// No slice has more endpoints.
    pub(crate) max: usize,
    /// Whether one empty slice says that there are no endpoints.
    pub(crate) keeps_empty: bool,
}

/// A slice in the making.
struct Draft {
    /// What it replaces.
    existing: Option<Arc<EndpointSlice>>,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Family<'_> {
    /// Decides what the slices need for these endpoints. `trigger` tells when what has changed did so.
    pub(crate) fn plan(
        &self,
        groups: Vec<Group>,
        trigger: impl FnOnce(&[Identity]) -> Option<Timestamp>,
    ) -> Vec<SliceWrite> {
        let mut spare: Vec<Arc<EndpointSlice>> =
            self.slices.iter().filter(|slice| slice.address_type == self.name).cloned().collect();
        spare.sort_by(|a, b| meta::name(&**a).cmp(meta::name(&**b)));
        let mut changed = Vec::new();
        let mut drafts = Vec::new();
        for group in groups {
            drafts.extend(pack(group, self.max, &mut spare, &mut changed));
        }
        if drafts.is_empty() && self.keeps_empty {
            drafts.push(Draft { existing: None, ports: Vec::new(), endpoints: Vec::new(), changed: true });
        }
        // Rather than to delete one slice and create another, the one becomes the other.
        for draft in drafts.iter_mut().filter(|draft| draft.existing.is_none()) {
            draft.existing = spare.pop();
        }
        let trigger = trigger(&changed);
        let mut actions: Vec<SliceWrite> = Vec::new();
        for draft in drafts {
            actions.extend(self.finish(draft, trigger));
        }
        actions.extend(spare.into_iter().map(SliceWrite::Delete));
        actions
    }

    fn finish(&self, draft: Draft, trigger: Option<Timestamp>) -> Option<SliceWrite> {
        let mut slice = EndpointSlice {
            address_type: self.name.to_owned(),
            endpoints: Some(draft.endpoints),
            ports: Some(draft.ports),
            metadata: self.template.clone(),
        };
        let given = self.template.annotations.as_ref();
        let current = draft.existing.as_ref().and_then(|existing| existing.metadata.annotations.as_ref());
        let mut annotations = given.or(current).cloned().unwrap_or_default();
        match trigger {
            Some(time) => annotations.insert(TRIGGER_TIME.to_owned(), time.to_string()),
            None => annotations.remove(TRIGGER_TIME),
        };
        slice.metadata.annotations = (!annotations.is_empty()).then_some(annotations);
        let Some(existing) = draft.existing.as_deref() else {
            return Some(SliceWrite::Create(Box::new(slice)));
        };
        let lasting = |annotations: &BTreeMap<String, String>| {
            let mut annotations = annotations.clone();
            annotations.remove(TRIGGER_TIME);
            annotations
        };
        let same_meta = existing.metadata.labels == slice.metadata.labels
            && existing.metadata.owner_references == slice.metadata.owner_references
            && given.is_none_or(|given| *given == current.map(lasting).unwrap_or_default());
        // A slice that became another (an empty one stays empty, say) may have become itself.
        let same_content = existing.ports.as_deref().unwrap_or_default() == slice.ports.as_deref().unwrap_or_default()
            && existing.endpoints.as_deref().unwrap_or_default() == slice.endpoints.as_deref().unwrap_or_default();
        if same_meta && (!draft.changed || same_content) {
            return None;
        }
        slice.metadata = ObjectMeta {
            labels: slice.metadata.labels,
            owner_references: slice.metadata.owner_references,
            annotations: slice.metadata.annotations,
            managed_fields: None,
            ..existing.metadata.clone()
        };
        Some(SliceWrite::Replace(Box::new(slice)))
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    let target = endpoint.target_ref.as_ref();
    (endpoint.addresses.clone(), target.and_then(|target| target.uid.clone()))
}

/// Shares the endpoints of `group` out among those of `spare` that have its ports, which it takes, and as many new
/// slices as are needed. Endpoints stay where they are; new ones go into slices that change anyway, then into the
/// fullest that have room. What is new or different is noted in `changed`.
fn pack(group: Group, max: usize, spare: &mut Vec<Arc<EndpointSlice>>, changed: &mut Vec<Identity>) -> Vec<Draft> {
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
        while draft.endpoints.len() < max
            && let Some(endpoint) = new.next()
        {
            draft.endpoints.push(endpoint);
            draft.changed = true;
        }
    }
    while new.peek().is_some() {
        let endpoints = new.by_ref().take(max).collect();
        drafts.push(Draft { existing: None, ports: ports.clone(), endpoints, changed: true });
    }
    // An empty slice is of no use, unless as the beginning of another.
    for draft in drafts.extract_if(.., |draft| draft.endpoints.is_empty()) {
        spare.extend(draft.existing);
    }
    drafts
}
