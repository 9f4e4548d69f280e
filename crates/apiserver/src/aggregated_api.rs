//! APIs of other components in this process, under their own group and version. Those of other servers are the affair of the
//! [`aggregator`](crate::aggregator).
//!
//! An [`AggregatedApi`] is listed by discovery in both forms, and its requests are authenticated and authorised like all
//! others before it is called. Its objects are its own affair: nothing of them is in the registry.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use machinery::Verb;
use machinery::status::ApiError;

use crate::body::{RequestBody, ResponseBody};
use crate::respond::Answer;

/// A version of an API group that somebody else answers.
#[derive(Clone)]
pub struct AggregatedApi {
    /// API group; none that the registry serves.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Who answers.
    pub service: Arc<dyn AggregatedService>,
}

/// Answers the requests of an [`AggregatedApi`].
#[async_trait]
pub trait AggregatedService: Send + Sync + 'static {
    /// What discovery lists: the same allocation for as long as it stays the same. A name with a slash is a subresource, of a resource that need not be listed itself.
    fn resources(&self, group: &str, version: &str) -> Arc<[AggregatedResource]>;

    /// Called before a client gets the list of this one version: the time to find out what there is.
    async fn refresh(&self, _group: &str, _version: &str) {}

    /// Answers a request to `/apis/GROUP/VERSION/...` that was found to be allowed. A body is at most 3 MiB long.
    async fn call(&self, request: Request<Bytes>) -> Response<Bytes>;
}

/// A resource of an [`AggregatedApi`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AggregatedResource {
    /// The name in paths, `PLURAL` or `PLURAL/SUBRESOURCE`.
    pub name: String,
    /// The name kubectl accepts for one of them.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// Group and version of the kind, where they are not those of the resource (`autoscaling`, `v1` of a Scale).
    pub group_version: Option<(String, String)>,
    /// Whether it is in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<Verb<'static>>,
    /// Abbreviations kubectl accepts.
    pub short_names: Vec<String>,
    /// Groups of resources kubectl accepts as one name.
    pub categories: Vec<String>,
}

/// What the extensions of a server list at one moment.
pub(crate) type Listing = Vec<Listed>;

/// Group, version and resources of one extension.
pub(crate) type Listed = (&'static str, &'static str, Arc<[AggregatedResource]>);

/// The extensions of a server.
#[derive(Clone, Default)]
pub(crate) struct AggregatedApis(Arc<[AggregatedApi]>);

impl AggregatedApis {
    pub(crate) fn new(extensions: Vec<AggregatedApi>) -> Self {
        Self(extensions.into())
    }

    /// The one that serves this version.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<&AggregatedApi> {
        self.0.iter().find(|extension| extension.group == group && extension.version == version)
    }

    /// What they list now.
    pub(crate) fn listing(&self) -> Listing {
        let listed = self.0.iter().map(|extension| {
            let AggregatedApi { group, version, service } = extension;
            (*group, *version, service.resources(group, version))
        });
        listed.collect()
    }

    /// Lets the extension of this version, if it is one, find out what it has.
    pub(crate) async fn refresh(&self, group: &str, version: &str) {
        if let Some(extension) = self.find(group, version) {
            extension.service.refresh(group, version).await;
        }
    }
}

impl AggregatedApi {
    /// Passes a request on.
    pub(crate) async fn answer(&self, parts: Parts, body: RequestBody) -> Result<Answer, ApiError> {
        let body = body.read().await?;
        Ok(self.service.call(Request::from_parts(parts, body)).await.map(ResponseBody::once))
    }
}
