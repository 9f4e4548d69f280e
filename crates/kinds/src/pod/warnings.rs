//! What is legal in a pod, or in a template of pods, and probably not meant: told to the client, refused by nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, Volume,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use machinery::field::Path;
use machinery::validate;

use super::{Object, unenforced};
use crate::common::{blank, entries, entry, list, quantity, text};

/// Labels of nodes that have another name by now.
const OLD_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

/// Annotations that became fields.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const SECCOMP_GONE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR_OF_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
/// How many warnings a writer gets at most.
const MAX_WARNINGS: usize = 100;
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Of a pod that is created. Updates are not looked at: they are many, and nearly all made by programs.
pub(super) fn of_pod(pod: &Object) -> Vec<String> {
    let mut warnings = Warnings { at: None, said: Vec::new() };
    warnings.name(&pod.metadata, "the Pod's hostname");
    if let Some(spec) = &pod.spec {
        warnings.examine(spec, Some(&pod.metadata));
    }
    warnings.said
}

/// Of a workload and the template at `path` in it: when it is created, and when its generation is another than before.
/// Where `names_pods`, the pods are named after it.
pub(crate) fn of_template<K: Metadata<Ty = ObjectMeta>>(
    new: &K,
    old: Option<&K>,
    names_pods: bool,
    path: &[&'static str],
    template: Option<&PodTemplateSpec>,
) -> Vec<String> {
    let (new, old) = (new.metadata(), old.map(Metadata::metadata));
    let Some(template) = template.filter(|_| old.is_none_or(|old| old.generation != new.generation)) else {
        return Vec::new();
    };
    let mut steps = path.iter().copied();
    let at = steps.next().map(|first| steps.fold(Path::new(first), |path, step| path.child(step)));
    let mut warnings = Warnings { at, said: Vec::new() };
    if names_pods && old.is_none() {
        warnings.name(new, "Pod names and hostnames");
    }
    if let Some(spec) = &template.spec {
        warnings.examine(spec, template.metadata.as_ref());
    }
    warnings.said
}

/// What has been found. Paths are made for what is found only.
pub(super) struct Warnings {
    /// Where the template is; a pod is its own.
    at: Option<Path>,
    said: Vec<String>,
}

impl Warnings {
    pub(super) fn path(&self, first: &'static str) -> Path {
        self.at.as_ref().map_or_else(|| Path::new(first), |at| at.child(first))
    }

    pub(super) fn say(&mut self, path: &Path, what: impl std::fmt::Display) {
        if !self.is_full() {
            self.said.push(format!("{path}: {what}"));
        }
    }

    /// Whether nobody will read more. Ports are compared with each other: the warnings about a pod may be many more than
    /// it has parts.
    fn is_full(&self) -> bool {
        self.said.len() >= MAX_WARNINGS
    }

    fn name(&mut self, meta: &ObjectMeta, of: &str) {
        let problems = validate::dns_label(text(&meta.name));
        if !problems.is_empty() {
            let problems = problems.join(" ");
            let what = format!("this is used in {of}, which can result in surprising behavior");
            self.said.push(format!("metadata.name: {what}; a DNS label is recommended: [{problems}]"));
        }
    }

    fn examine(&mut self, spec: &PodSpec, meta: Option<&ObjectMeta>) {
        self.node_labels(spec);
        self.annotations(meta);
        for (index, volume) in list(&spec.volumes).iter().enumerate() {
            self.volume(index, volume);
        }
        self.repeated(spec);
        for name in ["memory", "ephemeral-storage"] {
            if let Some(amount) = entry(&spec.overhead, name).and_then(fraction) {
                let path = self.path("spec").child("overhead").key(name);
                self.say(&path, amount);
            }
        }
        let context = spec.security_context.as_ref();
        if context.is_none_or(|context| context.seccomp_profile.is_none()) {
            self.annotated(meta, SECCOMP_OF_POD, SECCOMP_GONE);
        }
        let armored = context.is_some_and(|context| context.app_armor_profile.is_some());
        for (field, index, container) in containers(spec) {
            self.container(field, index, container);
            self.security(container, meta, armored);
            unenforced::of_container(self, container, |warnings| warnings.path("spec").child(field).index(index));
        }
        self.ports(spec);
        if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
            let path = self.path("spec").child("terminationGracePeriodSeconds");
            self.say(&path, "must be >= 0; negative values are invalid and will be treated as 1");
        }
        if let Some(affinity) = &spec.affinity {
            self.affinity(affinity);
        }
        unenforced::of_spec(self, spec);
    }

    fn node_labels(&mut self, spec: &PodSpec) {
        for (key, _) in entries(&spec.node_selector) {
            if let Some(advice) = advice_on(key) {
                let path = self.path("spec").child("nodeSelector").key(key.as_str());
                self.say(&path, advice);
            }
        }
        if let Some(affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
            let path = |warnings: &Self| warnings.path("spec").child("affinity").child("nodeAffinity");
            let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
            let terms = required.map(|selector| selector.node_selector_terms.as_slice()).unwrap_or_default();
            for (index, term) in terms.iter().enumerate() {
                let path = |warnings: &Self| {
                    let required = path(warnings).child("requiredDuringSchedulingIgnoredDuringExecution");
                    required.child("nodeSelectorTerms").index(index)
                };
                self.node_term(term, path);
            }
            let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
            for (index, term) in list(preferred).iter().enumerate() {
                let path = |warnings: &Self| {
                    let preferred = path(warnings).child("preferredDuringSchedulingIgnoredDuringExecution");
                    preferred.index(index).child("preference")
                };
                self.node_term(&term.preference, path);
            }
        }
        for (index, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
            let path = |warnings: &Self| warnings.path("spec").child("topologySpreadConstraints").index(index);
            if let Some(advice) = advice_on(&constraint.topology_key) {
                let path = path(self).child("topologyKey");
                self.say(&path, format_args!("{} is {advice}", constraint.topology_key));
            }
            if constraint.label_selector.is_none() {
                let path = path(self).child("labelSelector");
                self.say(&path, NO_SELECTOR);
            }
        }
    }

    fn node_term(&mut self, term: &NodeSelectorTerm, path: impl Fn(&Self) -> Path) {
        for (index, expression) in list(&term.match_expressions).iter().enumerate() {
            if let Some(advice) = advice_on(&expression.key) {
                let path = path(self).child("matchExpressions").index(index).child("key");
                self.say(&path, format_args!("{} is {advice}", expression.key));
            }
        }
    }

    fn annotations(&mut self, meta: Option<&ObjectMeta>) {
        for (key, advice) in OLD_ANNOTATIONS {
            self.annotated(meta, key, advice);
        }
    }

    fn annotated(&mut self, meta: Option<&ObjectMeta>, key: &str, advice: &str) {
        if meta.is_some_and(|meta| entry(&meta.annotations, key).is_some()) {
            let path = self.path("metadata").child("annotations").key(key);
            self.say(&path, advice);
        }
    }

    fn volume(&mut self, index: usize, volume: &Volume) {
        for (field, used, advice) in [
            (
                "photonPersistentDisk",
                volume.photon_persistent_disk.is_some(),
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
            ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if used {
                let path = self.path("spec").child("volumes").index(index).child(field);
                self.say(&path, advice);
            }
        }
    }

    fn repeated(&mut self, spec: &PodSpec) {
        let mut seen = BTreeSet::new();
        for (index, alias) in list(&spec.host_aliases).iter().enumerate() {
            if !seen.insert(&alias.ip) {
                let path = self.path("spec").child("hostAliases").index(index).child("ip");
                self.say(&path, format_args!("duplicate ip {:?}", alias.ip));
            }
        }
        let mut seen = BTreeSet::new();
        let secrets = || list(&spec.image_pull_secrets).iter().map(|secret| secret.name.as_str()).enumerate();
        let path = |warnings: &Self, index| {
            let secrets = warnings.path("spec").child("imagePullSecrets");
            secrets.index(index).child("name")
        };
        for (index, name) in secrets() {
            if !seen.insert(name) {
                let path = path(self, index);
                self.say(&path, format_args!("duplicate name {name:?}"));
            }
        }
        for (index, _) in secrets().filter(|(_, name)| name.is_empty()) {
            let path = path(self, index);
            self.say(&path, "invalid empty name \"\"");
        }
    }

    fn container(&mut self, field: &'static str, index: usize, container: &Container) {
        let path = |warnings: &Self| warnings.path("spec").child(field).index(index);
        if let Some(resources) = &container.resources {
            for name in ["memory", "ephemeral-storage"] {
                for (part, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
                    if let Some(amount) = entry(amounts, name).and_then(fraction) {
                        let path = path(self).child("resources").child(part).key(name);
                        self.say(&path, amount);
                    }
                }
            }
        }
        let mut seen = BTreeSet::new();
        for (index, variable) in list(&container.env).iter().enumerate() {
            if seen.insert(&variable.name) {
                continue;
            }
            // It may add to what was there before; X="$(X)" alone does not.
            let before = format!("$({})", variable.name);
            let value = text(&variable.value);
            if variable.value_from.is_some() || value == before || !value.contains(&before) {
                let path = path(self).child("env").index(index);
                let what = "which may be dropped when using apply";
                self.say(&path, format_args!("hides previous definition of {:?}, {what}", variable.name));
            }
        }
    }

    fn security(&mut self, container: &Container, meta: Option<&ObjectMeta>, armored: bool) {
        let context = container.security_context.as_ref();
        if context.is_none_or(|context| context.seccomp_profile.is_none()) {
            self.annotated(meta, &format!("{SECCOMP_OF_CONTAINER}{}", container.name), SECCOMP_GONE);
        }
        let armored = armored || context.is_some_and(|context| context.app_armor_profile.is_some());
        if self.at.is_some() && !armored {
            let advice = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            self.annotated(meta, &format!("{APP_ARMOR_OF_CONTAINER}{}", container.name), advice);
        }
    }

    /// Ports that more than one entry is about, in the whole pod.
    fn ports(&mut self, spec: &PodSpec) {
        let mut known: BTreeMap<(i32, &str), Vec<(Spot, &ContainerPort)>> = BTreeMap::new();
        for (field, index, container) in containers(spec) {
            for (position, port) in list(&container.ports).iter().enumerate() {
                let spot = Spot { field, index, position };
                if !blank(&port.host_ip) && host_port(port) == 0 {
                    let path = self.spot(spot);
                    self.say(&path, format_args!("hostIP set without hostPort: {}", in_go(port)));
                }
                let others = known.entry((port.container_port, text(&port.protocol))).or_default();
                if self.is_full() {
                    return;
                }
                for (other, at) in others.iter() {
                    let (here, there) = (text(&port.host_ip), text(&at.host_ip));
                    let (mine, theirs) = (host_port(port), host_port(at));
                    let what = if here == there && mine == theirs {
                        "duplicate port definition"
                    } else if mine == 0 || theirs == 0 {
                        "overlapping port definition"
                    } else if mine == theirs && (here.is_empty() != there.is_empty()) {
                        "dangerously ambiguous port definition"
                    } else {
                        continue;
                    };
                    let (path, other) = (self.spot(spot), self.spot(*other));
                    self.say(&path, format_args!("{what} with {other}"));
                }
                others.push((spot, port));
            }
        }
    }

    fn spot(&self, spot: Spot) -> Path {
        self.path("spec").child(spot.field).index(spot.index).child("ports").index(spot.position)
    }

    fn affinity(&mut self, affinity: &Affinity) {
        let together = affinity.pod_affinity.as_ref().map(|terms| {
            (
                "podAffinity",
                &terms.required_during_scheduling_ignored_during_execution,
                &terms.preferred_during_scheduling_ignored_during_execution,
            )
        });
        let apart = affinity.pod_anti_affinity.as_ref().map(|terms| {
            (
                "podAntiAffinity",
                &terms.required_during_scheduling_ignored_during_execution,
                &terms.preferred_during_scheduling_ignored_during_execution,
            )
        });
        for (field, required, preferred) in together.into_iter().chain(apart) {
            let at = self.path("spec").child("affinity").child(field);
            let path = at.child("requiredDuringSchedulingIgnoredDuringExecution");
            for (index, PodAffinityTerm { label_selector, .. }) in list(required).iter().enumerate() {
                if label_selector.is_none() {
                    self.say(&path.index(index).child("labelSelector"), NO_SELECTOR);
                }
            }
            let path = at.child("preferredDuringSchedulingIgnoredDuringExecution");
            for (index, WeightedPodAffinityTerm { pod_affinity_term, .. }) in list(preferred).iter().enumerate() {
                if pod_affinity_term.label_selector.is_none() {
                    self.say(&path.index(index).child("podAffinityTerm").child("labelSelector"), NO_SELECTOR);
                }
            }
        }
    }
}

/// Where a port is.
#[derive(Clone, Copy)]
struct Spot {
    field: &'static str,
    index: usize,
    position: usize,
}

/// The containers of a pod and where they are; those for a look inside are never there when it is made.
pub(super) fn containers(spec: &PodSpec) -> impl Iterator<Item = (&'static str, usize, &Container)> {
    let init = list(&spec.init_containers).iter().enumerate();
    let regular = spec.containers.iter().enumerate();
    init.map(|(index, container)| ("initContainers", index, container))
        .chain(regular.map(|(index, container)| ("containers", index, container)))
}

fn advice_on(label: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(old, _)| *old == label).map(|(_, advice)| *advice)
}

fn fraction(amount: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Option<String> {
    let fractional = quantity(amount).is_some_and(|exact| exact.milli_value() % 1000 != 0);
    fractional.then(|| format!("fractional byte value {:?} is invalid, must be an integer", amount.0))
}

fn host_port(port: &ContainerPort) -> i32 {
    port.host_port.unwrap_or_default()
}

/// A port as upstream's `%+v` shows it.
fn in_go(port: &ContainerPort) -> String {
    let mut shown = String::from("{");
    let _ = write!(shown, "Name:{} HostPort:{} ", text(&port.name), host_port(port));
    let _ = write!(shown, "ContainerPort:{} Protocol:{} ", port.container_port, text(&port.protocol));
    let _ = write!(shown, "HostIP:{}}}", text(&port.host_ip));
    shown
}
