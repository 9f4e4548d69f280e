//! Metrics: what pods use, and what they say of themselves, as the APIs that `kubectl top` and autoscalers ask.
//!
//! | API | made from |
//! |---|---|
//! | `metrics.k8s.io/v1beta1` | `/metrics/resource` of the nodes, through the API server's proxy; of fake nodes, what their pods say |
//! | `custom.metrics.k8s.io/v1beta2`, `v1beta1` | what annotated pods tell ([`scrape`]), by [`rules`] |
//! | `external.metrics.k8s.io/v1beta1` | the same, whosever it is |
//!
//! An ordinary client of the API: it holds a [`kube::Client`] and informers, and offers [`Api`], which whoever serves the
//! API mounts under the groups that it lists. It must not know who serves it, nor any other component.
//!
//! Nothing is read while nobody asks: see [`collector`].

mod answer;
mod application;
mod collector;
mod fake;
mod place;
mod prometheus;
mod query;
mod resource;
mod rules;
mod scrape;
mod usage;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use informer::Informers;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use machinery::Verb;
use machinery::status::{ApiError, Reason};

use crate::application::ApplicationMetrics;
use crate::collector::Collector;
use crate::place::{Place, Query};
use crate::resource::ResourceMetrics;

/// What the metrics are made with.
#[derive(Clone)]
pub struct Deps {
    /// Reads the nodes' statistics.
    pub client: Client,
    /// Reads nodes and pods.
    pub informers: Informers,
}

/// A resource that is served, for discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The name in paths.
    pub name: String,
    /// The kind.
    pub kind: &'static str,
    /// Whether it is in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [Verb<'static>],
}

/// The groups with their versions, in the order of preference.
pub const GROUPS: &[(&str, &str)] = &[
    (resource::GROUP, resource::VERSION),
    (application::CUSTOM, "v1beta2"),
    (application::CUSTOM, "v1beta1"),
    (application::EXTERNAL, "v1beta1"),
];

/// Answers the metrics APIs. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    resource: ResourceMetrics,
    application: ApplicationMetrics,
}

impl Api {
    /// Prepares the answers; reads nothing yet. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let Deps { client, informers } = deps;
        let (nodes, pods) = (informers.informer::<Node>(), informers.informer::<Pod>());
        let application = ApplicationMetrics::new(&client, pods.clone());
        let collector = Collector::new(client, nodes.clone(), pods.clone());
        Self(Arc::new(Inner { resource: ResourceMetrics::new(collector, nodes, pods), application }))
    }

    /// What is served under one of [`GROUPS`]; of metrics of applications, those that are known since the last scrape.
    #[must_use]
    pub fn resources(&self, group: &str) -> Vec<Resource> {
        match group {
            resource::GROUP => [("nodes", "NodeMetrics", false), ("pods", "PodMetrics", true)]
                .map(|(name, kind, namespaced)| Resource {
                    name: name.to_owned(),
                    kind,
                    namespaced,
                    verbs: &[Verb::Get, Verb::List],
                })
                .into(),
            group => self.0.application.resources(group),
        }
    }

    /// Finds out which metrics applications have, for who asks for the list of them.
    pub async fn refresh(&self, group: &str) {
        if group != resource::GROUP {
            self.0.application.refresh().await;
        }
    }

    /// Answers a request to one of [`GROUPS`]; whatever goes wrong is in the response.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.try_answer(&request).await.unwrap_or_else(|error| answer::error(&error))
    }

    async fn try_answer(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, ApiError> {
        let place = Place::parse(request.uri().path()).ok_or_else(ApiError::no_such_resource)?;
        let query = Query::of(request.uri());
        if request.method() != Method::GET || query.watch() {
            let message = "the server does not allow this method on the requested resource";
            return Err(ApiError::new(405, Reason::MethodNotAllowed, message));
        }
        match &*place.group {
            resource::GROUP => self.0.resource.answer(&place, &query, request.headers()).await,
            application::CUSTOM => self.0.application.custom(&place, &query).await,
            application::EXTERNAL => self.0.application.external(&place, &query).await,
            _ => Err(ApiError::no_such_resource()),
        }
    }
}
