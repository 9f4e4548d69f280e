//! Everything that is served, as discovery and OpenAPI describe it: the registry's resources, and the few that only
//! answer a question and store nothing. Discovery lists what components mount ([`aggregated_api`](crate::aggregated_api)) and
//! what other servers have ([`aggregator`](crate::aggregator)), too.

use std::cmp::Reverse;
use std::collections::HashMap;

use kinds::api_service::{self, Priority};
use machinery::Verb;
use registry::{Resources, Subresource};
use schemars::{Schema, SchemaGenerator};

use crate::aggregated_api::{AggregatedResource, Listing};
use crate::aggregator::Snapshot;
use crate::reviews;

/// One resource.
pub(crate) struct Served<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    /// Empty for a version without resources.
    pub(crate) plural: &'a str,
    pub(crate) singular: &'a str,
    pub(crate) kind: &'a str,
    /// Group and version of the kind.
    pub(crate) group_version: (&'a str, &'a str),
    /// Group and version in which objects are stored, where they are.
    pub(crate) storage: Option<(&'a str, &'a str)>,
    /// Kind of a list; empty for what cannot be listed.
    pub(crate) list_kind: &'a str,
    pub(crate) namespaced: bool,
    pub(crate) verbs: &'a [Verb<'static>],
    pub(crate) short_names: &'a [String],
    pub(crate) categories: &'a [String],
    pub(crate) subresources: &'a [Subresource],
    /// Name of the type in OpenAPI.
    pub(crate) definition: &'a str,
    /// Whether a CustomResourceDefinition made it.
    pub(crate) custom: bool,
    /// Where its version stands in discovery.
    pub(crate) priority: Priority,
    /// Whether who answers it has said so when asked last.
    pub(crate) is_fresh: bool,
    schema: SchemaOf<'a>,
}

enum SchemaOf<'a> {
    Registered(&'a registry::Resource),
    Review(&'a reviews::Review),
    /// That of an extension, which describes its types to nobody.
    None,
}

impl Served<'_> {
    /// The schema of the kind; what it refers to is added to the generator.
    pub(crate) fn schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        match self.schema {
            SchemaOf::Registered(resource) => resource.schema(generator),
            SchemaOf::Review(review) => Some((review.schema)(generator)),
            SchemaOf::None => None,
        }
    }
}

/// All of them, in the order of the table.
pub(crate) fn all(resources: &Resources) -> Vec<Served<'_>> {
    // What has more than one version is stored in the one that is not converted.
    let stored: HashMap<&str, (&str, &str)> = resources
        .iter()
        .filter(|resource| !resource.converts())
        .map(|resource| resource.info())
        .filter(|info| !info.computed && info.stands_for.is_none())
        .map(|info| (&*info.storage, (&*info.group, &*info.version)))
        .collect();
    let registered = resources.iter().map(|resource| {
        let info = resource.info();
        Served {
            group: &info.group,
            version: &info.version,
            plural: &info.plural,
            singular: &info.singular,
            kind: &info.kind,
            group_version: (&info.group, &info.version),
            storage: stored.get(&*info.storage).copied(),
            list_kind: if info.verbs.contains(&Verb::List) { &info.list_kind } else { "" },
            namespaced: info.namespaced(),
            verbs: info.verbs,
            short_names: &info.short_names,
            categories: &info.categories,
            subresources: &info.subresources,
            definition: &info.openapi_name,
            custom: info.custom,
            priority: api_service::priority(&info.group, &info.version),
            is_fresh: true,
            schema: SchemaOf::Registered(resource),
        }
    });
    let reviews = reviews::ALL.iter().map(|review| Served {
        group: review.group,
        version: "v1",
        plural: review.plural,
        singular: review.singular,
        kind: review.kind,
        group_version: (review.group, "v1"),
        storage: None,
        list_kind: "",
        namespaced: review.namespaced,
        verbs: &[Verb::Create],
        short_names: &[],
        categories: &[],
        subresources: &[],
        definition: review.definition,
        custom: false,
        priority: api_service::priority(review.group, "v1"),
        is_fresh: true,
        schema: SchemaOf::Review(review),
    });
    registered.chain(reviews).collect()
}

