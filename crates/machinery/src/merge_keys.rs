//! What upstream's types say about how their lists and maps are merged.
//!
//! These are facts of upstream's Go types and OpenAPI documents which the Rust types do not carry: the patch strategy and
//! merge key of strategic merge patches, and the list and map types of server-side apply. They differ: the ports of a
//! Service merge by `port` in the one and by `port` and `protocol` in the other.
//!
//! The facts live in text files, one per API group, and are read once at first use. A file is a list of OpenAPI definition
//! names, each followed by its fields, indented:
//!
//! ```text
//! io.k8s.api.core.v1.PodSpec
//!   volumes: type io.k8s.api.core.v1.Volume; patch merge,retainKeys by name; list map by name
//!   nodeSelector: map atomic
//! io.k8s.api.core.v1.SecretKeySelector atomic
//! ```
//!
//! A key of a list may have a default (`protocol=TCP`); `always` marks what Go writes even when it says nothing.
//! `type` is the definition of the value, or of the elements or values of a list or map. A type or field that is not there
//! follows the general rule: objects are merged field by field, lists are replaced.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The definition name of the metadata that every kind has.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How server-side apply, and every client that merges lists, treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// A map, keyed by [`Field::list_map_keys`].
    Map,
}

/// The facts about one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The definition name of the value, or of the elements of a list.
    pub definition: Option<&'static str>,
    /// Strategic merge: the list is merged, by [`Self::patch_merge_key`] or as a set of scalars.
    pub patch_merge: bool,
    /// Strategic merge: the value is replaced as a whole.
    pub patch_replace: bool,
    /// Strategic merge: clients send `$retainKeys` with the value.
    pub patch_retain_keys: bool,
    /// Strategic merge: the field that identifies an element.
    pub patch_merge_key: Option<&'static str>,
    /// Server-side apply: how the list is treated.
    pub list_type: ListType,
    /// Server-side apply: the fields that identify an element.
    pub list_map_keys: Vec<&'static str>,
    /// Server-side apply: what some of these fields are when an element leaves them out.
    pub list_map_defaults: Vec<(&'static str, &'static str)>,
    /// Server-side apply: whether the map or object is replaced as a whole (`true`) or by fields in spite of its type (`false`).
    pub map_atomic: Option<bool>,
    /// The field is there in every object, even an empty one: in Go it is a struct, or a list without `omitempty`.
    pub always: bool,
}

impl Field {
    /// The value of the OpenAPI extension `x-kubernetes-patch-strategy`.
    pub fn patch_strategy(&self) -> Option<&'static str> {
        match (self.patch_merge, self.patch_retain_keys, self.patch_replace) {
            (true, true, _) => Some("merge,retainKeys"),
            (true, false, _) => Some("merge"),
            (false, true, _) => Some("retainKeys"),
            (false, false, true) => Some("replace"),
            (false, false, false) => None,
        }
    }
}

#[derive(Debug, Default)]
struct Definition {
    atomic: bool,
    fields: HashMap<&'static str, Field>,
}

static FACTS: LazyLock<HashMap<&'static str, Definition>> = LazyLock::new(|| {
    let mut definitions = HashMap::new();
    for file in FILES {
        read(file, &mut definitions);
    }
    definitions
});

/// The facts about a field of the type with this OpenAPI definition name.
pub fn field(definition: &str, field: &str) -> Option<&'static Field> {
    FACTS.get(definition)?.fields.get(field)
}

/// The name of a definition that has facts, for ever.
pub fn known(definition: &str) -> Option<&'static str> {
    FACTS.get_key_value(definition).map(|(name, _)| *name)
}

/// Whether objects of this type are always replaced as a whole by server-side apply.
pub fn is_atomic(definition: &str) -> bool {
    FACTS.get(definition).is_some_and(|definition| definition.atomic)
}

/// All definitions that have facts, with their fields, in no particular order.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static Field)> {
    FACTS.iter().flat_map(|(definition, facts)| facts.fields.iter().map(|(name, field)| (*definition, *name, field)))
}

const FILES: &[&str] = &[
    include_str!("merge_keys/meta.facts"),
    include_str!("merge_keys/core.facts"),
    include_str!("merge_keys/apps.facts"),
    include_str!("merge_keys/batch.facts"),
    include_str!("merge_keys/autoscaling.facts"),
    include_str!("merge_keys/policy.facts"),
    include_str!("merge_keys/networking.facts"),
    include_str!("merge_keys/discovery.facts"),
    include_str!("merge_keys/events.facts"),
    include_str!("merge_keys/coordination.facts"),
    include_str!("merge_keys/rbac.facts"),
    include_str!("merge_keys/storage.facts"),
    include_str!("merge_keys/storagemigration.facts"),
    include_str!("merge_keys/scheduling.facts"),
    include_str!("merge_keys/resource.facts"),
    include_str!("merge_keys/node.facts"),
    include_str!("merge_keys/certificates.facts"),
    include_str!("merge_keys/flowcontrol.facts"),
    include_str!("merge_keys/admissionregistration.facts"),
    include_str!("merge_keys/authentication.facts"),
    include_str!("merge_keys/authorization.facts"),
    include_str!("merge_keys/apiextensions.facts"),
    include_str!("merge_keys/apiregistration.facts"),
    include_str!("merge_keys/apiserverinternal.facts"),
];

