//! Which kinds of objects the API has now, those of CustomResourceDefinitions included.

use kube::Client;
use kube::core::discovery::v2::APIGroupDiscoveryList;
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope};
use kube::discovery::Discovery;

/// One kind of object, in the version that its group prefers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Its names.
    pub(crate) resource: ApiResource,
    /// Whether its objects are in namespaces.
    pub(crate) namespaced: bool,
    /// Whether all of a namespace can be deleted with one request.
    pub(crate) delete_collection: bool,
}

impl Kind {
    /// The resource and its group, as upstream prints it: `pods.`, `deployments.apps`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// All kinds whose objects can be listed and deleted.
pub(crate) async fn kinds(client: &Client) -> Result<Vec<Kind>, kube::Error> {
    let discovery = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(discovery) => discovery,
        // An API server from before the aggregated form.
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    // The preferred version of a group need not have all of its kinds.
    let resources = discovery.groups().flat_map(kube::discovery::ApiGroup::resources_by_stability);
    Ok(resources.filter_map(|(resource, capabilities)| kind(resource, &capabilities)).collect())
}

/// The versions that are served by a server which could not be asked what it has, so that [`kinds`] may lack some of theirs.
pub(crate) async fn stale_versions(client: &Client) -> Vec<String> {
    // An API server from before the aggregated form says nothing of them.
    let Ok(groups) = client.list_api_groups_aggregated().await else { return Vec::new() };
    stale(groups)
}

fn stale(groups: APIGroupDiscoveryList) -> Vec<String> {
    let mut stale = Vec::new();
    for group in groups.items {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        let versions = group.versions.into_iter().filter(|version| version.freshness.as_deref() == Some("Stale"));
        stale.extend(versions.filter_map(|version| Some(format!("{name}/{}", version.version?))));
    }
    stale.sort();
    stale
}

fn kind(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<Kind> {
    let has = |verb: &str| capabilities.operations.iter().any(|operation| operation == verb);
    (has("list") && has("delete")).then(|| Kind {
        resource,
        namespaced: capabilities.scope == Scope::Namespaced,
        delete_collection: has("deletecollection"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn versions_that_nobody_could_be_asked_about() {
        let version = |version: &str, freshness: &str| json!({ "version": version, "freshness": freshness });
        let groups = json!({ "items": [
            { "metadata": { "name": "metrics.k8s.io" }, "versions": [version("v1", "Stale"), version("v1beta1", "Current")] },
            { "metadata": { "name": "apps" }, "versions": [version("v1", "Current")] },
            { "metadata": { "name": "a.example.com" }, "versions": [version("v2", "Stale")] },
        ] });
        assert_eq!(stale(from_value(groups).expect("a list")), ["a.example.com/v2", "metrics.k8s.io/v1"]);
    }
}
