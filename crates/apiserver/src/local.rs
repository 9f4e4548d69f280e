//! The client of the components in this process: a service over the same handlers, without TCP, TLS and HTTP framing.

use std::convert::Infallible;
use std::sync::Arc;

use http::Request;

use crate::authn::User;
use crate::body::RequestBody;
use crate::server::{ApiServer, Caller};

impl ApiServer {
    /// A client who calls as `user`, and is allowed what that user is allowed.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn client(&self, user: User, default_namespace: &str) -> kube::Client {
        let server = self.clone();
        let user = Arc::new(user);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (server, user) = (server.clone(), Arc::clone(&user));
            async move {
                Ok::<_, Infallible>(server.handle(request.map(RequestBody::Local), Some(user), Caller::Component).await)
            }
        });
        kube::Client::new(service, default_namespace)
    }
}
