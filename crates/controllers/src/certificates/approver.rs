//! Approves the requests of kubelets for client certificates, where who asks has the right to that.
//!
//! Upstream: `pkg/controller/certificates/approver/sarapprove.go`.

use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use kube::Client;
use kube::api::PostParams;
use machinery::certificates::{APPROVED, CertificateRequest, DENIED, KUBELET_CLIENT, certificate};

use super::{has_condition, usages, verify};
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};

/// How often it is asked again whether somebody may have their request approved.
const ASK_AGAIN: Duration = Duration::from_secs(15 * 60);

/// A right by which a request is approved: to create this subresource of CertificateSigningRequests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// A kubelet asks for its own certificate.
    SelfNodeClient,
    /// Somebody asks for the certificate of a kubelet.
    NodeClient,
}

impl Right {
    const fn subresource(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "selfnodeclient",
            Self::NodeClient => "nodeclient",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "Auto approving self kubelet client certificate after SubjectAccessReview.",
            Self::NodeClient => "Auto approving kubelet client certificate after SubjectAccessReview.",
        }
    }
}

/// The rights any of which gets a request approved, in the order in which they are asked about; none where that is a person's
/// affair, or done.
pub(crate) fn plan(request: &CertificateSigningRequest) -> Vec<Right> {
    let is_settled =
        !certificate(request).is_empty() || has_condition(request, APPROVED) || has_condition(request, DENIED);
    if is_settled || request.spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(parsed) = CertificateRequest::from_pem(&request.spec.request.0) else { return Vec::new() };
    if verify::kubelet_client(&parsed, usages(request)).is_err() {
        return Vec::new();
    }
    if request.spec.username.as_deref() == Some(parsed.common_name.as_str()) {
        vec![Right::SelfNodeClient, Right::NodeClient]
    } else {
        vec![Right::NodeClient]
    }
}

/// The request, approved.
pub(crate) fn approved(request: &CertificateSigningRequest, right: Right) -> CertificateSigningRequest {
    let mut request = request.clone();
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: APPROVED.to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(right.message().to_owned()),
        ..CertificateSigningRequestCondition::default()
    });
    request
}

/// The question whether who asks has a right.
fn review(request: &CertificateSigningRequest, right: Right) -> SubjectAccessReview {
    let spec = &request.spec;
    let spec = SubjectAccessReviewSpec {
        user: spec.username.clone(),
        uid: spec.uid.clone(),
        groups: spec.groups.clone(),
        extra: spec.extra.clone(),
        resource_attributes: Some(ResourceAttributes {
            group: Some("certificates.k8s.io".to_owned()),
            resource: Some("certificatesigningrequests".to_owned()),
            subresource: Some(right.subresource().to_owned()),
            verb: Some("create".to_owned()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

/// The controller that approves.
pub(crate) struct Approver {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for Approver {
    const NAME: &'static str = "csrapproving";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self { client: context.client.clone(), requests: context.informer(), queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.requests.on_change(move |change| queue.add_changed(change));
    }

    async fn synced(&self) {
        self.requests.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(request) = self.requests.get(key) else { return Ok(Action::AwaitChange) };
        let rights = plan(&request);
        if rights.is_empty() {
            return Ok(Action::AwaitChange);
        }
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        for right in rights {
            let answer = reviews.create(&PostParams::default(), &review(&request, right)).await?;
            if answer.status.is_some_and(|status| status.allowed) {
                let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
                let approved = approved(&request, right);
                let answer = api.replace_subresource("approval", &key.name, &PostParams::default(), &approved).await;
                ok_if_not_found(answer)?;
                return Ok(Action::AwaitChange);
            }
        }
        Ok(Action::RequeueAfter(ASK_AGAIN))
    }
}
