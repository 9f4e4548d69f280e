//! Keeping the resource table as the definitions say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use machinery::depth;
use parking_lot::Mutex;
use store::{Entry, Revision};

use super::{CRDS, Crd, rows};
use crate::ops::ResourceOps;
use crate::table::{Resource, ResourceInfo};
use crate::{Registry, scan};

/// The definitions as they were when the table was last made, by name.
#[derive(Default)]
pub(crate) struct Crds(Mutex<HashMap<Arc<str>, Known>>);

struct Known {
    /// The definition's own revision.
    revision: Revision,
    entry: Arc<Entry>,
    /// The revision at which its present schemas appeared.
    since: Revision,
    rows: Vec<Resource>,
}

impl Registry {
    /// Makes the custom rows of the table what the stored definitions say. Rows of definitions that have not changed
    /// stay the same ones. Whoever reads the table sees all of the change or nothing of it.
    pub(crate) fn reload_crds(&self) {
        let mut known = self.0.crds.0.lock();
        let snapshot = self.store().snapshot(CRDS);
        let before = known.len();
        let names: HashSet<&str> = snapshot.iter().map(|entry| &*entry.key.name).collect();
        known.retain(|name, _| names.contains(&**name));
        let mut changed = known.len() != before;
        for entry in snapshot.iter() {
            let before = known.get(&entry.key.name);
            if before.is_some_and(|before| before.revision == entry.revision) {
                continue;
            }
            let next = self.known(entry, before);
            changed |= before.is_none_or(|before| !same_rows(&before.rows, &next.rows));
            known.insert(entry.key.name.clone(), next);
        }
        if changed {
            let mut rows: Vec<Resource> = known.values().flat_map(|known| known.rows.iter().cloned()).collect();
            rows.sort_by(|a, b| order(a.info()).cmp(&order(b.info())));
            self.0.table.change(|resources| resources.replace_custom(rows));
        }
    }

    fn known(&self, entry: &Arc<Entry>, before: Option<&Known>) -> Known {
        let with = |since, rows| Known { revision: entry.revision, entry: Arc::clone(entry), since, rows };
        let same = |path: &[&str]| before.is_some_and(|before| part(&before.entry, path) == part(entry, path));
        let same_spec = same(&["spec"]);
        // Most writes to a definition are about its status, and change nothing here.
        if let Some(before) = before.filter(|_| same_spec && same(&["status"])) {
            return with(before.since, before.rows.clone());
        }
        let since = match before {
            Some(before) if same_spec => before.since,
            _ => entry.revision,
        };
        let decoded = depth::with_room_for_all(|| serde_json::from_slice(&entry.value));
        let object: CustomResourceDefinition = match decoded {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(key = ?entry.key, %error, "a stored definition cannot be read");
                return with(since, Vec::new());
            }
        };
        let storage = format!("{}/{}", object.spec.group, object.spec.names.plural);
        let older = self.store().snapshot(&storage).iter().any(|object| object.revision < since);
        let crd = Crd::new(self, &object, entry.value.clone(), if older { since } else { 0 });
        let rows = crd.map(Arc::new).map(|crd| rows(&crd).map(|row| Arc::new(row) as Arc<dyn ResourceOps>).collect());
        with(since, rows.unwrap_or_default())
    }
}

/// The bytes of a part of a definition.
fn part<'a>(entry: &'a Entry, path: &[&str]) -> Option<&'a [u8]> {
    scan::find(&entry.value, path).map(|range| &entry.value[range])
}

fn same_rows(before: &[Resource], after: &[Resource]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| Arc::ptr_eq(before, after))
}

/// By group, then the most settled version first, as upstream orders them: GA, beta, alpha, then everything else.
fn order(info: &ResourceInfo) -> (&str, VersionRank<'_>, &str) {
    (&info.group, VersionRank::of(&info.version), &info.plural)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum VersionRank<'a> {
    /// `v2`, `v1beta3`: the stage, then both numbers, the higher ones first.
    Known(u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>),
    /// Anything else, by name.
    Other(&'a str),
}

impl<'a> VersionRank<'a> {
    fn of(version: &'a str) -> Self {
        let known = || {
            let rest = version.strip_prefix('v')?;
            let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
            let (major, rest) = (rest[..digits].parse().ok()?, &rest[digits..]);
            let (stage, minor) = match (rest, rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
                ("", ..) => (0, 0),
                (_, Some(minor), _) => (1, minor.parse().ok()?),
                (_, _, Some(minor)) => (2, minor.parse().ok()?),
                _ => return None,
            };
            Some(Self::Known(stage, std::cmp::Reverse(major), std::cmp::Reverse(minor)))
        };
        known().unwrap_or(Self::Other(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_how_settled_they_are() {
        let mut versions =
            ["foo10", "v1alpha1", "v3beta1", "v10", "v1", "v11beta2", "foo1", "v12alpha1", "v11alpha2", "v2"];
        versions.sort_by(|a, b| VersionRank::of(a).cmp(&VersionRank::of(b)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }
}
