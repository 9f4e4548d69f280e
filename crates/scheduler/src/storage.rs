//! Claims, volumes and storage classes, as far as the choice of a node depends on them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, VolumeResourceRequirements};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::placement::selects;
use machinery::quantity::Quantity;
use machinery::selector::LabelSelector;
use machinery::well_known::BIND_COMPLETED;

use crate::types::{NodeInfo, Refusal};

/// The provisioner of classes whose volumes somebody makes by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";

/// What there is.
#[derive(Default)]
pub struct Storage {
    /// By `NAMESPACE/NAME`.
    pub claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    /// By name.
    pub volumes: HashMap<String, Arc<PersistentVolume>>,
    /// By name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that are promised to a claim (`NAMESPACE/NAME`), before the API server has heard of it.
    pub reserved: HashMap<String, String>,
}

/// What is known of a claim.
pub(crate) enum Claim<'a> {
    /// It asks for this.
    Needs(Need<'a>),
    /// No node will do, in upstream's words.
    Impossible(String),
}

/// What a claim needs of a node.
pub(crate) enum Need<'a> {
    /// To reach this volume, if it is there at all.
    Bound(Option<&'a PersistentVolume>),
    /// A volume that is found or made once the node is known.
    Later(&'a str, &'a PersistentVolumeClaim, &'a StorageClass),
    /// To be bound by others first.
    Elsewhere,
}

/// What is to be done for a claim before its pod is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Bind this volume to the claim `NAMESPACE/NAME`.
    Volume {
        /// The volume's name.
        volume: String,
        /// The claim.
        claim: String,
    },
    /// Have a volume made for the claim `NAMESPACE/NAME` on the pod's node.
    Provision {
        /// The claim.
        claim: String,
    },
}

