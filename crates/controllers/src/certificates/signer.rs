//! Signs approved requests for the built-in signers, with the authority of the cluster.
//!
//! Upstream: `pkg/controller/certificates/signer/signer.go`.

use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::PostParams;
use machinery::certificates::{APPROVED, CertificateRequest, DENIED, FAILED, certificate};

use super::{has_condition, usages, verify};
use crate::SignCertificate;
use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};

/// The longest life of a certificate: upstream's default of `--cluster-signing-duration`.
const LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The shortest one.
const LIFETIME_MIN: Duration = Duration::from_secs(10 * 60);

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is signed.
    Sign(Box<CertificateRequest>, Duration),
    /// It is not what its signer signs.
    Fail(String),
}

/// What becomes of a request; nothing if it is not approved, done, or for a signer of somebody else.
pub(crate) fn plan(request: &CertificateSigningRequest) -> Option<Decision> {
    let is_approved = has_condition(request, APPROVED) && !has_condition(request, DENIED);
    if !is_approved || has_condition(request, FAILED) || !certificate(request).is_empty() {
        return None;
    }
    let spec = &request.spec;
    let verify = verify::of(&spec.signer_name)?;
    let verified = CertificateRequest::from_pem(&spec.request.0)
        .and_then(|parsed| verify(&parsed, usages(request)).map(|()| parsed));
    Some(match verified {
        Ok(parsed) => Decision::Sign(Box::new(parsed), lifetime(spec.expiration_seconds)),
        Err(fault) => Decision::Fail(fault),
    })
}

fn lifetime(requested: Option<i32>) -> Duration {
    let seconds = requested.map(|seconds| u64::try_from(seconds).unwrap_or_default());
    seconds.map_or(LIFETIME_MAX, |seconds| Duration::from_secs(seconds).clamp(LIFETIME_MIN, LIFETIME_MAX))
}

fn failed(request: &CertificateSigningRequest, fault: String, now: Timestamp) -> CertificateSigningRequest {
    let mut request = request.clone();
    let status = request.status.get_or_insert_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: FAILED.to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(fault),
        last_update_time: Some(Time(now)),
        ..CertificateSigningRequestCondition::default()
    });
    request
}

/// The controller that signs.
pub(crate) struct Signer {
    client: Client,
    requests: Informer<CertificateSigningRequest>,
    sign: Option<SignCertificate>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for Signer {
    const NAME: &'static str = "csrsigning";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        let sign = context.config.sign_certificate.clone();
        Self { client: context.client.clone(), requests: context.informer(), sign, queue }
    }

    fn watch(self: &Arc<Self>) {
        let queue = self.queue.clone();
        self.requests.on_change(move |change| queue.add_changed(change));
    }

    async fn synced(&self) {
        self.requests.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let (Some(request), Some(sign)) = (self.requests.get(key), &self.sign) else {
            return Ok(Action::AwaitChange);
        };
        let written = match plan(&request) {
            None => return Ok(Action::AwaitChange),
            Some(Decision::Fail(fault)) => failed(&request, fault, Timestamp::now()),
            Some(Decision::Sign(parsed, lifetime)) => {
                let issued = sign.0(&parsed, usages(&request), lifetime).map_err(Error::Sign)?;
                let mut request = CertificateSigningRequest::clone(&request);
                request.status.get_or_insert_default().certificate = Some(ByteString(issued.into_bytes()));
                request
            }
        };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        ok_if_not_found(api.replace_status(&key.name, &PostParams::default(), &written).await)?;
        Ok(Action::AwaitChange)
    }
}
