//! A kubelet as those see it who ask nodes and not the API: who asks, whether they may, and what is answered.
//!
//! Who asks is found out as for the API, by a client certificate or a token, but nobody asks on somebody else's behalf: neither
//! front proxies nor impersonation count. Without a name nothing is answered, not even health. What is allowed is a matter of
//! rights to subresources of the node ([`authorization`]); what is answered is the same as behind `nodes/NAME/proxy`
//! ([`kubelet_routes`]).

mod authorization;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use http::{Request, Response, StatusCode};
use registry::user::UNAUTHENTICATED;
use streaming::NodeApi;

use crate::authn::User;
use crate::body::{RequestBody, ResponseBody, panic_text};
use crate::kubelet_routes;
use crate::lifecycle::{self, Lifecycle};
use crate::respond::{self, Answer};
use crate::server::ApiServer;

/// The kubelet behind a port.
pub(crate) struct Kubelet {
    /// Knows who asks, and what they may.
    pub(crate) server: ApiServer,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) node: String,
    pub(crate) api: Arc<dyn NodeApi>,
}

impl Kubelet {
    /// Answers one request. Never fails and never panics: whatever goes wrong is in the response.
    pub(crate) async fn handle(
        &self,
        request: Request<RequestBody>,
        user: Option<Arc<User>>,
    ) -> Response<ResponseBody> {
        let answered = AssertUnwindSafe(self.answer(request, user)).catch_unwind().await;
        answered.unwrap_or_else(|panic| {
            tracing::error!(node = self.node, panic = panic_text(&*panic), "a request handler of the kubelet panicked");
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        })
    }

    async fn answer(&self, request: Request<RequestBody>, user: Option<Arc<User>>) -> Answer {
        // Nothing here takes a body.
        let (parts, _) = request.into_parts();
        let user = user.and_then(|user| self.server.authenticate(&parts.headers, user).ok());
        let Some(user) = user.filter(|user| !user.is_in(UNAUTHENTICATED)) else {
            return respond::text(StatusCode::UNAUTHORIZED, "Unauthorized");
        };
        // A second handle on the same bytes, since the parts move on.
        let uri = parts.uri.clone();
        let path = uri.path();
        let allowed = authorization::authorize(self.server.authorizer(), &self.node, &user, &parts.method, path);
        if let Err(why) = allowed {
            return respond::text(StatusCode::FORBIDDEN, why);
        }
        let answered = kubelet_routes::serve(Arc::clone(&self.api), &self.lifecycle, path, parts);
        if kubelet_routes::lasts(path) {
            lifecycle::set_lasts(true);
            return answered.await;
        }
        let in_time = tokio::time::timeout(self.server.request_timeout(), answered).await;
        in_time.unwrap_or_else(|_| respond::text(StatusCode::GATEWAY_TIMEOUT, "request did not complete in time"))
    }
}
