//! Everything that is served, as discovery and OpenAPI describe it: the registry's resources, and the few that only
//! answer a question and store nothing. Discovery lists what components mount ([`aggregated_api`](crate::aggregated_api)), too.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use machinery::Verb;
use parking_lot::Mutex;
use registry::{Resources, Subresource};
use schemars::{Schema, SchemaGenerator};
use sha2::{Digest, Sha256};

use crate::aggregated_api::{AggregatedResource, Listed, Listing};
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
            list_kind: &info.list_kind,
            namespaced: info.namespaced(),
            verbs: info.verbs(),
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

/// A generated document.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    /// Hash of the content, in upper-case hex.
    pub(crate) hash: Arc<str>,
}

impl Document {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        use std::fmt::Write as _;
        let mut hash = String::with_capacity(64);
        for byte in Sha256::digest(&bytes) {
            // Writing to a String cannot fail.
            let _ = write!(hash, "{byte:02X}");
        }
        let mut bytes = bytes;
        bytes.shrink_to_fit();
        Self { bytes: bytes.into(), hash: hash.into() }
    }
}

/// Generated documents, kept as bytes for as long as the resources they describe stay the same; those of discovery also
/// only while the extensions list the same.
#[derive(Default)]
pub(crate) struct Documents(Mutex<State>, Mutex<Listing>);

#[derive(Default)]
struct State {
    resources: Arc<Resources>,
    documents: HashMap<String, Document>,
    /// The hashes of the documents of single versions, most of which nobody reads.
    hashes: HashMap<String, Arc<str>>,
}

/// What the names of the documents of single versions begin with.
const OF_VERSION: &str = "openapi v3 ";

impl Documents {
    /// Drops the documents of discovery if the extensions list something else now.
    pub(crate) fn renew(&self, listing: &Listing) {
        let mut listed = self.1.lock();
        let same = |(a, b): (&Listed, &Listed)| Arc::ptr_eq(&a.2, &b.2);
        if listed.len() == listing.len() && listed.iter().zip(listing).all(same) {
            return;
        }
        listed.clone_from(listing);
        let mut state = self.0.lock();
        state.documents.retain(|name, _| name.starts_with("openapi"));
    }

    /// The document of that name, built now if it is not there. Two who ask at once may both build it.
    pub(crate) fn get(
        &self,
        resources: &Arc<Resources>,
        name: &str,
        build: impl FnOnce(&Resources) -> Vec<u8>,
    ) -> Document {
        if let Some(document) = self.locked(resources, |state| state.documents.get(name).cloned()) {
            return document;
        }
        let document = Document::new(build(resources));
        self.locked(resources, |state| state.documents.insert(name.to_owned(), document.clone()));
        document
    }

    /// The document that describes a version (`apis/apps/v1`).
    pub(crate) fn of_version(
        &self,
        resources: &Arc<Resources>,
        version: &str,
        build: impl FnOnce(&Resources) -> Vec<u8>,
    ) -> Document {
        self.get(resources, &format!("{OF_VERSION}{version}"), build)
    }

    /// The hash of that document, which is not kept.
    pub(crate) fn hash_of_version(
        &self,
        resources: &Arc<Resources>,
        version: &str,
        build: impl FnOnce(&Resources) -> Vec<u8>,
    ) -> Arc<str> {
        if let Some(hash) = self.locked(resources, |state| state.hashes.get(version).cloned()) {
            return hash;
        }
        let hash = Document::new(build(resources)).hash;
        self.locked(resources, |state| state.hashes.insert(version.to_owned(), Arc::clone(&hash)));
        hash
    }

    fn locked<T>(&self, resources: &Arc<Resources>, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock();
        if !Arc::ptr_eq(&state.resources, resources) {
            state.follow(resources);
        }
        act(&mut state)
    }
}

impl State {
    /// Keeps what is about versions whose resources are the same as before: a definition changes one of many.
    fn follow(&mut self, resources: &Arc<Resources>) {
        let (before, now) = (by_version(&self.resources), by_version(resources));
        let same = |name: &str| now.contains_key(name) && before.get(name) == now.get(name);
        self.documents.retain(|name, _| name.strip_prefix(OF_VERSION).is_some_and(&same));
        self.hashes.retain(|name, _| same(name));
        drop((before, now));
        self.resources = Arc::clone(resources);
    }
}

/// The rows of each version, which stay the same ones while nothing about them changes.
fn by_version(resources: &Resources) -> HashMap<String, Vec<*const ()>> {
    let mut versions: HashMap<String, Vec<*const ()>> = HashMap::new();
    for resource in resources.iter() {
        let info = resource.info();
        let prefix = if info.group.is_empty() { "api".to_owned() } else { format!("apis/{}", info.group) };
        versions.entry(format!("{prefix}/{}", info.version)).or_default().push(Arc::as_ptr(resource).cast());
    }
    versions
}
