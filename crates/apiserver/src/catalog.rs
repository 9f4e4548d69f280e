//! Everything that is served, as discovery and OpenAPI describe it: the registry's resources, and the few that only
//! answer a question and store nothing. Discovery lists what components mount ([`aggregated_api`](crate::aggregated_api)), too.

use machinery::Verb;
use registry::{Resources, Subresource};
use schemars::{Schema, SchemaGenerator};

use crate::aggregated_api::{AggregatedResource, Listing};
use crate::reviews;

/// One resource.
pub(crate) struct Served<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    /// Empty for a version without resources.
    pub(crate) plural: &'a str,
    pub(crate) singular: &'a str,
    pub(crate) kind: &'a str,
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
    let registered = resources.iter().map(|resource| {
        let info = resource.info();
        Served {
            group: &info.group,
            version: &info.version,
            plural: &info.plural,
            singular: &info.singular,
            kind: &info.kind,
            list_kind: if info.verbs.contains(&Verb::List) { &info.list_kind } else { "" },
            namespaced: info.namespaced(),
            verbs: info.verbs,
            short_names: &info.short_names,
            categories: &info.categories,
            subresources: &info.subresources,
            definition: &info.openapi_name,
            custom: info.custom,
            schema: SchemaOf::Registered(resource),
        }
    });
    let reviews = reviews::ALL.iter().map(|review| Served {
        group: review.group,
        version: "v1",
        plural: review.plural,
        singular: review.singular,
        kind: review.kind,
        list_kind: "",
        namespaced: review.namespaced,
        verbs: &[Verb::Create],
        short_names: &[],
        categories: &[],
        subresources: &[],
        definition: review.definition,
        custom: false,
        schema: SchemaOf::Review(review),
    });
    registered.chain(reviews).collect()
}

/// All of them, and after them what the extensions list.
pub(crate) fn with<'a>(resources: &'a Resources, extensions: &'a Listing) -> Vec<Served<'a>> {
    let mut served = all(resources);
    for (group, version, listed) in extensions {
        if listed.is_empty() {
            served.push(extended(group, version, &NOTHING));
        }
        served.extend(listed.iter().map(|resource| extended(group, version, resource)));
    }
    served
}

/// What stands for a version that has no resources now, but is there.
static NOTHING: AggregatedResource = AggregatedResource {
    name: String::new(),
    singular: String::new(),
    kind: String::new(),
    namespaced: false,
    verbs: &[],
    short_names: Vec::new(),
    categories: Vec::new(),
};

fn extended<'a>(group: &'a str, version: &'a str, resource: &'a AggregatedResource) -> Served<'a> {
    Served {
        group,
        version,
        plural: &resource.name,
        singular: &resource.singular,
        kind: &resource.kind,
        list_kind: "",
        namespaced: resource.namespaced,
        verbs: resource.verbs,
        short_names: &resource.short_names,
        categories: &resource.categories,
        subresources: &[],
        definition: "",
        custom: false,
        schema: SchemaOf::None,
    }
}

/// The groups with their versions, in the order in which they first appear; the core group is `""` and comes first.
pub(crate) fn groups<'a>(served: &[Served<'a>]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in served {
        let index = groups.iter().position(|(group, _)| *group == entry.group).unwrap_or_else(|| {
            groups.push((entry.group, Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[index].1;
        if !versions.contains(&entry.version) {
            versions.push(entry.version);
        }
    }
    groups.sort_by_key(|(group, _)| !group.is_empty());
    groups
}

/// `GROUP/VERSION`, or the version alone for the core group.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    registry::table::api_version(group, version)
}
