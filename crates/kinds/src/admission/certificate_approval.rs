//! CertificateApproval: whoever approves or denies a CertificateSigningRequest must have the right `approve` to its signer
//! (`plugin/pkg/admission/certificates/approval/admission.go`).

use async_trait::async_trait;
use machinery::status::ApiError;
use registry::admission::{AdmissionPlugin, Attributes, Operation};
use registry::kind::Subresource;
use registry::object::Object;

use crate::certificates::{REQUESTS, check_signer};

/// The plugin.
pub(super) struct CertificateApproval;

#[async_trait]
impl AdmissionPlugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let is_approval = attributes.subresource == Some(Subresource::Approval);
        is_approval && attributes.operation == Operation::Update && &*attributes.info.storage == REQUESTS
    }

    async fn validate(
        &self,
        attributes: &Attributes<'_>,
        _object: Option<&dyn Object>,
        _warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        check_signer(attributes, "approve")
    }
}
