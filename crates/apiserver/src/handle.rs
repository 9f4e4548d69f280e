//! Starting and stopping.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::authn::User;
use crate::pki::{self, Pki, PkiError};
use crate::serve::tls::{Tls, TlsError};
use crate::serve::{self, Audience, Limits, Service, Serving, Slots};
use crate::server::{ApiServer, Dependencies};

/// How the server is reached.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Names and addresses clients use beyond those every cluster has: the first service IP, the bridge's address, host
    /// names. The addresses of [`Config::listen`] need not be repeated.
    pub names: Vec<String>,
    /// What connections may take.
    pub limits: Limits,
}

/// Why the server did not start. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address.
    #[error("cannot listen on {address}: {source}; stop what uses it, or choose another port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running server.
pub struct Handle {
    pub(crate) server: ApiServer,
    pub(crate) serving: Arc<Serving>,
    pub(crate) pki: Arc<Pki>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    addresses: Vec<SocketAddr>,
    names: Vec<String>,
}

impl ApiServer {
    /// Starts to serve.
    ///
    /// # Errors
    /// When the certificates cannot be had, or an address cannot be listened on; nothing is served then.
    pub async fn start(config: Config, dependencies: Dependencies, pki: Arc<Pki>) -> Result<Handle, StartError> {
        Self::new(dependencies).serve(config, pki).await
    }

    /// Starts to serve over the network with a server that already answers its [`ApiServer::client`]s.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn serve(self, config: Config, pki: Arc<Pki>) -> Result<Handle, StartError> {
        let names = names_for(config.names, &config.listen);
        self.0.tokens.set_key(Arc::new(pki.token_key()?));
        self.0.aggregator.set_credential(pki.front_proxy_client()?);
        let tls = Tls::new(&pki.server(&names)?, pki.authority_pem(), Some(pki.front_proxy_authority_pem()))?;
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in config.listen {
            listeners.push(bind(address)?);
        }
        let slots = Arc::new(Slots::new(&config.limits));
        let serving = Serving::new(Service::Api(self.clone()), tls, config.limits, slots);
        let state = Arc::new(Mutex::new(State { addresses: Vec::new(), names }));
        let handle = Handle { server: self, serving, pki, state };
        for (listener, address) in listeners {
            handle.accept(listener, address, Audience::Users);
        }
        handle.renew_certificate();
        handle.follow_flow_control();
        handle.follow_api_services();
        Ok(handle)
    }
}

impl Handle {
    /// The server, for clients in this process.
    #[must_use]
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// As [`ApiServer::client`].
    #[must_use]
    pub fn client(&self, user: User, default_namespace: &str) -> kube::Client {
        self.server.client(user, default_namespace)
    }

    /// Where it listens, in the order in which the listeners were given.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.state().addresses.clone()
    }

    /// Listens on one more address, the bridge's for example, which often is not there yet at the start. The
    /// certificate is made good for it first. Who comes there gets half of the connections at most.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, StartError> {
        let (names, changed) = {
            let state = self.state();
            let names = names_for(state.names.clone(), &[address]);
            let changed = names != state.names;
            (names, changed)
        };
        if changed {
            self.serving.tls.replace(&self.pki.server(&names)?)?;
            self.state().names = names;
        }
        let (listener, address) = bind(address)?;
        self.accept(listener, address, Audience::Pods);
        Ok(address)
    }

    /// Stops: no new connections, watches end, running requests get a few seconds.
    pub async fn shutdown(&self) {
        self.serving.stop().await;
    }

    fn accept(&self, listener: TcpListener, address: SocketAddr, audience: Audience) {
        self.server.0.non_resource.documents.set_address(address.to_string());
        self.state().addresses.push(address);
        tracing::info!(%address, "serving the API");
        self.serving.accept_on(listener, audience);
    }

    /// Looks from time to time whether the server's certificates are about to end.
    fn renew_certificate(&self) {
        let (serving, pki, state) = (Arc::clone(&self.serving), Arc::clone(&self.pki), Arc::clone(&self.state));
        let aggregator = Arc::clone(&self.server.0.aggregator);
        self.server.0.lifecycle.spawn(async move {
            loop {
                tokio::time::sleep(pki::RENEWAL_CHECK).await;
                let names = lock(&state).names.clone();
                let renewed = pki.server(&names).map_err(StartError::from);
                let served = renewed.and_then(|credential| serving.tls.replace(&credential).map_err(StartError::from));
                if let Err(error) = served {
                    tracing::warn!(%error, "cannot renew the server's certificate");
                }
                match pki.front_proxy_client() {
                    Ok(credential) => aggregator.set_credential(credential),
                    Err(error) => tracing::warn!(%error, "cannot renew the server's certificate as a front proxy"),
                }
            }
        });
    }

    /// Follows the flow schemas and priority levels.
    fn follow_flow_control(&self) {
        let server = self.server.clone();
        self.server.0.lifecycle.spawn(async move { server.0.flow_control.run(&server.0.registry).await });
    }

    /// Follows the APIServices.
    fn follow_api_services(&self) {
        let aggregator = Arc::clone(&self.server.0.aggregator);
        self.server.0.lifecycle.spawn(async move { aggregator.run().await });
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> parking_lot::MutexGuard<'_, State> {
    state.lock()
}

/// The names to be in the certificate. Listening on all addresses adds none: nobody connects to `0.0.0.0`.
fn names_for(names: Vec<String>, listen: &[SocketAddr]) -> Vec<String> {
    let addresses = listen.iter().map(SocketAddr::ip).filter(|address| !IpAddr::is_unspecified(address));
    pki::server_names(names.into_iter().chain(addresses.map(|address| address.to_string())))
}

pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = serve::listen(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
