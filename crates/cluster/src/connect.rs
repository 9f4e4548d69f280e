//! How the API server finds the kubelet of a node: all of them are in this process, and fake nodes have none.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use apiserver::NodeConnector;
use async_trait::async_trait;
use informer::{Informer, ObjectKey};
use k8s_openapi::api::core::v1::Node as ApiNode;
use kubelet::fake_node;
use parking_lot::RwLock;
use streaming::NodeApi;

/// Knows the nodes of this process, as they come and go. The API server starts before the first.
#[derive(Default)]
pub(crate) struct LocalNodes {
    nodes: RwLock<HashMap<String, Arc<dyn NodeApi>>>,
    /// All Nodes, fake ones among them.
    known: OnceLock<Informer<ApiNode>>,
}

impl LocalNodes {
    /// From here on fake nodes answer, too: that they cannot.
    pub(crate) fn know(&self, nodes: Informer<ApiNode>) {
        // Once is enough: there is one set of informers.
        let _ = self.known.set(nodes);
    }

    /// A node is there, or has gone.
    pub(crate) fn set(&self, name: &str, api: Option<Arc<dyn NodeApi>>) {
        let mut nodes = self.nodes.write();
        match api {
            Some(api) => nodes.insert(name.to_owned(), api),
            None => nodes.remove(name),
        };
    }
}

#[async_trait]
impl NodeConnector for LocalNodes {
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        let running = self.nodes.read().get(node).cloned();
        let fake = || {
            let known = self.known.get()?.get(&ObjectKey::new("", node))?;
            fake_node::is_fake(&known).then(|| fake_node::node_api(node))
        };
        running.or_else(fake)
    }
}
