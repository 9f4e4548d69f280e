//! Evictions: pods that use more than they may, and pods on a machine that runs out of something (upstream:
//! `pkg/kubelet/eviction`).
//!
//! | module | what it does |
//! |---|---|
//! | [`signals`] | what the machine runs out of: thresholds, and the node's conditions |
//! | [`limits`] | a pod's own limits of disk: `emptyDir.sizeLimit`, `ephemeral-storage` |
//! | [`rank`] | which pod goes when the machine runs out, and whether that helps |
//! | [`usage`] | what pods use |
//! | `manager` | the two loops: the machine every few seconds, the limits of pods once a minute |
//!
//! Decisions are pure. To evict is to tell the pod's worker, which ends it as failed.
//!
//! # On a laptop
//!
//! The machine is shared with the programs of its user, so some rules differ from upstream's:
//!
//! - A disk is under pressure below 1 GiB, not below a tenth or a seventh: a laptop's disk is often that full, and has tens
//!   of gigabytes left then. The fuller it is the more often it is looked at, at most once a second.
//! - A pod is evicted only where pods can end the pressure ([`rank::choose`]): when all that could go use less than what is
//!   missing, others have taken it. Then none goes, and new ones are kept away by the node's condition.
//! - When what an eviction gave back has gone to others, no further pod is evicted for want of the same for as long as that
//!   lasts ([`rank::HoldOff`]); one is, when it is the other pods that have taken it.
//! - When nothing could be done, pods are not counted again for a minute, unless much less is left by then
//!   ([`rank::Futile`]).
//! - Images of the user are never removed ([`crate::image_gc`]).

pub(crate) mod limits;
mod manager;
pub(crate) mod rank;
pub(crate) mod signals;
pub(crate) mod usage;

pub(crate) use manager::run;
