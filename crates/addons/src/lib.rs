//! What a cluster does not have from the start and can be given: kinds of other projects, for applications that are more
//! than one workload.
//!
//! | addon | kinds |
//! |---|---|
//! | `lws` | LeaderWorkerSet of leaderworkerset.x-k8s.io/v1 |
//! | `rbg` | RoleBasedGroup, RoleBasedGroupSet and RoleBasedGroupScalingAdapter of workloads.x-k8s.io/v1alpha1 and v1alpha2 |
//! | `gang` | PodGroup of scheduling.x-k8s.io/v1alpha1; PodGroup and Queue of scheduling.volcano.sh/v1beta1 |
//!
//! An addon is a set of CustomResourceDefinitions with the label [`LABEL`]: that they are there is all the state it has.
//! Controllers, scheduler and admission that are built in for its kinds look for that label, so they leave alone what
//! somebody else installed under the same names.
//! Their shape is the published one; pod templates are left to the controllers that make pods of them, as the
//! RoleBasedGroup's own definition leaves them.
//!
//! The crate knows what the definitions are, not how they get into a cluster.

#[cfg(test)]
mod facts;
mod gang;
mod lws;
mod rbg;
mod schema;

pub use machinery::addon::LABEL;
use machinery::addon::{GANG, LWS, RBG};
use serde_json::Value;

/// A set of kinds.
#[derive(Debug, Clone, Copy)]
pub struct Addon {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    definitions: fn() -> Vec<Value>,
}

/// All addons, in the order of their names.
pub const ALL: [Addon; 3] = [
    Addon {
        name: GANG,
        about: "PodGroups: pods that are scheduled together or not at all (scheduler-plugins, Volcano)",
        definitions: gang::definitions,
    },
    Addon {
        name: LWS,
        about: "LeaderWorkerSet: groups of a leader and its workers, replicated as one",
        definitions: lws::definitions,
    },
    Addon {
        name: RBG,
        about: "RoleBasedGroup: an application of several roles, each a workload of its own",
        definitions: rbg::definitions,
    },
];

impl Addon {
    /// The addon of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|addon| addon.name == name)
    }

    /// The CustomResourceDefinitions that make it up, as manifests.
    #[must_use]
    pub fn definitions(&self) -> Vec<Value> {
        let mut definitions = (self.definitions)();
        for definition in &mut definitions {
            definition["metadata"]["labels"][LABEL] = self.name.into();
        }
        definitions
    }
}

#[cfg(test)]
mod tests;
