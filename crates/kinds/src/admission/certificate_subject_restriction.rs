//! CertificateSubjectRestriction: nobody asks for a client certificate of the group that may do everything
//! (`plugin/pkg/admission/certificates/subjectrestriction/admission.go`).

use async_trait::async_trait;
use machinery::certificates::{API_SERVER_CLIENT, CertificateRequest};
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, no_object, object_of};
use registry::object::Object;
use registry::user::MASTERS;

use crate::certificates::{CertificateSigningRequest, REQUESTS};

/// The plugin.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl AdmissionPlugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.creates(REQUESTS)
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let spec = &object_of::<CertificateSigningRequest>(object)?.spec;
        if spec.signer_name != API_SERVER_CLIENT {
            return Ok(());
        }
        let object = object.ok_or_else(no_object)?;
        let request = CertificateRequest::from_pem(&spec.request.0)
            .map_err(|fault| attributes.forbidden(object, format!("failed to parse CSR: {fault}")))?;
        if request.organizations.iter().any(|group| group == MASTERS) {
            let why = format!("use of {API_SERVER_CLIENT} signer with {MASTERS} group is not allowed");
            return Err(attributes.forbidden(object, why));
        }
        Ok(())
    }
}
