//! What aggregated API servers have: their part of discovery and OpenAPI.
//!
//! They are asked for the classic list of a version, which each of them has to serve, and which says all that the aggregated form
//! does. OpenAPI v3 is passed on as it is, document by document; of v2 there is one document for all, so that what belongs to
//! the version is taken out of the server's (upstream: kube-aggregator `pkg/controllers/openapi`, `pkg/controllers/openapiv3`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use machinery::Verb;
use serde::Deserialize;

use super::Target;
use super::openapi::{Part, part_of};
use super::proxy::{Document, Place};
use crate::aggregated_api::AggregatedResource;

/// How long a server may take for one of its documents.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a server's OpenAPI document is read.
const OPENAPI_BYTES: usize = 8 << 20;

/// What a server has of a version.
#[derive(Clone, Default)]
pub(crate) struct RemoteDocuments {
    /// What discovery lists.
    pub(crate) resources: Arc<[AggregatedResource]>,
    /// Whether the server has said so when it was asked last.
    pub(crate) is_fresh: bool,
    /// Where its OpenAPI v3 document is, with its hash; empty where it has none.
    pub(crate) openapi_v3: String,
    /// What of its OpenAPI v2 document is about the version, and the tag of that document.
    pub(crate) openapi_v2: Option<Arc<Part>>,
    v2_tag: String,
}

/// `/openapi/v3`.
#[derive(Deserialize)]
struct Index {
    paths: BTreeMap<String, IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(rename = "serverRelativeURL")]
    url: String,
}

impl RemoteDocuments {
    /// The same of a server that does not answer.
    pub(super) fn stale(self: Arc<Self>) -> Arc<Self> {
        if self.is_fresh { Arc::new(Self { is_fresh: false, ..(*self).clone() }) } else { self }
    }

    fn is_same(&self, other: &Self) -> bool {
        let parts = [self, other].map(|one| one.openapi_v2.as_ref().map(Arc::as_ptr));
        self.is_fresh == other.is_fresh
            && self.openapi_v3 == other.openapi_v3
            && self.v2_tag == other.v2_tag
            && parts[0] == parts[1]
            && self.resources == other.resources
    }
}

/// Reads what a server lists, and asks for its schemas. What it does not have, or not in a form that can be read, is left out.
pub(super) async fn read(
    target: &Target,
    place: &Place,
    list: &[u8],
    known: &Arc<RemoteDocuments>,
) -> Arc<RemoteDocuments> {
    let list: APIResourceList = serde_json::from_slice(list).unwrap_or_default();
    let (openapi_v3, (openapi_v2, v2_tag)) =
        tokio::join!(openapi_v3(target, place, known), openapi_v2(target, place, known));
    let resources = list.resources.into_iter().filter_map(resource).collect();
    let read = RemoteDocuments { resources, is_fresh: true, openapi_v3, openapi_v2, v2_tag };
    if read.is_same(known) { Arc::clone(known) } else { Arc::new(read) }
}

/// A resource as discovery lists it; `None` of one without a name or kind, which no client could use.
fn resource(listed: APIResource) -> Option<AggregatedResource> {
    if listed.name.is_empty() || listed.kind.is_empty() {
        return None;
    }
    // Nobody can ask for any other.
    let verbs = listed.verbs.iter().filter_map(|verb| Verb::named(verb));
    Some(AggregatedResource {
        verbs: verbs.collect(),
        name: listed.name,
        singular: listed.singular_name,
        kind: listed.kind,
        group_version: listed.version.map(|version| (listed.group.unwrap_or_default(), version)),
        namespaced: listed.namespaced,
        short_names: listed.short_names.unwrap_or_default(),
        categories: listed.categories.unwrap_or_default(),
    })
}

/// Asks for a document that a server need not have; `None` when it does not answer.
async fn get(target: &Target, place: &Place, path: &str, tag: &str) -> Option<Document> {
    tokio::time::timeout(TIMEOUT, target.get(place, path, tag, OPENAPI_BYTES)).await.ok()?.ok()
}

/// Where the OpenAPI v3 document of the version is.
async fn openapi_v3(target: &Target, place: &Place, known: &RemoteDocuments) -> String {
    match get(target, place, "/openapi/v3", "").await {
        Some(answer) if answer.status.is_success() => indexed(&answer.bytes, &target.root()).unwrap_or_default(),
        Some(_) => String::new(),
        None => known.openapi_v3.clone(),
    }
}

/// Where an index says that the document `name` is.
fn indexed(index: &[u8], name: &str) -> Option<String> {
    let mut index: Index = serde_json::from_slice(index).ok()?;
    let url = index.paths.remove(name)?.url;
    // It is a path of this server from now on, and must not lead to another document.
    let path = url.split_once('?').map_or(url.as_str(), |(path, _)| path);
    (path == format!("/openapi/v3/{name}")).then_some(url)
}

/// What of the OpenAPI v2 document is about the version, with the tag of the whole.
async fn openapi_v2(target: &Target, place: &Place, known: &RemoteDocuments) -> (Option<Arc<Part>>, String) {
    match get(target, place, "/openapi/v2", &known.v2_tag).await {
        Some(answer) if answer.status.is_success() => {
            let part = part_of(&answer.bytes, target);
            let part = part.map(|part| match &known.openapi_v2 {
                Some(known) if **known == part => Arc::clone(known),
                _ => Arc::new(part),
            });
            (part, answer.tag)
        }
        Some(answer) if answer.status != StatusCode::NOT_MODIFIED => (None, String::new()),
        _ => (known.openapi_v2.clone(), known.v2_tag.clone()),
    }
}
