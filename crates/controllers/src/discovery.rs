//! Which kinds of objects the API has now, those of CustomResourceDefinitions included.

use kube::Client;
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

fn kind(resource: ApiResource, capabilities: &ApiCapabilities) -> Option<Kind> {
    let has = |verb: &str| capabilities.operations.iter().any(|operation| operation == verb);
    (has("list") && has("delete")).then(|| Kind {
        resource,
        namespaced: capabilities.scope == Scope::Namespaced,
        delete_collection: has("deletecollection"),
    })
}
