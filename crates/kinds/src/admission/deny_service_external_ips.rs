//! DenyServiceExternalIPs: no Service takes further external addresses (`plugin/pkg/admission/network/denyserviceexternalips`).
//!
//! Whoever may write a Service could catch what others send to any address (CVE-2020-8554). Upstream leaves it to the
//! administrator to turn the plugin on; here it is on unless it is turned off.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, no_object};
use registry::object::{Object, cast};

use crate::common::list;

/// The resource part of the store's keys of Services.
const SERVICES: &str = "core/services";

/// The plugin.
pub(super) struct DenyServiceExternalIPs;

#[async_trait]
impl AdmissionPlugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(SERVICES) || attributes.updates(SERVICES)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let object = object.ok_or_else(no_object)?;
        let old = attributes.old.map(cast::<Service>).transpose()?;
        let old = old.map_or(&[][..], external_ips);
        if external_ips(cast(object)?).iter().all(|address| old.contains(address)) {
            return Ok(());
        }
        Err(attributes.forbidden(object, "Use of external IPs is denied by admission control"))
    }
}

fn external_ips(service: &Service) -> &[String] {
    service.spec.as_ref().map_or(&[][..], |spec| list(&spec.external_ips))
}
