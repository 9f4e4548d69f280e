//! The static part of a kind: its row in the resource table, as its file writes it.

use machinery::Verb;

/// What can be done with the objects of most kinds.
pub(crate) const ALL_VERBS: &[Verb<'static>] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// The static part of a kind: its names, its scope, what can be done with it.
///
/// Written with one of the constructors and struct update:
/// `Descriptor { short_names: &["deploy"], ..Descriptor::namespaced("apps", "v1", "Deployment", "deployments") }`.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind, as in manifests.
    pub kind: &'static str,
    /// Kind of a list of these; empty means [`Descriptor::kind`] followed by `List`.
    pub list_kind: &'static str,
    /// The resource name in paths.
    pub plural: &'static str,
    /// The name kubectl accepts for one of them; empty means the kind in lower case.
    pub singular: &'static str,
    /// Abbreviations kubectl accepts.
    pub short_names: &'static [&'static str],
    /// Groups of resources kubectl accepts as one name (`all`).
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What can be done with its objects.
    pub verbs: &'static [Verb<'static>],
    /// Whether its objects are made when somebody asks for them, by `Kind::compute`, and never stored.
    pub computed: bool,
    /// What a create of this kind is in truth: that of a subresource of an object of another resource, whose name is in the
    /// body. Nothing is stored (`bindings` are for `binding` of Pods).
    pub stands_for: Option<(&'static str, Subresource)>,
    /// What is served below an object.
    pub subresources: &'static [Subresource],
    /// Which metadata a write to `/status` leaves as it is. Upstream: `PrepareForUpdate` of the kind's status strategy.
    pub status_reset: MetadataReset,
    /// Name of the type in OpenAPI, `io.k8s.api.core.v1.Pod`: the key of the merge rules.
    pub openapi_name: &'static str,
    /// Resource part of the store's keys, `GROUP/RESOURCE` with `core` for the core group.
    pub storage: &'static str,
    /// What is legal as `metadata.name`.
    pub names: NameRule,
    /// Field labels a selector may use besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    /// Whether a PUT to a name that does not exist creates the object.
    pub create_on_update: bool,
    /// Whether a PUT without a resourceVersion replaces whatever is there.
    pub unconditional_update: bool,
    /// What is done with dependents when DELETE does not say: upstream's default for its oldest kinds is to orphan them.
    pub orphan_by_default: bool,
    /// What everybody who uses the kind is told, when upstream would rather see it gone.
    pub deprecation: Option<&'static str>,
    /// Whether a DELETE answers with the object instead of a `Status` (upstream: Pods, Services, ServiceAccounts and
    /// a few more of the core group).
    pub returns_deleted_object: bool,
    /// Whether schemas or expressions are compiled to validate an object, which may take seconds: one such write goes on at a
    /// time, and never instead of others' requests.
    pub compiles: bool,
}

impl Descriptor {
    const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        scope: Scope,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            list_kind: "",
            plural,
            singular: "",
            short_names: &[],
            categories: &[],
            scope,
            verbs: ALL_VERBS,
            computed: false,
            stands_for: None,
            subresources: &[],
            status_reset: MetadataReset::Nothing,
            openapi_name: "",
            storage: "",
            names: NameRule::Subdomain,
            selectable: &[],
            create_on_update: false,
            unconditional_update: true,
            orphan_by_default: false,
            deprecation: None,
            returns_deleted_object: false,
            compiles: false,
        }
    }

    /// A kind whose objects live in namespaces. An empty `openapi_name` or `storage` is completed from the names.
    #[must_use]
    pub const fn namespaced(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
    ) -> Self {
        Self::new(group, version, kind, plural, Scope::Namespaced)
    }

    /// A kind whose objects live beside the namespaces.
    #[must_use]
    pub const fn cluster(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Self {
        Self::new(group, version, kind, plural, Scope::Cluster)
    }
}

/// Where the objects of a kind live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Beside the namespaces.
    Cluster,
}

/// Upstream's rules for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: dots allowed, up to 253 characters. Most kinds.
    Subdomain,
    /// RFC 1123 label, up to 63 characters: Namespaces, Services.
    Label,
    /// Anything that fits in one path segment: RBAC.
    PathSegment,
}

/// Which metadata a write to a subresource takes from the stored object, whatever the client sends; beside that which no
/// update changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataReset {
    /// None: labels, annotations, finalizers and owner references are written as with the object itself. Most kinds.
    Nothing,
    /// The labels.
    Labels,
    /// The owner references.
    OwnerReferences,
    /// All of it. Upstream: `metav1.ResetObjectMetaForStatus`.
    Everything,
}

impl MetadataReset {
    /// The fields of `metadata` that are reset, where those are single ones.
    pub(crate) const fn field(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Everything => None,
            Self::Labels => Some("labels"),
            Self::OwnerReferences => Some("ownerReferences"),
        }
    }
}

/// What is served below an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subresource {
    /// `status`: the same object, of which only the status is written.
    Status,
    /// `scale`: an autoscaling/v1 Scale.
    Scale,
    /// `approval` of CertificateSigningRequests: the same object, of which only the conditions are written.
    Approval,
    /// `finalize` of Namespaces: only `spec.finalizers` is written.
    Finalize,
    /// `binding` of Pods: POST a v1 Binding to assign the pod to a node.
    Binding,
    /// `eviction` of Pods.
    Eviction,
    /// `ephemeralcontainers` of Pods.
    EphemeralContainers,
    /// `resize` of Pods.
    Resize,
    /// `token` of ServiceAccounts.
    Token,
    /// `log` of Pods.
    Log,
    /// `exec` of Pods.
    Exec,
    /// `attach` of Pods.
    Attach,
    /// `portforward` of Pods.
    PortForward,
    /// `proxy` of Pods, Services and Nodes.
    Proxy,
}

impl Subresource {
    /// Every subresource there is.
    pub const ALL: [Self; 14] = [
        Self::Status,
        Self::Scale,
        Self::Approval,
        Self::Finalize,
        Self::Binding,
        Self::Eviction,
        Self::EphemeralContainers,
        Self::Resize,
        Self::Token,
        Self::Log,
        Self::Exec,
        Self::Attach,
        Self::PortForward,
        Self::Proxy,
    ];

    /// The path segment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Approval => "approval",
            Self::Finalize => "finalize",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Token => "token",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
        }
    }

    /// The subresource of that path segment.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.name() == name)
    }

    /// The verbs discovery lists for it.
    #[must_use]
    pub const fn verbs(self) -> &'static [Verb<'static>] {
        match self {
            Self::Status | Self::Scale | Self::Approval | Self::EphemeralContainers | Self::Resize => {
                &[Verb::Get, Verb::Patch, Verb::Update]
            }
            Self::Finalize => &[Verb::Update],
            Self::Binding | Self::Eviction | Self::Token => &[Verb::Create],
            Self::Log => &[Verb::Get],
            Self::Exec | Self::Attach | Self::PortForward => &[Verb::Create, Verb::Get],
            Self::Proxy => &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update],
        }
    }

    /// Group, version and kind of what it takes and answers below an object of kind `parent`, where that is not this kind
    /// itself.
    #[must_use]
    pub fn kind(self, parent: &str) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Status | Self::Approval | Self::Finalize | Self::EphemeralContainers | Self::Resize | Self::Log => {
                None
            }
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Self::Proxy => Some((
                "",
                "v1",
                match parent {
                    "Node" => "NodeProxyOptions",
                    "Service" => "ServiceProxyOptions",
                    _ => "PodProxyOptions",
                },
            )),
        }
    }
}
