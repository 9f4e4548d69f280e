//! Readings of the nodes, taken when somebody asks: nobody asks, nothing runs.
//!
//! A rate takes two readings. The first who asks waits a second for the second one; who asks again gets the rate since the
//! last time. An autoscaler asks every 15 seconds, and so there is one reading in 15 seconds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use informer::Informer;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use machinery::well_known::is_fake_node;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::fake;
use crate::usage::Readings;

/// A reading, or a scrape, is not taken again before it has this age.
pub(crate) const FRESH: Duration = Duration::from_secs(10);
/// A reading, or a scrape, older than this says nothing of the present.
pub(crate) const STALE: Duration = Duration::from_secs(90);
/// What the first who asks for a rate waits for.
pub(crate) const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// A node that does not answer in this time is left out.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// So many nodes are asked at once.
const CONCURRENT: usize = 16;

/// The last two readings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pair {
    /// The earlier.
    pub(crate) before: Arc<Readings>,
    /// The later.
    pub(crate) after: Arc<Readings>,
}

/// Reads the nodes.
pub(crate) struct Collector {
    client: Client,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pair: Pair,
    read: Option<Instant>,
}

impl Collector {
    pub(crate) fn new(client: Client, nodes: Informer<Node>, pods: Informer<Pod>) -> Self {
        Self { client, nodes, pods, state: Mutex::default() }
    }

    /// Two readings that are as fresh as they need be. Who asks meanwhile waits for the same ones.
    pub(crate) async fn pair(&self) -> Pair {
        let mut state = self.state.lock().await;
        let age = state.read.map(|read| read.elapsed());
        match age {
            Some(age) if age < FRESH => return state.pair.clone(),
            Some(age) if age < STALE => {}
            _ => {
                state.pair.after = Arc::new(self.read().await);
                tokio::time::sleep(FIRST_WINDOW).await;
            }
        }
        let after = Arc::new(self.read().await);
        state.pair = Pair { before: std::mem::replace(&mut state.pair.after, Arc::clone(&after)), after };
        state.read = Some(Instant::now());
        state.pair.clone()
    }

    async fn read(&self) -> Readings {
        self.nodes.synced().await;
        let nodes = self.nodes.list().into_iter();
        let (fake, asked): (Vec<_>, Vec<_>) = nodes.partition(|node| is_fake_node(node.metadata.annotations.as_ref()));
        let names = asked.into_iter().filter_map(|node| node.metadata.name.clone());
        let answers = stream::iter(names).map(|name| async move {
            let answer = tokio::time::timeout(NODE_TIMEOUT, self.ask(&name)).await;
            (name, answer)
        });
        let mut readings = Readings::default();
        let mut answers = std::pin::pin!(answers.buffer_unordered(CONCURRENT));
        while let Some((name, answer)) = answers.next().await {
            match answer {
                Ok(Ok(text)) => readings.add(&name, &text, Timestamp::now().as_millisecond()),
                Ok(Err(error)) => tracing::debug!(node = name, %error, "a node does not tell what it uses"),
                Err(_) => tracing::debug!(node = name, "a node does not tell in time what it uses"),
            }
        }
        let fake: HashSet<String> = fake.into_iter().filter_map(|node| node.metadata.name.clone()).collect();
        if !fake.is_empty() {
            self.pods.synced().await;
            let now = Timestamp::now().as_millisecond();
            fake::add(&mut readings, &fake, self.pods.list().iter().map(|pod| &**pod), now);
        }
        readings
    }

    async fn ask(&self, node: &str) -> Result<String, kube::Error> {
        let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource"));
        let request = request.body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await
    }
}
