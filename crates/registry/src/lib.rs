//! The registry: everything the API knows about its resources, and the one way in which an object is written.
//!
//! It sits between the API server, which speaks HTTP, and the [`store`], which keeps bytes under keys. It must not
//! know HTTP: it takes bodies and options, and answers with bytes and [`ApiError`]s.
//!
//! # The life of a write
//!
//! Every request that changes something, or opens a connection, takes the steps of the `pipeline` (`Registry::run`), in
//! one file each. Which of them do not apply to a request is in one table there.
//!
//! 1. **Decode** the body ([`decode`]); unknown and duplicate fields are reported as `fieldValidation` asks. A patch is
//!    applied to the stored object; server-side apply merges by who owns what. The object must be meant for this path:
//!    kind, version, name, namespace, and the version of the stored object where the client asks for one.
//! 2. Set the **defaults**, and note whose fields the client's are now (`managedFields`).
//! 3. **Prepare** for create or update: the metadata all kinds have in common ([`meta`]), then the strategy of the kind
//!    (status stripped, generation counted).
//! 4. **Mutate**: the plugins of `admission` that may change the object, webhooks among them.
//! 5. **Validate** metadata and object.
//! 6. **Authorize escalation** ([`EscalationCheck`]): rights do not grow by being written down. Then the plugins that may
//!    only refuse.
//! 7. **Charge and allocate**: cluster IPs and node ports, the quotas of the namespace. The object is encoded once; an
//!    update that changes nothing ends here.
//! 8. **Commit** with the expected revision, on condition that the namespace is still there. On a conflict, begin
//!    again from the stored object, as long as the client did not ask for a particular version of it.
//!
//! Reads decode nothing: a get is a copy of bytes, a list a concatenation, a watch event is encoded once for all
//! watchers (`read`, [`mod@watch`]).
//!
//! # The front door
//!
//! | verb | method of [`Registry`] |
//! |---|---|
//! | get | `get(&Target, resource_version: &str) -> Arc<Entry>`, then `body(&Resource, &Entry) -> Bytes` |
//! | list | `list(&Target, &ListRequest) -> ListPage`, then `list_body(&Resource, &ListPage) -> Bytes` |
//! | watch | `watch(&Target, &WatchRequest) -> Watch`, then `Watch::next() -> Option<Vec<WatchEvent>>` |
//! | create | `create(&Target, body, &WriteOptions) -> Written` |
//! | update | `update(&Target, Option<Subresource>, body, &WriteOptions) -> Written` |
//! | patch | `patch(&Target, Option<Subresource>, PatchType, body, &WriteOptions) -> Written` |
//! | delete | `delete(&Target, &DeleteRequest) -> Deleted` |
//! | deletecollection | `delete_collection(&Target, &ListRequest, &DeleteRequest) -> Bytes` |
//! | get scale | `scale(&Target) -> Bytes` |
//! | create pods/binding, pods/eviction | `bind(&Target, body, &WriteOptions) -> Written`, `evict(...)` |
//! | create serviceaccounts/token | `admit_subresource(&Target, ...)`; the answer is the API server's |
//! | create a review | `admit_review(&ResourceInfo, ...)`; the answer is the API server's |
//! | connect | `admit_connect(&Target, Subresource, ConnectOptions, &User, ...) -> ConnectOptions` |
//! | other forms of an object | `row(&Resource, stored, now) -> Vec<Value>`, `partial_metadata(stored) -> Bytes` |
//! | for log, exec, attach, portforward | `pod_location(namespace, name, container) -> PodLocation` |
//! | for components of the server | `upsert(&Target, Value)`, `ensure(&Target, Value)` |
//!
//! Methods which may wait are `async`; all answer with `Result<_, ApiError>`.
//!
//! # Adding a kind
//!
//! The kinds are not here but in the crate `kinds`: one file with a type that implements [`Kind`], and a row in
//! `kinds::all`. See [`kind`] for when which hook runs.

pub mod admission;
pub mod allocate;
mod apart;
pub mod audit;
mod author;
mod column;
pub mod custom;
pub mod decode;
mod descriptor;
pub mod endpoint;
pub mod kind;
pub mod meta;
pub mod object;
pub mod ops;
pub mod optional;
pub mod request;
pub mod strategy;
pub mod table;
pub mod user;

pub mod watch;
pub mod write;

mod component;
mod component_health;
mod delete;
mod eviction;
mod pipeline;
mod read;
pub mod scan;
mod subresource;

use std::sync::Arc;

use store::{OpenError, Store};