impl Storage {
    /// What is known of the claim `NAMESPACE/NAME`.
    pub(crate) fn claim<'a>(&'a self, key: &'a str) -> Claim<'a> {
        let name = key.split_once('/').map_or(key, |(_, name)| name);
        let Some(claim) = self.claims.get(key) else {
            return Claim::Impossible(format!("persistentvolumeclaim \"{name}\" not found"));
        };
        let lost = claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Lost"));
        let volume = volume_of(claim);
        if lost {
            return Claim::Impossible(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{}\"",
                volume.unwrap_or_default()
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Claim::Impossible(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        if is_bound(claim) {
            return Claim::Needs(Need::Bound(volume.and_then(|name| self.volumes.get(name)).map(Arc::as_ref)));
        }
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
        let class = class.and_then(|class| self.classes.get(class));
        Claim::Needs(match class {
            Some(class) if volume.is_none() && class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
                Need::Later(key, claim, class)
            }
            _ => Need::Elsewhere,
        })
    }

    /// Whether all `needs` can be met on `node`, and what is to be done for it.
    pub(crate) fn fit(&self, needs: &[Need<'_>], node: &NodeInfo) -> Result<Vec<Promise>, Refusal> {
        let mut promises: Vec<Promise> = Vec::new();
        for need in needs {
            match need {
                Need::Elsewhere => {}
                Need::Bound(None) => {
                    return Err(refuse("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
                }
                Need::Bound(Some(volume)) if !reaches(volume, node) => {
                    return Err(refuse("node(s) didn't match PersistentVolume's node affinity"));
                }
                Need::Bound(Some(_)) => {}
                Need::Later(key, claim, class) => {
                    let taken = |name: &str| {
                        promises.iter().any(|it| matches!(it, Promise::Volume { volume, .. } if volume == name))
                    };
                    let claim_key = (*key).to_owned();
                    if let Some(volume) = self.volume_for(key, claim, node, taken) {
                        promises.push(Promise::Volume { volume, claim: claim_key });
                    } else if class.provisioner != BY_HAND && allowed(class, node) {
                        promises.push(Promise::Provision { claim: claim_key });
                    } else {
                        return Err(refuse("node(s) didn't find available persistent volumes to bind"));
                    }
                }
            }
        }
        Ok(promises)
    }

    /// What is to be done for these claims, on a node that all of them can be met on.
    pub(crate) fn promises(&self, claims: &[String], node: &NodeInfo) -> Vec<Promise> {
        let needs = claims.iter().filter_map(|claim| match self.claim(claim) {
            Claim::Needs(need) => Some(need),
            Claim::Impossible(_) => None,
        });
        self.fit(&needs.collect::<Vec<_>>(), node).unwrap_or_default()
    }

    /// The smallest volume that exists already and will do.
    fn volume_for(
        &self,
        key: &str,
        claim: &PersistentVolumeClaim,
        node: &NodeInfo,
        taken: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let wanted = claim.spec.as_ref()?;
        let class = wanted.storage_class_name.as_deref().unwrap_or_default();
        let size = requested(wanted.resources.as_ref());
        let selector = match &wanted.selector {
            None => LabelSelector::everything(),
            Some(selector) => LabelSelector::from_object(Some(selector)).ok()?,
        };
        let fits = |name: &str, volume: &PersistentVolume| {
            let Some(spec) = &volume.spec else {
                return false;
            };
            let block = |mode: &Option<String>| mode.as_deref() == Some("Block");
            let modes = |mode: &String| spec.access_modes.as_ref().is_some_and(|modes| modes.contains(mode));
            let claimed = spec.claim_ref.as_ref().is_none_or(|held| {
                let held = format!(
                    "{}/{}",
                    held.namespace.as_deref().unwrap_or_default(),
                    held.name.as_deref().unwrap_or_default()
                );
                held == key
            });
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            spec.storage_class_name.as_deref().unwrap_or_default() == class
                && claimed
                && matches!(phase, None | Some("Available" | "Pending"))
                && volume.metadata.deletion_timestamp.is_none()
                && !taken(name)
                && self.reserved.get(name).is_none_or(|reserved| reserved == key)
                && block(&spec.volume_mode) == block(&wanted.volume_mode)
                && wanted.access_modes.iter().flatten().all(modes)
                && selector.matches_option(volume.metadata.labels.as_ref())
                && capacity(volume) >= size
                && reaches(volume, node)
        };
        let fitting = self.volumes.iter().filter(|(name, volume)| fits(name, volume));
        let smallest = fitting.min_by_key(|(name, volume)| (capacity(volume), (*name).clone()));
        smallest.map(|(name, _)| name.clone())
    }
}

fn refuse(why: &'static str) -> Refusal {
    Refusal::unresolvable(Cow::Borrowed(why))
}

/// The volume that a claim names.
fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a claim has its volume, and both know it.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    let complete = annotations.is_some_and(|annotations| annotations.contains_key(BIND_COMPLETED))
        || claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"));
    volume_of(claim).is_some() && complete
}

fn requested(resources: Option<&VolumeResourceRequirements>) -> i64 {
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let storage = requests.and_then(|requests| requests.get("storage"));
    storage.and_then(|quantity| Quantity::try_from(quantity).ok()).map_or(0, |quantity| quantity.value())
}

fn capacity(volume: &PersistentVolume) -> i64 {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    let storage = capacity.and_then(|capacity| capacity.get("storage"));
    storage.and_then(|quantity| Quantity::try_from(quantity).ok()).map_or(0, |quantity| quantity.value())
}

/// Whether the volume can be had on `node`.
fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| selects(required, &node.node))
}

/// Whether volumes of the class may be made for `node`.
fn allowed(class: &StorageClass, node: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    let meets = |term: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
        let mut demands = term.match_label_expressions.iter().flatten();
        demands.all(|demand| node.label(&demand.key).is_some_and(|value| demand.values.iter().any(|it| it == value)))
    };
    terms.is_empty() || terms.iter().any(meets)
}
