//! CertificateSigning: whoever writes the certificate of a CertificateSigningRequest, or the conditions of its status, must have
//! the right `sign` to its signer (`plugin/pkg/admission/certificates/signing/admission.go`).

use async_trait::async_trait;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, Operation, object_of};
use registry::kind::Subresource;
use registry::object::Object;

use crate::certificates::{CertificateSigningRequest, REQUESTS, check_signer};
use crate::common::list;

/// The plugin.
pub(super) struct CertificateSigning;

#[async_trait]
impl AdmissionPlugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_status = attributes.subresource == Some(Subresource::Status);
        is_status && attributes.operation == Operation::Update && &*attributes.info.storage == REQUESTS
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let new: &CertificateSigningRequest = object_of(object)?;
        let old: &CertificateSigningRequest = object_of(attributes.old)?;
        let (new, old) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
        if new.certificate == old.certificate && list(&new.conditions) == list(&old.conditions) {
            return Ok(());
        }
        check_signer(attributes, "sign")
    }
}