/// All of them, what the extensions list, and, in the place of what has the same version here, what other servers have.
pub(crate) fn with<'a>(resources: &'a Resources, extensions: &'a Listing, aggregated: &'a Snapshot) -> Vec<Served<'a>> {
    let mut served = all(resources);
    for (group, version, listed) in extensions {
        served.extend(extended(group, version, listed));
    }
    if !aggregated.remotes.is_empty() {
        served.retain(|entry| aggregated.find(entry.group, entry.version).is_none());
    }
    for remote in &aggregated.remotes {
        let (target, documents) = (&remote.target, &remote.documents);
        let listed = extended(&target.group, &target.version, &documents.resources);
        served.extend(listed.map(|entry| Served { is_fresh: documents.is_fresh && remote.is_available, ..entry }));
    }
    for entry in &mut served {
        entry.priority = aggregated.priority(entry.group, entry.version);
    }
    served
}

/// What stands for a version that has no resources now, but is there.
static NOTHING: AggregatedResource = AggregatedResource {
    name: String::new(),
    singular: String::new(),
    kind: String::new(),
    group_version: None,
    namespaced: false,
    verbs: Vec::new(),
    short_names: Vec::new(),
    categories: Vec::new(),
};

/// What somebody else lists of a version.
fn extended<'a>(
    group: &'a str,
    version: &'a str,
    listed: &'a [AggregatedResource],
) -> impl Iterator<Item = Served<'a>> {
    let listed = if listed.is_empty() { std::slice::from_ref(&NOTHING) } else { listed };
    listed.iter().map(move |resource| Served {
        group,
        version,
        plural: &resource.name,
        singular: &resource.singular,
        kind: &resource.kind,
        group_version: resource.group_version.as_ref().map_or((group, version), |(group, version)| (group, version)),
        storage: None,
        list_kind: "",
        namespaced: resource.namespaced,
        verbs: &resource.verbs,
        short_names: &resource.short_names,
        categories: &resource.categories,
        subresources: &[],
        definition: "",
        custom: false,
        priority: api_service::priority(group, version),
        is_fresh: true,
        schema: SchemaOf::None,
    })
}

/// The groups with their versions, those of the highest priority first; the core group is `""` and comes before all others.
///
/// Upstream: apiserver `pkg/endpoints/discovery/aggregated/handler.go`: a group has the highest priority of its versions; of the
/// same priority are groups by name, and versions by how stable they say they are.
pub(crate) fn groups<'a>(served: &[Served<'a>]) -> Vec<(&'a str, Vec<&'a str>)> {
    /// A version and its priority.
    type Version<'a> = (&'a str, i32);
    let mut groups: Vec<(&str, i32, Vec<Version<'_>>)> = Vec::new();
    for entry in served {
        let index = groups.iter().position(|(group, ..)| *group == entry.group).unwrap_or_else(|| {
            groups.push((entry.group, 0, Vec::new()));
            groups.len() - 1
        });
        let (_, priority, versions) = &mut groups[index];
        *priority = entry.priority.group.max(*priority);
        if !versions.iter().any(|(version, _)| *version == entry.version) {
            versions.push((entry.version, entry.priority.version));
        }
    }
    groups.sort_by_key(|(group, priority, _)| (!group.is_empty(), Reverse(*priority), *group));
    let sorted = |mut versions: Vec<Version<'a>>| {
        versions.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| api_service::compare_versions(b.0, a.0)));
        versions.into_iter().map(|(version, _)| version).collect()
    };
    groups.into_iter().map(|(group, _, versions)| (group, sorted(versions))).collect()
}

/// `GROUP/VERSION`, or the version alone for the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    registry::table::api_version(group, version)
}
