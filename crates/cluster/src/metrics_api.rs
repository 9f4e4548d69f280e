//! The metrics APIs, mounted into the API server.
//!
//! The API server is there first: it is told of these APIs when it is made, and they begin to answer when their component is
//! there.

use std::sync::{Arc, OnceLock};

use apiserver::{AggregatedApi, AggregatedResource, AggregatedService};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use metrics::Api;
use parking_lot::Mutex;

/// The place in the API server that the metrics will take.
#[derive(Default)]
pub(crate) struct MetricsApi {
    api: OnceLock<Api>,
    /// What was listed last, by group: discovery tells by the allocation whether anything changed.
    listed: Mutex<Vec<Listed>>,
}

struct Listed {
    group: String,
    resources: Vec<metrics::Resource>,
    served: Arc<[AggregatedResource]>,
}

impl MetricsApi {
    /// The component is there.
    pub(crate) fn set(&self, api: Api) {
        // It is started once.
        let _ = self.api.set(api);
    }

    /// What to tell the API server.
    pub(crate) fn extensions(self: &Arc<Self>) -> Vec<AggregatedApi> {
        let extension = |(group, version): &(&'static str, &'static str)| AggregatedApi {
            group,
            version,
            service: Arc::clone(self) as Arc<dyn AggregatedService>,
        };
        metrics::GROUPS.iter().map(extension).collect()
    }
}

#[async_trait]
impl AggregatedService for MetricsApi {
    fn resources(&self, group: &str, _version: &str) -> Arc<[AggregatedResource]> {
        let resources = self.api.get().map(|api| api.resources(group)).unwrap_or_default();
        let mut listed = self.listed.lock();
        let at = listed.iter().position(|listed| listed.group == group);
        if let Some(known) = at.map(|at| &listed[at])
            && known.resources == resources
        {
            return Arc::clone(&known.served);
        }
        let served: Arc<[AggregatedResource]> = resources.iter().map(served).collect();
        let new = Listed { group: group.to_owned(), resources, served: Arc::clone(&served) };
        match at {
            Some(at) => listed[at] = new,
            None => listed.push(new),
        }
        served
    }

    async fn refresh(&self, group: &str, _version: &str) {
        if let Some(api) = self.api.get() {
            api.refresh(group).await;
        }
    }

    async fn call(&self, request: Request<Bytes>) -> Response<Bytes> {
        if let Some(api) = self.api.get() {
            return api.answer(request).await;
        }
        let mut response = Response::new(Bytes::from_static(b"metrics are not there yet\n"));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

fn served(resource: &metrics::Resource) -> AggregatedResource {
    AggregatedResource {
        name: resource.name.clone(),
        kind: resource.kind.to_owned(),
        namespaced: resource.namespaced,
        verbs: resource.verbs.to_vec(),
        ..AggregatedResource::default()
    }
}
