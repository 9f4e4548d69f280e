//! The labels of a namespace: those that are wrong are refused, and who makes it stricter is warned of the pods that are there
//! (`admission.go`, `ValidateNamespace` and `EvaluatePodsInNamespace`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use machinery::status::ApiError;
use registry::admission::{Attributes, PODS, decode_stored};
use registry::object::cast;
use registry::scan;
use store::Entry;

use super::checks::{PodView, evaluate, reasons};
use super::configuration::PodSecurityConfiguration;
use super::policy::{Level, LevelVersion, Policy};
use crate::common::{entry, text};

/// How many pods are looked at for the sake of warnings (`defaultNamespaceMaxPodsToCheck`), for how long
/// (`defaultNamespacePodCheckTimeout`), and how many before others get their turn.
const MAX_PODS: usize = 3000;
const TIMEOUT: Duration = Duration::from_secs(1);
const BATCH: usize = 64;

/// Refuses a namespace whose labels are wrong; warns of pods that would be refused from now on.
pub(super) async fn validate(
    configuration: &PodSecurityConfiguration,
    attributes: &Attributes<'_>,
    namespace: &Namespace,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let name = text(&namespace.metadata.name);
    let PodSecurityConfiguration { defaults, exemptions } = configuration;
    let policy = |namespace: &Namespace| {
        Policy::from_labels(*defaults, |key| entry(&namespace.metadata.labels, key).map(String::as_str))
    };
    let (new, errors) = policy(namespace);
    let old = attributes.old.map(cast::<Namespace>).transpose()?;
    let (old, old_errors) = old.map(policy).unzip();
    // What was wrong before may stay, so that the rest can be changed.
    if !errors.is_empty() && old_errors.is_none_or(|old| old.to_string() != errors.to_string()) {
        return Err(ApiError::invalid(&attributes.info.group_kind, name, &errors));
    }
    if let Some(old) = old
        && is_stricter(new.enforce, old.enforce)
        && exemptions.covering("", name).is_none()
    {
        warnings.extend(warn_of_pods(attributes, name, new.enforce).await);
    }
    Ok(())
}

/// Whether there may be pods that keep to the old policy but not to the new one.
fn is_stricter(new: LevelVersion, old: LevelVersion) -> bool {
    new.level != Level::Privileged && (new.level > old.level || new.version != old.version)
}

/// The pods that have the same things wrong with them.
struct Violators {
    /// The first of them by name.
    name: String,
    count: usize,
}

/// Warnings of the pods of a namespace that violate a standard.
async fn warn_of_pods(attributes: &Attributes<'_>, namespace: &str, enforce: LevelVersion) -> Vec<String> {
    let deadline = Instant::now() + TIMEOUT;
    let snapshot = attributes.registry.store().snapshot(PODS);
    let pods = prioritized(snapshot.range(Some(namespace), None));
    let mut violators: BTreeMap<String, Violators> = BTreeMap::new();
    let mut checked = 0;
    for entry in pods.iter().take(MAX_PODS) {
        if Instant::now() >= deadline {
            break;
        }
        checked += 1;
        if checked % BATCH == 0 {
            tokio::task::yield_now().await;
        }
        // The warnings are a help; a pod that cannot be decoded is not what they are about.
        let Ok(Pod { metadata, spec: Some(spec), .. }) = decode_stored(entry, &entry.value) else { continue };
        let violations = evaluate(enforce, &PodView { annotations: &metadata.annotations, spec: &spec });
        if !violations.is_empty() {
            let name = &*entry.key.name;
            let all = violators.entry(reasons(&violations));
            let all = all.or_insert_with(|| Violators { name: name.to_owned(), count: 0 });
            all.count += 1;
            if name < all.name.as_str() {
                name.clone_into(&mut all.name);
            }
        }
    }
    let mut warnings = Vec::new();
    if checked < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {} existing pods",
            pods.len()
        ));
    }
    if !violators.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = violators.iter().map(|(reasons, pods)| line(reasons, pods)).collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

fn line(reasons: &str, pods: &Violators) -> String {
    let name = &pods.name;
    match pods.count {
        1 => format!("{name}: {reasons}"),
        2 => format!("{name} (and 1 other pod): {reasons}"),
        count => format!("{name} (and {} other pods): {reasons}", count - 1),
    }
}

/// The pods in the order in which they are looked at: one of each controller first, since its others are most likely like it.
fn prioritized<'e>(pods: impl Iterator<Item = &'e Arc<Entry>>) -> Vec<&'e Arc<Entry>> {
    let mut controllers = HashSet::new();
    let (mut first, others): (Vec<_>, Vec<_>) =
        pods.partition(|pod| controller_uid(&pod.value).is_none_or(|uid| controllers.insert(uid)));
    first.extend(others);
    first
}

/// The UID of what controls a stored pod.
fn controller_uid(json: &[u8]) -> Option<String> {
    let owners = scan::find(json, &["metadata", "ownerReferences"])?;
    let owners: Vec<OwnerReference> = serde_json::from_slice(&json[owners]).ok()?;
    owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pod_security::policy::Version;

    #[test]
    fn pods_are_looked_at_when_the_policy_may_refuse_them() {
        let at = |level, version| LevelVersion { level, version };
        let (baseline, restricted) = (Level::Baseline, Level::Restricted);
        let latest = Version::Latest;
        for (old, new, expect) in [
            (at(baseline, latest), at(baseline, latest), false),
            (at(baseline, latest), at(restricted, latest), true),
            (at(restricted, latest), at(baseline, latest), false),
            (at(restricted, latest), at(Level::Privileged, Version::Minor(1)), false),
            (at(restricted, latest), at(baseline, Version::Minor(25)), true),
            (LevelVersion::PRIVILEGED, at(baseline, Version::Minor(25)), true),
        ] {
            assert_eq!(is_stricter(new, old), expect, "{old} to {new}");
        }
    }

    #[test]
    fn pods_with_the_same_violations_share_a_line() {
        for (count, expect) in
            [(1, "a: privileged"), (2, "a (and 1 other pod): privileged"), (3, "a (and 2 other pods): privileged")]
        {
            assert_eq!(line("privileged", &Violators { name: "a".to_owned(), count }), expect);
        }
    }
}
