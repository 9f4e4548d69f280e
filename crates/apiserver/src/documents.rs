//! Generated documents, discovery and OpenAPI, kept as bytes for as long as what they describe stays the same.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use registry::{Registry, Resources};
use sha2::{Digest, Sha256};

use crate::aggregated_api::{AggregatedApis, Listed, Listing};
use crate::negotiate::DiscoveryVersion;
use crate::{catalog, discovery, openapi};

/// Which document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum DocumentKey {
    /// `/`.
    Paths,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/VERSION`, `/apis/GROUP/VERSION`.
    Resources { group: String, version: String },
    /// Aggregated discovery, of `/api` or of `/apis`.
    Aggregated { core: bool, version: DiscoveryVersion },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v2` as protobuf.
    OpenApiV2Protobuf,
    /// `/openapi/v3`.
    OpenApiV3Index,
    /// `/openapi/v3/VERSION`, where the version is `api/v1` or `apis/apps/v1`.
    OpenApiV3(String),
}

impl DocumentKey {
    /// Whether the APIs of other components are in it.
    fn lists_aggregated_apis(&self) -> bool {
        match self {
            Self::Paths
            | Self::CoreVersions
            | Self::Groups
            | Self::Group(_)
            | Self::Resources { .. }
            | Self::Aggregated { .. } => true,
            Self::OpenApiV2 | Self::OpenApiV2Protobuf | Self::OpenApiV3Index | Self::OpenApiV3(_) => false,
        }
    }
}

/// A generated document.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    /// Hash of the content, in upper-case hex.
    pub(crate) hash: Arc<str>,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
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

/// The documents of a server.
pub(crate) struct Documents {
    registry: Registry,
    aggregated: AggregatedApis,
    /// Where clients reach the server; set once a listener is there.
    address: OnceLock<String>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    resources: Arc<Resources>,
    listing: Listing,
    documents: HashMap<DocumentKey, Document>,
    /// The hashes of the documents of single versions, most of which nobody reads.
    hashes: HashMap<String, Arc<str>>,
}

impl Documents {
    pub(crate) fn new(registry: Registry, aggregated: AggregatedApis) -> Self {
        Self { registry, aggregated, address: OnceLock::new(), cache: Mutex::default() }
    }

    /// The first address that is set stays: the one that clients in front of the machine use.
    pub(crate) fn set_address(&self, address: String) {
        let _ = self.address.set(address);
    }

    /// Where clients reach the server; empty before it listens.
    pub(crate) fn address(&self) -> &str {
        self.address.get().map_or("", String::as_str)
    }

    /// Lets the aggregated API of this version, if it is one, find out what it has.
    pub(crate) async fn refresh(&self, group: &str, version: &str) {
        self.aggregated.refresh(group, version).await;
    }

    /// The document, built now if it is not there; `None` where there is none. Two who ask at once may both build it.
    pub(crate) fn get(&self, key: DocumentKey) -> Option<Document> {
        let (resources, listing) = (self.registry.resources(), self.aggregated.listing());
        if let Some(document) = self.locked(&resources, &listing, |cache| cache.documents.get(&key).cloned()) {
            return Some(document);
        }
        let document = Document::new(self.build(&key, &resources, &listing)?);
        self.locked(&resources, &listing, |cache| cache.documents.insert(key, document.clone()));
        Some(document)
    }

    fn build(&self, key: &DocumentKey, resources: &Arc<Resources>, listing: &Listing) -> Option<Vec<u8>> {
        let served = || catalog::with(resources, listing);
        Some(match key {
            DocumentKey::Paths => discovery::paths(&served()),
            DocumentKey::CoreVersions => discovery::core_versions(&served(), self.address()),
            DocumentKey::Groups => discovery::group_list(&served()),
            DocumentKey::Group(group) => discovery::group(&served(), group)?,
            DocumentKey::Resources { group, version } => discovery::resource_list(&served(), group, version)?,
            DocumentKey::Aggregated { core, version } => discovery::aggregated(&served(), *core, *version),
            DocumentKey::OpenApiV2 => openapi::v2(resources),
            DocumentKey::OpenApiV2Protobuf => openapi::v2_protobuf(resources),
            DocumentKey::OpenApiV3Index => {
                let names = openapi::v3_names(resources).into_iter();
                openapi::v3_index(names.map(|name| {
                    let hash = self.hash_of(&name, resources, listing);
                    (name, hash.unwrap_or_default().to_string())
                }))
            }
            DocumentKey::OpenApiV3(version) => openapi::v3(resources, version)?,
        })
    }

    /// The hash of the OpenAPI document of a version, which is not kept: of all these documents a client reads one or two.
    fn hash_of(&self, version: &str, resources: &Arc<Resources>, listing: &Listing) -> Option<Arc<str>> {
        if let Some(hash) = self.locked(resources, listing, |cache| cache.hashes.get(version).cloned()) {
            return Some(hash);
        }
        let hash = Document::new(openapi::v3(resources, version)?).hash;
        self.locked(resources, listing, |cache| cache.hashes.insert(version.to_owned(), Arc::clone(&hash)));
        Some(hash)
    }

    fn locked<T>(&self, resources: &Arc<Resources>, listing: &Listing, act: impl FnOnce(&mut Cache) -> T) -> T {
        let mut cache = self.cache.lock();
        if !Arc::ptr_eq(&cache.resources, resources) {
            cache.follow(resources);
        }
        let same = |(a, b): (&Listed, &Listed)| Arc::ptr_eq(&a.2, &b.2);
        if cache.listing.len() != listing.len() || !cache.listing.iter().zip(listing).all(same) {
            cache.listing.clone_from(listing);
            cache.documents.retain(|key, _| !key.lists_aggregated_apis());
        }
        act(&mut cache)
    }
}

impl Cache {
    /// Keeps what is about versions whose resources are the same as before: a definition changes one of many.
    fn follow(&mut self, resources: &Arc<Resources>) {
        let (before, now) = (by_version(&self.resources), by_version(resources));
        let same = |version: &str| now.contains_key(version) && before.get(version) == now.get(version);
        self.documents.retain(|key, _| matches!(key, DocumentKey::OpenApiV3(version) if same(version)));
        self.hashes.retain(|version, _| same(version));
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
