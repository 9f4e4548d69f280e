//! Generated documents, discovery and OpenAPI, kept as bytes for as long as what they describe stays the same.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use registry::{Registry, Resources};
use sha2::{Digest, Sha256};

use crate::aggregated_api::{AggregatedApis, Listed, Listing};
use crate::aggregator::{Aggregator, Snapshot};
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
    /// Whether what other servers have is in it.
    fn lists_other_servers(&self) -> bool {
        self.lists_aggregated_apis() || matches!(self, Self::OpenApiV2 | Self::OpenApiV2Protobuf | Self::OpenApiV3Index)
    }

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
    aggregator: Arc<Aggregator>,
    /// Where clients reach the server; set once a listener is there.
    address: OnceLock<String>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    resources: Arc<Resources>,
    listing: Listing,
    snapshot: Arc<Snapshot>,
    documents: HashMap<DocumentKey, Document>,
    /// The hashes of the documents of single versions, most of which nobody reads.
    hashes: HashMap<String, Arc<str>>,
}

impl Documents {
    pub(crate) fn new(registry: Registry, aggregated: AggregatedApis, aggregator: Arc<Aggregator>) -> Self {
        Self { registry, aggregated, aggregator, address: OnceLock::new(), cache: Mutex::default() }
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

    /// Whether a group has built-in resources.
    pub(crate) fn is_built_in(&self, group: &str) -> bool {
        self.registry.resources().is_built_in(group)
    }

    /// The document, built now if it is not there; `None` where there is none. Two who ask at once may both build it.
    pub(crate) fn get(&self, key: DocumentKey) -> Option<Document> {
        let described = Described {
            resources: self.registry.resources(),
            listing: self.aggregated.listing(),
            snapshot: self.aggregator.snapshot(),
        };
        if let Some(document) = self.locked(&described, |cache| cache.documents.get(&key).cloned()) {
            return Some(document);
        }
        let document = Document::new(self.build(&key, &described)?);
        self.locked(&described, |cache| cache.documents.insert(key, document.clone()));
        Some(document)
    }

    fn build(&self, key: &DocumentKey, described: &Described) -> Option<Vec<u8>> {
        let Described { resources, listing, snapshot } = described;
        let served = || catalog::with(resources, listing, snapshot);
        Some(match key {
            DocumentKey::Paths => discovery::paths(&served()),
            DocumentKey::CoreVersions => discovery::core_versions(&served(), self.address()),
            DocumentKey::Groups => discovery::group_list(&served()),
            DocumentKey::Group(group) => discovery::group(&served(), group)?,
            DocumentKey::Resources { group, version } => discovery::resource_list(&served(), group, version)?,
            DocumentKey::Aggregated { core, version } => discovery::aggregated(&served(), *core, *version),
            DocumentKey::OpenApiV2 => openapi::v2(resources, snapshot),
            DocumentKey::OpenApiV2Protobuf => openapi::v2_protobuf(resources, snapshot),
            DocumentKey::OpenApiV3Index => {
                let own = openapi::v3_names(resources, snapshot).into_iter().map(|name| {
                    let hash = self.hash_of(&name, described).unwrap_or_default();
                    let url = format!("/openapi/v3/{name}?hash={hash}");
                    (name, url)
                });
                let theirs = snapshot.remotes.iter().filter(|remote| !remote.documents.openapi_v3.is_empty());
                let theirs = theirs.map(|remote| (remote.target.root(), remote.documents.openapi_v3.clone()));
                openapi::v3_index(own.chain(theirs))
            }
            DocumentKey::OpenApiV3(version) => openapi::v3(resources, version)?,
        })
    }

    /// The hash of the OpenAPI document of a version, which is not kept: of all these documents a client reads one or two.
    fn hash_of(&self, version: &str, described: &Described) -> Option<Arc<str>> {
        if let Some(hash) = self.locked(described, |cache| cache.hashes.get(version).cloned()) {
            return Some(hash);
        }
        let hash = Document::new(openapi::v3(&described.resources, version)?).hash;
        self.locked(described, |cache| cache.hashes.insert(version.to_owned(), Arc::clone(&hash)));
        Some(hash)
    }

    fn locked<T>(&self, described: &Described, act: impl FnOnce(&mut Cache) -> T) -> T {
        let Described { resources, listing, snapshot } = described;
        let mut cache = self.cache.lock();
        if !Arc::ptr_eq(&cache.resources, resources) {
            cache.follow(resources);
        }
        let same = |(a, b): (&Listed, &Listed)| Arc::ptr_eq(&a.2, &b.2);
        if cache.listing.len() != listing.len() || !cache.listing.iter().zip(listing).all(same) {
            cache.listing.clone_from(listing);
            cache.documents.retain(|key, _| !key.lists_aggregated_apis());
        }
        if !Arc::ptr_eq(&cache.snapshot, snapshot) {
            cache.snapshot = Arc::clone(snapshot);
            cache.documents.retain(|key, _| !key.lists_other_servers());
        }
        act(&mut cache)
    }
}

/// What the documents describe, at one moment.
struct Described {
    resources: Arc<Resources>,
    listing: Listing,
    snapshot: Arc<Snapshot>,
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
