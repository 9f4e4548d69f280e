//! Discovery: what is served, in upstream's classic form and in the aggregated one.
//!
//! kubectl asks for the aggregated form first (two requests tell it everything, and an `ETag` saves it even those), and
//! falls back to the classic one, a document per group and version.
//!
//! Documents are written by types of their own: those of `k8s-openapi` repeat `kind` and `apiVersion` in each group, and those of
//! `kube-core`, which the tests read the aggregated form with, have neither and write every list that is empty.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIResource, GroupVersionForDiscovery, ServerAddressByClientCIDR,
};
use machinery::Verb;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::catalog::{Served, api_version, groups};
use crate::health;
use crate::negotiate::{DiscoveryVersion, Encoding};

#[derive(Serialize)]
struct Paths {
    paths: BTreeSet<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiVersions<'a> {
    kind: &'static str,
    versions: Vec<&'a str>,
    #[serde(rename = "serverAddressByClientCIDRs")]
    server_address_by_client_cidrs: [ServerAddressByClientCIDR; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroupList<'a> {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<ApiGroup<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'a str,
    versions: Vec<GroupVersionForDiscovery>,
    preferred_version: GroupVersionForDiscovery,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceList {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    group_version: String,
    resources: Vec<APIResource>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupDiscoveryList<'a> {
    kind: &'static str,
    api_version: String,
    metadata: Empty,
    items: Vec<GroupDiscovery<'a>>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct GroupDiscovery<'a> {
    metadata: GroupName<'a>,
    versions: Vec<VersionDiscovery<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupName<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

#[derive(Serialize)]
struct VersionDiscovery<'a> {
    version: &'a str,
    resources: Vec<ResourceDiscovery<'a>>,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery<'a> {
    resource: &'a str,
    response_kind: GroupVersionKind<'a>,
    scope: &'static str,
    singular_resource: &'a str,
    verbs: &'a [Verb<'static>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    categories: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<SubresourceDiscovery<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SubresourceDiscovery<'a> {
    subresource: &'a str,
    response_kind: GroupVersionKind<'a>,
    verbs: &'a [Verb<'static>],
}

#[derive(Serialize)]
struct GroupVersionKind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

/// `/`: the paths there are, above those of resources.
pub(crate) fn paths(served: &[Served<'_>]) -> Vec<u8> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/apis/",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
    ];
    let mut paths: BTreeSet<String> = fixed.into_iter().map(str::to_owned).chain(health::paths()).collect();
    for (group, versions) in groups(served) {
        let parent = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        paths.extend(versions.iter().map(|version| format!("{parent}/{version}")));
        paths.insert(parent);
    }
    // A page for people, unlike the others. Strings always encode.
    serde_json::to_vec_pretty(&Paths { paths }).unwrap_or_default()
}

/// `/api` in the classic form; `address` is where the client reached us.
pub(crate) fn core_versions(served: &[Served<'_>], address: &str) -> Vec<u8> {
    let versions = groups(served).into_iter().find(|(group, _)| group.is_empty()).map(|(_, versions)| versions);
    encode(&ApiVersions {
        kind: "APIVersions",
        versions: versions.unwrap_or_default(),
        server_address_by_client_cidrs: [ServerAddressByClientCIDR {
            client_cidr: "0.0.0.0/0".to_owned(),
            server_address: address.to_owned(),
        }],
    })
}

/// `/apis` in the classic form.
pub(crate) fn group_list(served: &[Served<'_>]) -> Vec<u8> {
    let named = groups(served).into_iter().filter(|(group, _)| !group.is_empty());
    let groups = named.map(|(group, versions)| api_group(group, &versions)).collect();
    encode(&ApiGroupList { kind: "APIGroupList", api_version: "v1", groups })
}

/// `/apis/GROUP`; `None` when there is no such group.
pub(crate) fn group(served: &[Served<'_>], name: &str) -> Option<Vec<u8>> {
    let (group, versions) = groups(served).into_iter().find(|(group, _)| *group == name && !name.is_empty())?;
    let group = api_group(group, &versions);
    Some(encode(&ApiGroup { kind: Some("APIGroup"), api_version: Some("v1"), ..group }))
}

fn api_group<'a>(group: &'a str, versions: &[&'a str]) -> ApiGroup<'a> {
    ApiGroup {
        kind: None,
        api_version: None,
        name: group,
        versions: versions.iter().map(|version| group_version(group, version)).collect(),
        preferred_version: group_version(group, versions.first().copied().unwrap_or_default()),
    }
}

fn group_version(group: &str, version: &str) -> GroupVersionForDiscovery {
    GroupVersionForDiscovery { group_version: api_version(group, version), version: version.to_owned() }
}

/// `/api/v1`, `/apis/GROUP/VERSION`; `None` when there is no such version.
pub(crate) fn resource_list(served: &[Served<'_>], group: &str, version: &str) -> Option<Vec<u8>> {
    let mut resources = Vec::new();
    let mut known = false;
    for entry in served.iter().filter(|entry| entry.group == group && entry.version == version) {
        known = true;
        if entry.plural.is_empty() {
            continue;
        }
        resources.push(APIResource {
            name: entry.plural.to_owned(),
            singular_name: entry.singular.to_owned(),
            namespaced: entry.namespaced,
            kind: entry.kind.to_owned(),
            group: foreign(entry, entry.group_version).map(|(group, _)| group.to_owned()),
            version: foreign(entry, entry.group_version).map(|(_, version)| version.to_owned()),
            verbs: words(entry.verbs),
            short_names: listed(entry.short_names),
            categories: listed(entry.categories),
            storage_version_hash: entry.storage.map(|version| storage_version_hash(version, entry.kind)),
        });
        for subresource in entry.subresources {
            let other = subresource.kind(entry.kind);
            let foreign = other.and_then(|(group, version, _)| foreign(entry, (group, version)));
            resources.push(APIResource {
                name: format!("{}/{}", entry.plural, subresource.name()),
                namespaced: entry.namespaced,
                group: foreign.map(|(group, _)| group.to_owned()).filter(|group| !group.is_empty()),
                version: foreign.map(|(_, version)| version.to_owned()),
                kind: other.map_or(entry.kind, |(.., kind)| kind).to_owned(),
                verbs: words(subresource.verbs()),
                ..APIResource::default()
            });
        }
    }
    if !known {
        return None;
    }
    // By their paths, as upstream's installer goes through them.
    resources.sort_by(|one, other| one.name.cmp(&other.name));
    Some(encode(&ApiResourceList {
        kind: "APIResourceList",
        // The core group's document has none upstream; clients do not look.
        api_version: (!group.is_empty()).then_some("v1"),
        group_version: api_version(group, version),
        resources,
    }))
}

/// Tells whether objects are stored in another version than before (KEP-2339; apiserver `pkg/endpoints/discovery/storageversionhash.go`).
fn storage_version_hash((group, version): (&str, &str), kind: &str) -> String {
    STANDARD.encode(&Sha256::digest(format!("{group}/{version}/{kind}"))[..8])
}

/// Group and version of a kind, which upstream names only where they differ from those of the document.
fn foreign<'a>(entry: &Served<'_>, group_version: (&'a str, &'a str)) -> Option<(&'a str, &'a str)> {
    Some(group_version).filter(|(group, version)| *group != entry.group || *version != entry.version)
}

fn words(verbs: &[Verb<'_>]) -> Vec<String> {
    verbs.iter().map(ToString::to_string).collect()
}

fn listed(names: &[String]) -> Option<Vec<String>> {
    (!names.is_empty()).then(|| names.to_vec())
}

/// The aggregated form: of the core group for `/api`, of all others for `/apis`.
pub(crate) fn aggregated(served: &[Served<'_>], core: bool, version: DiscoveryVersion) -> Vec<u8> {
    let wanted = groups(served).into_iter().filter(|(group, _)| group.is_empty() == core);
    let items = wanted.map(|(group, versions)| GroupDiscovery {
        metadata: GroupName { name: group },
        versions: versions
            .into_iter()
            .map(|version| {
                let entries = served.iter().filter(|entry| entry.group == group && entry.version == version);
                // What cannot be reached is not to be taken for gone.
                let is_fresh = entries.clone().all(|entry| entry.is_fresh);
                let freshness = if is_fresh { "Current" } else { "Stale" };
                VersionDiscovery { version, resources: version_resources(entries), freshness }
            })
            .collect(),
    });
    encode(&GroupDiscoveryList {
        kind: "APIGroupDiscoveryList",
        api_version: format!("apidiscovery.k8s.io/{}", version.as_str()),
        metadata: Empty {},
        items: items.collect(),
    })
}

/// The media type of [`aggregated`].
pub(crate) fn content_type(encoding: Encoding, version: DiscoveryVersion) -> String {
    let (media_type, version) = (encoding.content_type(), version.as_str());
    format!("{media_type};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
}

/// The resources of one version; what has a slash in its name goes below the resource before the slash.
fn version_resources<'a>(entries: impl Iterator<Item = &'a Served<'a>>) -> Vec<ResourceDiscovery<'a>> {
    let mut resources: Vec<ResourceDiscovery<'a>> = Vec::new();
    for entry in entries.filter(|entry| !entry.plural.is_empty()) {
        let resource = resource_discovery(entry);
        let Some((parent, subresource)) = entry.plural.split_once('/') else {
            resources.push(resource);
            continue;
        };
        let at = resources.iter().position(|known| known.resource == parent).unwrap_or_else(|| {
            // Upstream: a parent that is not served itself has an empty kind, since clients expect one.
            let response_kind = GroupVersionKind { group: "", version: "", kind: "" };
            let scope = resource.scope;
            resources.push(ResourceDiscovery {
                resource: parent,
                response_kind,
                scope,
                singular_resource: "",
                verbs: &[],
                short_names: &[],
                categories: &[],
                subresources: Vec::new(),
            });
            resources.len() - 1
        });
        resources[at].subresources.push(SubresourceDiscovery {
            subresource,
            response_kind: resource.response_kind,
            verbs: resource.verbs,
        });
    }
    resources.sort_by_key(|resource| resource.resource);
    resources
}

fn resource_discovery<'a>(entry: &'a Served<'a>) -> ResourceDiscovery<'a> {
    let own = |kind| GroupVersionKind { group: entry.group, version: entry.version, kind };
    let (group, version) = entry.group_version;
    ResourceDiscovery {
        resource: entry.plural,
        response_kind: GroupVersionKind { group, version, kind: entry.kind },
        scope: if entry.namespaced { "Namespaced" } else { "Cluster" },
        singular_resource: entry.singular,
        verbs: entry.verbs,
        short_names: entry.short_names,
        categories: entry.categories,
        subresources: entry
            .subresources
            .iter()
            .map(|subresource| SubresourceDiscovery {
                subresource: subresource.name(),
                response_kind: subresource.kind(entry.kind).map_or_else(
                    || own(entry.kind),
                    |(group, version, kind)| GroupVersionKind { group, version, kind },
                ),
                verbs: subresource.verbs(),
            })
            .collect(),
    }
}

/// These types hold nothing that could fail to encode.
fn encode(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}
