//! A control plane in one thread: the real store, API server, controllers and scheduler; fake nodes.
//!
//! Each component has its own connection, over which faults come, and its own informers: one that crashes forgets all.

use std::sync::Arc;
use std::time::Duration;

use apiserver::authz;
use apiserver::{ApiServer, Dependencies, NodeConnector, User};
use async_trait::async_trait;
use coracle_cluster::addons;
use informer::Informers;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use registry::Registry;
use serde_json::Value;
use streaming::NodeApi;
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;

/// The namespace in which all of it happens.
pub(crate) const NAMESPACE: &str = "sim";

pub(crate) struct World {
    home: tempfile::TempDir,
    pub(crate) registry: Registry,
    server: ApiServer,
    /// The user's own: nothing goes wrong here.
    admin: Client,
    pub(crate) faults: Arc<Faults>,
    controllers: Option<(Connection, controllers::Handle)>,
    scheduler: Option<(Connection, scheduler::Handle)>,
    fake_nodes: Option<(Connection, kubelet::fake_node::Handle)>,
}

/// What can crash.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Component {
    Controllers,
    Scheduler,
    Paper,
}

/// A component's own way to the API server. It breaks when this is dropped.
struct Connection {
    client: Client,
    informers: Informers,
    gone: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl World {
    pub(crate) async fn new(faults: Arc<Faults>) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = store::Options { fsync: false, ..store::Options::new(home.path().join("store")) };
        let options = registry::Options { store, allocators: Default::default() };
        let admission = kinds::AdmissionConfig::default();
        let (registry, authorizer) = apiserver::open(options, &addons::ADMISSION, admission).expect("a store");
        kinds::bootstrap(&registry, 6443).await.expect("bootstrap objects");
        authz::bootstrap(&registry, &addons::policies()).await.expect("roles");
        let server = ApiServer::new(Dependencies {
            registry: registry.clone(),
            nodes: Arc::new(Nobody),
            extensions: Vec::new(),
            authorizer,
            limits: apiserver::RequestLimits::default(),
            audit: None,
        });
        let admin = server.client(User::master("kubernetes-admin"), NAMESPACE);
        let admin = Faults::new(0).client(admin, CancellationToken::new());
        Self { home, registry, server, admin, faults, controllers: None, scheduler: None, fake_nodes: None }
    }

    fn connect(&self, user: &str) -> Connection {
        let gone = CancellationToken::new();
        let direct = self.server.client(User::component(user), "default");
        let client = self.faults.client(direct, gone.clone());
        Connection { informers: Informers::new(client.clone(), gone.clone()), client, gone }
    }

    pub(crate) fn start(&mut self, component: Component) {
        match component {
            Component::Controllers => {
                let connection = self.connect("system:kube-controller-manager");
                let deps =
                    controllers::Deps { client: connection.client.clone(), informers: connection.informers.clone() };
                let config = controllers::Config::new(String::new(), self.home.path().join("volumes"));
                let direct = |user| self.server.client(user, "default");
                let addons = addons::controllers(|user| self.faults.client(direct(user), connection.gone.clone()));
                self.controllers = Some((connection, controllers::start(config, deps, addons)));
            }
            Component::Scheduler => {
                let connection = self.connect("system:kube-scheduler");
                let deps =
                    scheduler::Deps { client: connection.client.clone(), informers: connection.informers.clone() };
                self.scheduler = Some((connection, scheduler::start(scheduler::Config::default(), &deps)));
            }
            Component::Paper => {
                let connection = self.connect("system:kube-controller-manager");
                let deps = kubelet::fake_node::Deps {
                    client: connection.client.clone(),
                    informers: connection.informers.clone(),
                    kubelet_version: "v1.36.0".to_owned(),
                };
                self.fake_nodes = Some((connection, kubelet::fake_node::start(deps)));
            }
        }
    }

    /// Ends a component in the middle of what it does. What it asked for may have been done or not.
    pub(crate) async fn crash(&mut self, component: Component) {
        match component {
            Component::Controllers => drop(self.controllers.take()),
            Component::Scheduler => {
                if let Some((connection, handle)) = self.scheduler.take() {
                    drop(connection);
                    handle.shutdown().await;
                }
            }
            Component::Paper => {
                if let Some((connection, handle)) = self.fake_nodes.take() {
                    drop(connection);
                    handle.shutdown().await;
                }
            }
        }
        // What had reached the store is done by then.
        self.settle().await;
    }

    /// Waits until the store has nothing left to do, which takes real time.
    async fn settle(&self) {
        let pause = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(3)));
        pause.await.expect("a pause");
    }

    pub(crate) async fn end(mut self) {
        for component in [Component::Controllers, Component::Scheduler, Component::Paper] {
            self.crash(component).await;
        }
        self.registry.close().await;
    }

    /// The user creates an object that is not there yet.
    pub(crate) async fn create(&self, object: Value) {
        assert!(self.try_create(object).await, "it may be created");
    }

    /// The user creates an object, if a quota allows it and there is none; whether it came to be.
    pub(crate) async fn try_create(&self, object: Value) -> bool {
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let types = object.types.as_ref().expect("a kind");
        for _ in 0..100 {
            let api = self.of(&types.api_version, &types.kind);
            match api.create(&PostParams::default(), &object).await {
                Ok(_) => return true,
                // The namespace is new: its ServiceAccount is about to come.
                Err(kube::Error::Api(status)) if status.message.contains("service account") => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 409) => return false,
                Err(error) => panic!("{types:?}: {error}"),
            }
        }
        panic!("{types:?}: no service account comes")
    }

    /// The user patches an object that may have gone; whether it was there.
    pub(crate) async fn patch(&self, kind: &str, name: &str, patch: Value) -> bool {
        let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
        let api = self.of(api_version, kind);
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 => false,
            Err(error) => panic!("{kind} {name}: {error}"),
        }
    }

    /// The user writes into the status of an object.
    pub(crate) async fn patch_status(&self, kind: &str, name: &str, status: Value) {
        let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
        let patch = Patch::Merge(serde_json::json!({ "status": status }));
        let answer = self.of(api_version, kind).patch_status(name, &PatchParams::default(), &patch).await;
        answer.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    /// An object as it is; null where there is none.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
        let found = self.of(api_version, kind).get_opt(name).await.expect("it can be read");
        found.map_or(Value::Null, |object| serde_json::to_value(object).expect("JSON"))
    }

    /// The objects of a kind.
    pub(crate) async fn list(&self, kind: &str) -> Vec<DynamicObject> {
        let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
        self.of(api_version, kind).list(&Default::default()).await.expect("they can be read").items
    }

    /// The user deletes an object that may have gone.
    pub(crate) async fn delete(&self, kind: &str, name: &str) {
        let (api_version, kind) = kind.rsplit_once('/').expect("VERSION/KIND");
        match self.of(api_version, kind).delete(name, &Default::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{kind} {name}: {error}"),
        }
    }

    fn of(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Node" | "Namespace" | "CustomResourceDefinition" | "PersistentVolume" | "Queue" => {
                Api::all_with(self.admin.clone(), &resource)
            }
            _ => Api::namespaced_with(self.admin.clone(), NAMESPACE, &resource),
        }
    }
}

/// No node can be asked for logs.
struct Nobody;

#[async_trait]
impl NodeConnector for Nobody {
    async fn connect(&self, _: &str) -> Option<Arc<dyn NodeApi>> {
        None
    }
}
