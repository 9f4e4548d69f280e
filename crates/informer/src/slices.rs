//! EndpointSlices by the Service that they belong to: whoever follows one follows the other.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::{Change, Informer, ObjectKey};

/// On a slice: the name of its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

const BY_SERVICE: &str = "service";

/// The Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

/// The Services that a change of a slice concerns: mostly one, and two when it went from one to the other.
pub fn services_of(change: &Change<EndpointSlice>) -> impl Iterator<Item = ObjectKey> + use<> {
    let of = |slice: &Option<Arc<EndpointSlice>>| slice.as_deref().and_then(service_of);
    let (old, new) = (of(&change.old), of(&change.new));
    old.filter(|old| Some(old) != new.as_ref()).into_iter().chain(new)
}

impl Informer<EndpointSlice> {
    /// Lets slices be found by their Service.
    pub fn index_by_service(&self) {
        self.index(BY_SERVICE, |slice| service_of(slice).iter().map(ToString::to_string).collect());
    }

    /// The slices of a Service, ordered by key; none before [`Informer::index_by_service`].
    pub fn of_service(&self, service: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.by_index(BY_SERVICE, &service.to_string())
    }
}
