//! The addon `gang`: pods that are scheduled together or not at all.
//!
//! | kind | of | scope |
//! |---|---|---|
//! | [`coscheduling::PodGroup`] | scheduling.x-k8s.io/v1alpha1, the scheduler plugins | namespaced |
//! | [`volcano::PodGroup`] | scheduling.volcano.sh/v1beta1, Volcano | namespaced |
//! | [`volcano::Queue`] | scheduling.volcano.sh/v1beta1, Volcano | cluster |
//!
//! The crate has the kinds only: to place a gang is scheduling, and to keep the status of groups and queues falls to who places
//! them. The scheduler reads both through the types here.

pub mod coscheduling;
#[cfg(test)]
mod tests;
pub mod volcano;

use addons::{Addon, definition};

/// The addon's name.
pub const NAME: &str = "gang";

/// The addon.
pub static ADDON: Addon = Addon {
    name: NAME,
    about: "PodGroups: pods that are scheduled together or not at all (scheduler-plugins, Volcano)",
    definitions: || {
        vec![definition::<coscheduling::PodGroup>(), definition::<volcano::PodGroup>(), definition::<volcano::Queue>()]
    },
    policy: include_str!("addon.policy"),
    makes: &[(volcano::QUEUES, volcano::DEFAULT_QUEUE)],
};
