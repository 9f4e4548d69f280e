//! What ResourceQuotas count, and whether there is room for more.
//!
//! Amounts go by the names that `spec.hard` uses: `pods`, `requests.cpu`, `services.nodeports`, `count/deployments.apps`.
//! Upstream: `pkg/quota/v1` and its evaluators. One deviation: a pod that should have ended and has not counts until it is
//! gone, so that what is used depends on objects alone and on no clock.

mod scope;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::gvk::GroupResource;
use crate::quantity::Quantity;

pub use scope::matches;
pub use usage::{concerns, missing, pod_limits, pod_requests, usage};

/// Amounts by name.
pub type Amounts = BTreeMap<String, Quantity>;

/// An object as quotas see it.
#[derive(Clone, Copy)]
pub enum Counted<'a> {
    /// Pods count by what they ask for, and only until they have ended.
    Pod(&'a Pod),
    /// Services count by their node ports and load balancers, too.
    Service(&'a Service),
    /// Claims count by their size, too.
    Claim(&'a PersistentVolumeClaim),
    /// All else is counted.
    Other(&'a GroupResource),
}

/// Amounts as objects have them.
#[must_use]
pub fn parse(amounts: Option<&BTreeMap<String, WireQuantity>>) -> Amounts {
    let read = |(name, wire): (&String, &WireQuantity)| Some((name.clone(), wire.0.parse().ok()?));
    amounts.into_iter().flatten().filter_map(read).collect()
}

/// Amounts as objects have them.
#[must_use]
pub fn write(amounts: &Amounts) -> BTreeMap<String, WireQuantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), WireQuantity(amount.to_string()))).collect()
}

/// What `new` uses more than `old`, less being negative; without what is the same.
#[must_use]
pub fn difference(new: &Amounts, old: &Amounts) -> Amounts {
    let mut difference = new.clone();
    for (name, amount) in old {
        let entry = difference.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry -= *amount;
    }
    difference.retain(|_, amount| !amount.is_zero());
    difference
}

/// What a quota says about a write.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is not about this, or nothing changes.
    Unaffected,
    /// There is room; this is used then.
    Room(Amounts),
    /// There is none; upstream's words.
    Refused(String),
}

/// Whether a quota that matches an object has room for `more` of it. `new` is the object where it must say what it needs,
/// as a pod must at its creation.
#[must_use]
pub fn judge(quota: &ResourceQuota, new: Option<Counted<'_>>, more: &Amounts) -> Verdict {
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let status = quota.status.as_ref();
    let hard = parse(status.and_then(|status| status.hard.as_ref()));
    let mut used = parse(status.and_then(|status| status.used.as_ref()));
    if let Some(new) = new {
        let restricted: Vec<&str> = hard.keys().map(String::as_str).filter(|name| concerns(new, name)).collect();
        if let Some(why) = missing(new, &restricted) {
            return Verdict::Refused(format!("failed quota: {name}: {why}"));
        }
        if restricted.iter().any(|name| !used.contains_key(*name)) {
            let names = restricted.join(",");
            return Verdict::Refused(format!("status unknown for quota: {name}, resources: {names}"));
        }
    }
    let requested: Amounts = more
        .iter()
        .filter(|(name, _)| hard.contains_key(*name))
        .map(|(name, amount)| (name.clone(), *amount))
        .collect();
    if requested.is_empty() {
        return Verdict::Unaffected;
    }
    let before = used.clone();
    for (name, amount) in &requested {
        let used = used.entry(name.clone()).or_insert(Quantity::ZERO);
        *used += *amount;
    }
    let exceeds = |name: &str| requested[name] > Quantity::ZERO && used[name] > hard[name];
    let exceeded: Vec<&str> = requested.keys().map(String::as_str).filter(|name| exceeds(name)).collect();
    if exceeded.is_empty() {
        return Verdict::Room(used);
    }
    let print = |amounts: &Amounts| -> String {
        let print = |name: &&str| Some(format!("{name}={}", amounts.get(*name)?));
        exceeded.iter().filter_map(print).collect::<Vec<_>>().join(",")
    };
    Verdict::Refused(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        print(&requested),
        print(&before),
        print(&hard)
    ))
}
