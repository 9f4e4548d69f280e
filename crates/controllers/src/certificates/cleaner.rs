//! Deletes requests that are nobody's affair any more. It needs no watch: nobody waits for one to go.
//!
//! Upstream: `pkg/controller/certificates/cleaner/cleaner.go`.

use std::sync::Arc;
use std::time::Duration;

use informer::{Action, Cause, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{DeleteParams, ListParams, Preconditions};
use machinery::certificates::{APPROVED, DENIED, FAILED, certificate, conditions, not_after};

use crate::client::{Api, Error, ok_if_not_found};
use crate::controller::{Context, Controller};
use crate::meta;

const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Issued, denied and failed requests are kept so long.
const SETTLED: SignedDuration = SignedDuration::from_hours(1);
/// Requests that nobody has approved or denied are kept so long.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// Requests are read in pages of so many.
const PAGE: u32 = 500;

/// Whether the time has come to delete a request.
pub(crate) fn is_due(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let is_older = |time: Option<&Time>, age| time.is_some_and(|time| now.duration_since(time.0) > age);
    let conditions = conditions(request);
    if conditions.is_empty() {
        return is_older(request.metadata.creation_timestamp.as_ref(), PENDING);
    }
    conditions.iter().any(|condition| {
        let is_old = is_older(condition.last_update_time.as_ref(), SETTLED);
        match condition.type_.as_str() {
            DENIED | FAILED => is_old,
            APPROVED => {
                let certificate = certificate(request);
                !certificate.is_empty() && (is_old || not_after(certificate).is_some_and(|end| now > end))
            }
            _ => false,
        }
    })
}

/// The controller that deletes old requests.
pub(crate) struct Cleaner {
    client: Client,
    queue: WorkQueue<AllRequests>,
}

/// The one thing to look at: all requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AllRequests;

impl std::fmt::Display for AllRequests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("all certificate signing requests")
    }
}

impl Controller for Cleaner {
    const NAME: &'static str = "csrcleaner";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = AllRequests;

    fn new(context: &Context, queue: WorkQueue<AllRequests>) -> Self {
        Self { client: context.client.clone(), queue }
    }

    fn watch(self: &Arc<Self>) {
        self.queue.add(AllRequests, Cause::new("the start"));
    }

    async fn synced(&self) {}

    async fn reconcile(&self, AllRequests: &AllRequests) -> Result<Action, Error> {
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE);
        // One that cannot be deleted does not keep the others.
        let mut failed = None;
        loop {
            let requests = api.list(&page).await?;
            let now = Timestamp::now();
            for request in requests.items.iter().filter(|request| is_due(request, now)) {
                let same = Preconditions { uid: request.metadata.uid.clone(), ..Preconditions::default() };
                let params = DeleteParams::default().preconditions(same);
                match ok_if_not_found(api.delete(meta::name(request), &params).await) {
                    // Another one has its name.
                    Err(error) if error.is_conflict() => {}
                    answer => failed = failed.or(answer.err()),
                }
            }
            match requests.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return failed.map_or(Ok(Action::RequeueAfter(LOOK_EVERY)), Err),
            }
        }
    }
}
