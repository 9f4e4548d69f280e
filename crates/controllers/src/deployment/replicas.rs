//! How many replicas a rollout may have, and how scaling is shared out among ReplicaSets in the middle of one.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use machinery::int_or_string;

use super::history;

/// The bounds of a rollout, in Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What the Deployment asks for.
    pub(crate) replicas: i32,
    /// By how many the number of Pods may exceed `replicas`.
    pub(crate) max_surge: i32,
    /// How many of `replicas` may be unavailable.
    pub(crate) max_unavailable: i32,
}

impl Bounds {
    /// The bounds of `deployment`. With a strategy other than RollingUpdate both margins are zero.
    pub(crate) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let (max_surge, max_unavailable) = match spec.and_then(rolling) {
            Some(margins) => fenceposts(&margins, replicas),
            None => (0, 0),
        };
        Self { replicas, max_surge, max_unavailable: if replicas == 0 { 0 } else { max_unavailable.min(replicas) } }
    }

    /// The most Pods there may be.
    pub(crate) fn max_total(self) -> i32 {
        self.replicas.saturating_add(self.max_surge)
    }

    /// The fewest Pods that must be available.
    pub(crate) fn min_available(self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

/// Whether the strategy is to replace Pods step by step. That is the default.
pub(crate) fn is_rolling(spec: &DeploymentSpec) -> bool {
    let type_ = spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    type_.is_none_or(|type_| type_ == "RollingUpdate")
}

/// `maxSurge` and `maxUnavailable` as they are written.
type Margins = (IntOrString, IntOrString);

fn rolling(spec: &DeploymentSpec) -> Option<Margins> {
    if !is_rolling(spec) {
        return None;
    }
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = || IntOrString::String("25%".to_owned());
    Some((
        rolling.and_then(|rolling| rolling.max_surge.clone()).unwrap_or_else(quarter),
        rolling.and_then(|rolling| rolling.max_unavailable.clone()).unwrap_or_else(quarter),
    ))
}

/// Surge rounds up and unavailable down; where that leaves no room at all, one Pod may be unavailable.
fn fenceposts((surge, unavailable): &Margins, replicas: i32) -> (i32, i32) {
    // Validation refuses what is no number and no percentage.
    let surge = int_or_string::scaled(surge, replicas, true).unwrap_or_default();
    let unavailable = int_or_string::scaled(unavailable, replicas, false).unwrap_or_default();
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// What `rs` is asked to have.
pub(crate) fn wanted(rs: &ReplicaSet) -> i32 {
    crate::replicaset::plan::replicas(rs)
}

/// What all of `sets` together are asked to have.
pub(crate) fn total_wanted<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(wanted).sum()
}

/// How many Pods of `rs` are available.
pub(crate) fn available(rs: &ReplicaSet) -> i32 {
    let status = rs.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or_default()
}

/// How many Pods `rs` may have at this moment: what it is asked for, or what it still has of before. Pods that are being
/// deleted do not count.
pub(crate) fn present(rs: &ReplicaSet) -> i32 {
    wanted(rs).max(rs.status.as_ref().map_or(0, |status| status.replicas))
}

/// Whether the size that `rs` is asked for has come through: before, it may still create Pods of an earlier size.
pub(crate) fn is_settled(rs: &ReplicaSet) -> bool {
    let observed = rs.status.as_ref().and_then(|status| status.observed_generation);
    observed.unwrap_or_default() >= rs.metadata.generation.unwrap_or_default()
}

/// The size to which a rolling update may bring the new ReplicaSet, while all ReplicaSets together have `total` Pods.
pub(crate) fn new_size(bounds: Bounds, current: i32, total: i32) -> i32 {
    let room = (bounds.max_total() - total).max(0);
    current + room.min((bounds.replicas - current).max(0))
}

/// Shares out a change of scale in the middle of a rollout: the new size of each of `sets`, all of which are active.
///
/// Every ReplicaSet changes in proportion to its size, so that a bad new version does not get all the new Pods; what
/// rounding leaves over goes to the largest. Upstream's rules, in its order.
pub(crate) fn proportional(bounds: Bounds, deployed: i32, sets: &[&ReplicaSet]) -> Vec<(String, i32)> {
    let allowed = if bounds.replicas > 0 { bounds.max_total() } else { 0 };
    let to_add = allowed - total_wanted(sets.iter().copied());
    let mut sets = sets.to_vec();
    // Larger ones first; of the same size, the newer ones grow first and the older ones shrink first.
    sets.sort_by(|a, b| {
        let by_age = history::by_age(a, b);
        let by_age = if to_add > 0 { by_age.reverse() } else { by_age };
        wanted(b).cmp(&wanted(a)).then(by_age)
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for rs in &sets {
        let share = if to_add == 0 { 0 } else { share(bounds, deployed, rs, to_add, added) };
        added += share;
        sizes.push((crate::meta::name(*rs).to_owned(), wanted(rs) + share));
    }
    if let Some((_, largest)) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    sizes
}

fn share(bounds: Bounds, deployed: i32, rs: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if wanted(rs) == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(bounds, deployed, rs);
    if to_add > 0 { fraction.min(to_add - added) } else { fraction.max(to_add - added) }
}

fn fraction(bounds: Bounds, deployed: i32, rs: &ReplicaSet) -> i32 {
    if bounds.replicas == 0 {
        return -wanted(rs);
    }
    // What the Deployment might have before: if the annotation is lost, what it has is the best guess.
    let before = history::max_replicas(rs).filter(|max| *max != 0).unwrap_or(deployed);
    if before == 0 {
        return 0;
    }
    let size = f64::from(wanted(rs)) * f64::from(bounds.max_total()) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    let size = size.round() as i32;
    size - wanted(rs)
}
