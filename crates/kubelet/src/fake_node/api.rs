//! What a fake node answers when somebody wants to look into a pod: that there is nothing to look into.

use std::sync::Arc;

use async_trait::async_trait;
use streaming::{CommandOptions, Duplex, LogChunks, LogOptions, NodeApi, NodeError, PodRef, Streams};

/// The answers of the fake node of that name.
pub fn node_api(node: &str) -> Arc<dyn NodeApi> {
    Arc::new(OnPaper(node.to_owned()))
}

struct OnPaper(String);

impl OnPaper {
    fn refuse<T>(&self, lacking: &str) -> Result<T, NodeError> {
        let node = &self.0;
        Err(NodeError::BadRequest(format!(
            "node {node:?} is a fake node: its pods only seem to run, and have no {lacking}"
        )))
    }
}

#[async_trait]
impl NodeApi for OnPaper {
    async fn logs(&self, _: &PodRef, _: &str, _: LogOptions) -> Result<LogChunks, NodeError> {
        self.refuse("logs")
    }

    async fn exec(&self, _: &PodRef, _: &str, _: Vec<String>, _: CommandOptions, _: Streams) -> Result<i32, NodeError> {
        self.refuse("processes")
    }

    async fn attach(&self, _: &PodRef, _: &str, _: CommandOptions, _: Streams) -> Result<i32, NodeError> {
        self.refuse("processes")
    }

    async fn port_forward(&self, _: &PodRef, _: u16, _: Box<dyn Duplex>) -> Result<(), NodeError> {
        self.refuse("ports")
    }
}
