//! How the API server finds the kubelet of a node: all of them are in this process.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use apiserver::NodeConnector;
use async_trait::async_trait;
use streaming::NodeApi;

/// Knows the nodes of this process, as they come and go. The API server starts before the first.
#[derive(Default)]
pub(crate) struct LocalNodes {
    nodes: RwLock<HashMap<String, Arc<dyn NodeApi>>>,
}

impl LocalNodes {
    /// A node is there, or has gone.
    pub(crate) fn set(&self, name: &str, api: Option<Arc<dyn NodeApi>>) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        match api {
            Some(api) => nodes.insert(name.to_owned(), api),
            None => nodes.remove(name),
        };
    }
}

#[async_trait]
impl NodeConnector for LocalNodes {
    async fn connect(&self, node: &str) -> Option<Arc<dyn NodeApi>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }
}
