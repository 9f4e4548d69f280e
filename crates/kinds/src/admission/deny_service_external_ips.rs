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
        if !adds_external_ips(cast(object)?, attributes.old.map(cast::<Service>).transpose()?) {
            return Ok(());
        }
        Err(attributes.forbidden(object, "Use of external IPs is denied by admission control"))
    }
}

/// Whether a Service has external addresses that it did not have before.
fn adds_external_ips(new: &Service, old: Option<&Service>) -> bool {
    let old = old.map_or(&[][..], external_ips);
    external_ips(new).iter().any(|address| !old.contains(address))
}

fn external_ips(service: &Service) -> &[String] {
    service.spec.as_ref().map_or(&[][..], |spec| list(&spec.external_ips))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_may_stay_and_go() {
        let service = |addresses: &[&str]| -> Service {
            serde_json::from_value(json!({ "spec": { "externalIPs": addresses } })).unwrap()
        };
        for (old, new, adds) in [
            (None, &[][..], false),
            (None, &["192.0.2.1"], true),
            (Some(&["192.0.2.1", "192.0.2.2"][..]), &["192.0.2.2"], false),
            (Some(&["192.0.2.1"]), &["192.0.2.1"], false),
            (Some(&["192.0.2.1"]), &[], false),
            (Some(&["192.0.2.1"]), &["192.0.2.1", "192.0.2.2"], true),
        ] {
            assert_eq!(adds_external_ips(&service(new), old.map(service).as_ref()), adds, "{old:?} to {new:?}");
        }
    }
}