/// Reads one file. What it does not understand it leaves out; a test below holds the files to the grammar.
fn read(text: &'static str, definitions: &mut HashMap<&'static str, Definition>) {
    let mut current: Option<&'static str> = None;
    for line in text.lines() {
        if let Some((name, facts)) = line.strip_prefix("  ").and_then(|line| line.split_once(": ")) {
            if let (Some(definition), Some(field)) = (current, read_field(facts)) {
                definitions.entry(definition).or_default().fields.insert(name, field);
            }
        } else {
            let (name, atomic) = line.strip_suffix(" atomic").map_or((line, false), |name| (name, true));
            definitions.entry(name).or_default().atomic = atomic;
            current = Some(name);
        }
    }
}

fn read_field(facts: &'static str) -> Option<Field> {
    let mut field = Field::default();
    for fact in facts.split("; ") {
        match fact.split(' ').collect::<Vec<_>>().as_slice() {
            ["type", definition] => field.definition = Some(definition),
            ["patch", strategies, rest @ ..] => {
                for strategy in strategies.split(',') {
                    match strategy {
                        "merge" => field.patch_merge = true,
                        "replace" => field.patch_replace = true,
                        "retainKeys" => field.patch_retain_keys = true,
                        _ => return None,
                    }
                }
                match rest {
                    [] => {}
                    ["by", key] => field.patch_merge_key = Some(key),
                    _ => return None,
                }
            }
            ["list", "set"] => field.list_type = ListType::Set,
            ["list", "map", "by", keys] => {
                field.list_type = ListType::Map;
                let keys =
                    keys.split(',').map(|key| key.split_once('=').map_or((key, None), |(key, d)| (key, Some(d))));
                for (key, default) in keys {
                    field.list_map_keys.push(key);
                    field.list_map_defaults.extend(default.map(|default| (key, default)));
                }
            }
            ["always"] => field.always = true,
            ["map", "atomic"] => field.map_atomic = Some(true),
            ["map", "granular"] => field.map_atomic = Some(false),
            _ => return None,
        }
    }
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        for file in FILES {
            for line in file.lines() {
                if let Some(line) = line.strip_prefix("  ") {
                    let facts = line.split_once(": ").map(|(_, facts)| facts);
                    assert!(facts.and_then(read_field).is_some(), "{line}");
                } else {
                    assert!(line.starts_with("io.k8s.") && line.split(' ').count() <= 2, "{line}");
                }
            }
        }
    }

    #[test]
    fn keys_fit_their_lists() {
        for (definition, name, field) in all() {
            let what = format!("{definition}.{name}");
            assert_eq!(field.list_type == ListType::Map, !field.list_map_keys.is_empty(), "{what}");
            assert!(field.patch_merge_key.is_none() || field.patch_merge, "{what}");
            assert!(!(field.patch_merge && field.definition.is_some()) || field.patch_merge_key.is_some(), "{what}");
            assert!(field.list_type != ListType::Map || field.definition.is_some(), "{what}");
        }
    }

    #[test]
    fn some_facts() {
        let ports = field("io.k8s.api.core.v1.ServiceSpec", "ports").unwrap();
        assert_eq!(
            (ports.patch_merge_key, ports.list_map_keys.as_slice()),
            (Some("port"), ["port", "protocol"].as_slice())
        );
        let volumes = field("io.k8s.api.core.v1.PodSpec", "volumes").unwrap();
        assert_eq!(volumes.patch_strategy(), Some("merge,retainKeys"));
        assert_eq!(
            field("io.k8s.api.apps.v1.DeploymentSpec", "strategy").unwrap().patch_strategy(),
            Some("retainKeys")
        );
        let finalizers = field(OBJECT_META, "finalizers").unwrap();
        assert_eq!(
            (finalizers.patch_merge, finalizers.patch_merge_key, finalizers.list_type),
            (true, None, ListType::Set)
        );
        assert_eq!(field("io.k8s.api.core.v1.PodSpec", "tolerations"), None);
        assert!(is_atomic("io.k8s.api.core.v1.SecretKeySelector"));
        assert!(!is_atomic("io.k8s.api.core.v1.PodSpec"));
    }

    /// From every workload a patch finds the way down to the containers' lists.
    #[test]
    fn the_way_down() {
        for (kind, path) in [
            ("io.k8s.api.apps.v1.Deployment", "spec template spec containers env"),
            ("io.k8s.api.apps.v1.StatefulSet", "spec template spec initContainers volumeMounts"),
            ("io.k8s.api.batch.v1.CronJob", "spec jobTemplate spec template spec containers ports"),
            ("io.k8s.api.core.v1.Pod", "metadata ownerReferences"),
            ("io.k8s.api.core.v1.Node", "status conditions"),
            ("io.k8s.api.core.v1.ServiceAccount", "secrets"),
        ] {
            let mut definition = Some(kind);
            let mut last = None;
            for name in path.split(' ') {
                last = field(definition.unwrap_or_else(|| panic!("{kind} {path}")), name);
                definition = last.and_then(|field| field.definition);
            }
            assert!(last.unwrap().patch_merge, "{kind} {path}");
        }
    }
}
