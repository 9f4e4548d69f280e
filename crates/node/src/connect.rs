//! How the API server finds the kubelet of a node: in this process there is one.

use std::sync::{Arc, OnceLock};

use apiserver::NodeConnector;
use async_trait::async_trait;
use streaming::NodeApi;

/// Knows the one node of this process, as soon as it is there. The API server starts before it.
#[derive(Default)]
pub(crate) struct LocalNode {
    node: OnceLock<(String, Arc<dyn NodeApi>)>,
}

impl LocalNode {
    /// The node is there.
    pub(crate) fn set(&self, name: &str, api: Arc<dyn NodeApi>) {
        // Set twice it would be by a second kubelet, which this process does not have.
        let _ = self.node.set((name.to_owned(), api));
    }
}

#[async_trait]
impl NodeConnector for LocalNode {
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        let (name, api) = self.node.get()?;
        (name == node).then(|| Arc::clone(api))
    }
}
