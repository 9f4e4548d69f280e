//! Our side where no other is given: the API server alone, on a free port, on a store in a temporary folder.

use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::pki::Pki;
use apiserver::{ApiServer, Dependencies, Handle, NodeConnector, authz};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use serde_json::json;
use streaming::NodeApi;

/// The API server and its certificates.
pub(crate) struct Own {
    handle: Handle,
    pki: Arc<Pki>,
    _home: tempfile::TempDir,
}

impl Own {
    pub(crate) async fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let store = store::Options { fsync: false, ..store::Options::new(home.path().join("store")) };
        let options = registry::Options { store, allocators: Default::default() };
        let (registry, authorizer) = apiserver::open(options, &[], kinds::AdmissionConfig::default())?;
        kinds::bootstrap(&registry, 6443).await?;
        authz::bootstrap(&registry, &[]).await?;
        let dependencies = Dependencies {
            registry,
            nodes: Arc::new(NoNodes),
            authorizer,
            extensions: Vec::new(),
            limits: apiserver::RequestLimits::default(),
            audit: None,
        };
        let pki = Arc::new(Pki::open(&home.path().join("pki"))?);
        let config = apiserver::Config { listen: vec!["127.0.0.1:0".parse()?], ..apiserver::Config::default() };
        let handle = ApiServer::start(config, dependencies, Arc::clone(&pki)).await?;
        Ok(Self { handle, pki, _home: home })
    }

    /// The administrator's.
    pub(crate) fn kubeconfig(&self) -> Result<Kubeconfig> {
        let address = *self.handle.addresses().first().context("the server listens nowhere")?;
        let admin = self.pki.admin()?;
        let config = json!({
            "current-context": "own",
            "clusters": [{ "name": "own", "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": STANDARD.encode(self.pki.authority_pem()),
            } }],
            "users": [{ "name": "own", "user": {
                "client-certificate-data": STANDARD.encode(&admin.certificate_pem),
                "client-key-data": STANDARD.encode(&admin.key_pem),
            } }],
            "contexts": [{ "name": "own", "context": { "cluster": "own", "user": "own" } }],
        });
        Ok(serde_json::from_value(config)?)
    }

    pub(crate) async fn stop(self) {
        self.handle.shutdown().await;
    }
}

/// The nodes of an API server without any.
struct NoNodes;

#[async_trait]
impl NodeConnector for NoNodes {
    async fn connect(&self, _: &str) -> Option<Arc<dyn NodeApi>> {
        None
    }
}