pub use admission::connect::ConnectOptions;
pub use admission::webhook::{WebhookCall, WebhookClient};
pub use apart::compute;
pub use author::Author;
pub use component_health::{ComponentHealth, HealthCheck};
pub use kind::{AlternateVersion, Column, Descriptor, Kind, MetadataReset, NameRule, ScaleView, Scope, Subresource};
pub use machinery::status::ApiError;
pub use object::{Object, cast};
pub use ops::ResourceOps;
pub use pipeline::authorize::{Access, EscalationCheck, WriteAttributes};
pub use request::{
    DeleteRequest, Deleted, FieldValidation, ListPage, ListRequest, PatchType, Propagation, Selection, Target,
    VersionMatch, WatchRequest, WriteOptions, Written,
};
pub use strategy::{Deletion, Findings, Strategy};
pub use subresource::PodLocation;
pub use table::{Resource, ResourceInfo, ResourceTable, Resources};
pub use user::User;
pub use watch::{FrameEncoding, Watch, WatchEvent, WatchKind};

use admission::AdmissionPlugin;
use allocate::{AllocatorConfig, Allocators};

/// How a registry is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where and how objects are kept.
    pub store: store::Options,
    /// What may be handed out to Services.
    pub allocators: AllocatorConfig,
}

/// Whom the pipeline asks. All are there from the first write on: nothing is allowed because nobody could be asked.
pub struct Dependencies {
    /// Whether a write gives somebody more rights than they have.
    pub escalation: Arc<dyn EscalationCheck>,
    /// Calls the webhooks of admission and conversion.
    pub webhooks: Arc<dyn WebhookClient>,
    /// The plugins of admission, in the order in which they are asked.
    pub plugins: Vec<&'static dyn AdmissionPlugin>,
}

/// The objects on disk and the table of built-in resources that describes them: what a [`Registry`] is made of. Who checks
/// writes by what is stored (roles, bindings) reads it here.
pub struct Storage {
    table: Arc<ResourceTable>,
    store: Store,
    allocators: Allocators,
}

impl Storage {
    /// Opens the store, which keeps objects of `kinds`.
    ///
    /// # Errors
    /// When the store cannot be opened; each error says in one line what to do.
    pub fn open(options: Options, kinds: Vec<Resource>) -> Result<Self, OpenError> {
        let table = Arc::new(ResourceTable::new(Resources::new(kinds)));
        let describing = Arc::clone(&table);
        let store = Store::open(options.store, move |key, value| read::describe(&describing.load(), key, value))?;
        Ok(Self { table, store, allocators: Allocators::new(&options.allocators) })
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// All resources and their objects. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    table: Arc<ResourceTable>,
    store: Store,
    allocators: Allocators,
    escalation: Arc<dyn EscalationCheck>,
    plugins: Vec<&'static dyn AdmissionPlugin>,
    crds: custom::Crds,
    webhook_client: Arc<dyn WebhookClient>,
    webhooks: admission::webhook::Configured,
    components: component_health::Components,
    policies: admission::policy::Configured,
    /// Held by a write that quotas have to do with.
    charging: tokio::sync::Mutex<()>,
    /// Held by a write that gives names to a definition, so that no two are given the same.
    naming: tokio::sync::Mutex<()>,
    /// Of the writes that compile schemas or expressions.
    turns: apart::Turns,
}

impl Registry {
    /// The registry of what is stored; reads what it holds into the allocators.
    #[must_use]
    pub fn new(storage: Storage, dependencies: Dependencies) -> Self {
        let Storage { table, store, allocators } = storage;
        let Dependencies { escalation, webhooks, plugins } = dependencies;
        let registry = Self(Arc::new(Inner {
            table,
            store,
            allocators,
            escalation,
            plugins,
            webhook_client: webhooks,
            crds: Default::default(),
            webhooks: admission::webhook::Configured::default(),
            components: component_health::Components::default(),
            policies: admission::policy::Configured::default(),
            charging: tokio::sync::Mutex::default(),
            naming: tokio::sync::Mutex::default(),
            turns: apart::Turns::default(),
        }));
        registry.reload_crds();
        registry.occupy();
        registry
    }

    /// The resources as they are now.
    #[must_use]
    pub fn resources(&self) -> Arc<Resources> {
        self.0.table.load()
    }

    /// The replaceable table itself.
    #[must_use]
    pub fn table(&self) -> &ResourceTable {
        &self.0.table
    }

    /// The store below; for its statistics, compaction, and revision. Nothing but the registry writes to it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What may be handed out once only; says which ranges are in use.
    #[must_use]
    pub fn allocators(&self) -> &Allocators {
        &self.0.allocators
    }

    /// Ends all watches and closes the store once what is being written is durable.
    pub async fn close(&self) {
        self.0.store.close().await;
    }

    /// Tells the allocators what the stored objects hold.
    fn occupy(&self) {
        // What is custom holds nothing.
        let holds = |resource: &&Resource| !resource.is_alternate() && !resource.info().custom;
        for resource in self.resources().iter().filter(holds) {
            for entry in self.0.store.snapshot(&resource.info().storage).iter() {
                let object = resource.load(&entry.value).map_err(ApiError::internal);
                let strategy = resource.strategy();
                if let Err(error) = object.and_then(|object| strategy.occupy(object.as_ref(), &self.0.allocators)) {
                    tracing::warn!(key = ?entry.key, %error, "a stored object cannot be read");
                }
            }
        }
    }
}
