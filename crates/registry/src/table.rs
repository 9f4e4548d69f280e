//! The resource table: every resource the server knows, by group, version and plural.
//!
//! Readers take an `Arc` of the whole table and keep it for as long as they like; adding or removing a custom
//! resource replaces the table. Order is kept: discovery lists resources in the order of the rows.

use std::collections::HashMap;
use std::sync::Arc;

use machinery::Verb;
use machinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::kind::{Descriptor, MetadataReset, NameRule, Scope, Subresource};
use crate::ops::ResourceOps;

/// The row of one resource: [`Descriptor`] with owned strings, so that a custom resource can have one.
#[derive(Debug, Clone)]
pub struct ResourceInfo {
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Kind, as in manifests.
    pub kind: String,
    /// Kind of a list of these.
    pub list_kind: String,
    /// The resource name in paths.
    pub plural: String,
    /// The name kubectl accepts for one of them.
    pub singular: String,
    /// Abbreviations kubectl accepts.
    pub short_names: Vec<String>,
    /// Groups of resources kubectl accepts as one name.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What can be done with its objects, as discovery lists it.
    pub verbs: &'static [Verb<'static>],
    /// Whether its objects are made when somebody asks for them, and never stored.
    pub computed: bool,
    /// The resource and subresource that a create of this kind is for, where nothing of it is stored.
    pub stands_for: Option<(&'static str, Subresource)>,
    /// What is served below an object.
    pub subresources: Vec<Subresource>,
    /// Which metadata a write to `/status` leaves as it is.
    pub status_reset: MetadataReset,
    /// Name of the type in OpenAPI, the key of the merge rules.
    pub openapi_name: String,
    /// Resource part of the store's keys.
    pub storage: Arc<str>,
    /// What is legal as `metadata.name`.
    pub names: NameRule,
    /// Field labels a selector may use besides `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<String>,
    /// Whether a PUT to a name that does not exist creates the object.
    pub create_on_update: bool,
    /// Whether a PUT without a resourceVersion replaces whatever is there.
    pub unconditional_update: bool,
    /// What is done with dependents when DELETE does not say.
    pub orphan_by_default: bool,
    /// Whether a DELETE answers with the object instead of a `Status`.
    pub returns_deleted_object: bool,
    /// Whether schemas or expressions are compiled to validate an object.
    pub compiles: bool,
    /// As errors name the resource: `deployments.apps`.
    pub group_resource: GroupResource,
    /// As validation errors name the kind: `Deployment.apps`.
    pub group_kind: GroupKind,
    /// `GROUP/VERSION`, or the version alone for the core group.
    pub api_version: String,
    /// Whether a CustomResourceDefinition made the row.
    pub custom: bool,
    /// What everybody who uses this version is told, when it is deprecated.
    pub deprecation: Option<String>,
}

impl ResourceInfo {
    /// The row of a built-in kind. `openapi_name` fills in for an empty one in the descriptor.
    #[must_use]
    pub fn from_descriptor(descriptor: &Descriptor, openapi_name: &str) -> Self {
        let or = |value: &str, other: String| if value.is_empty() { other } else { value.to_owned() };
        let group_part = if descriptor.group.is_empty() { "core" } else { descriptor.group };
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            group: descriptor.group.to_owned(),
            version: descriptor.version.to_owned(),
            kind: descriptor.kind.to_owned(),
            list_kind: or(descriptor.list_kind, format!("{}List", descriptor.kind)),
            plural: descriptor.plural.to_owned(),
            singular: or(descriptor.singular, descriptor.kind.to_lowercase()),
            short_names: owned(descriptor.short_names),
            categories: owned(descriptor.categories),
            scope: descriptor.scope,
            verbs: descriptor.verbs,
            computed: descriptor.computed,
            stands_for: descriptor.stands_for,
            subresources: descriptor.subresources.to_vec(),
            status_reset: descriptor.status_reset,
            openapi_name: or(descriptor.openapi_name, openapi_name.to_owned()),
            storage: or(descriptor.storage, format!("{group_part}/{}", descriptor.plural)).into(),
            names: descriptor.names,
            selectable: owned(descriptor.selectable),
            create_on_update: descriptor.create_on_update,
            unconditional_update: descriptor.unconditional_update,
            orphan_by_default: descriptor.orphan_by_default,
            returns_deleted_object: descriptor.returns_deleted_object,
            compiles: descriptor.compiles,
            group_resource: GroupResource::from_static(descriptor.group, descriptor.plural),
            group_kind: GroupKind::from_static(descriptor.group, descriptor.kind),
            api_version: api_version(descriptor.group, descriptor.version),
            custom: false,
            deprecation: descriptor.deprecation.map(str::to_owned),
        }
    }

    /// Whether objects live in namespaces.
    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether that subresource is served.
    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Which metadata a write to a subresource leaves as it is.
    ///
    /// Upstream: the strategies of `pkg/registry/core/pod/strategy.go` reset all of it for `ephemeralcontainers` and
    /// `resize`; the one for `finalize` in `pkg/registry/core/namespace/strategy.go` resets none.
    #[must_use]
    pub const fn metadata_reset(&self, subresource: Subresource) -> MetadataReset {
        match subresource {
            Subresource::Status => self.status_reset,
            Subresource::EphemeralContainers | Subresource::Resize => MetadataReset::Everything,
            _ => MetadataReset::Nothing,
        }
    }

    /// Group, version and kind.
    #[must_use]
    pub fn group_version_kind(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group.clone(), self.version.clone(), self.kind.clone())
    }
}

/// `GROUP/VERSION`, or the version alone for the core group.
#[must_use]
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// A resource: its row and its behaviour. Cheap to clone.
pub type Resource = Arc<dyn ResourceOps>;

/// One state of the resource table.
#[derive(Default, Clone)]
pub struct Resources {
    rows: Vec<Resource>,
    /// Rows by plural and by kind; few groups have the same one.
    by_plural: HashMap<String, Vec<usize>>,
    by_kind: HashMap<String, Vec<usize>>,
    by_storage: HashMap<Arc<str>, usize>,
}

impl Resources {
    /// A table of these rows; of two rows for one path the later one wins.
    #[must_use]
    pub fn new(rows: Vec<Resource>) -> Self {
        let mut table = Self::default();
        for row in rows {
            table.place(row);
        }
        table.index();
        table
    }

    /// Replaces the rows of custom resources. A built-in row is never replaced by one.
    pub(crate) fn replace_custom(&mut self, custom: Vec<Resource>) {
        self.rows.retain(|row| !row.info().custom);
        for row in custom {
            let info = row.info();
            if self.position(info).is_some() {
                tracing::warn!(resource = %info.group_resource, "a definition cannot take the place of a built-in kind");
                continue;
            }
            self.rows.push(row);
        }
        self.index();
    }

    /// Adds a row, or replaces the one with the same group, version and plural.
    fn place(&mut self, row: Resource) {
        match self.position(row.info()) {
            Some(index) => self.rows[index] = row,
            None => self.rows.push(row),
        }
    }

    /// Where there is a row of the same group, version and plural.
    fn position(&self, info: &ResourceInfo) -> Option<usize> {
        self.rows.iter().position(|other| {
            let other = other.info();
            (&other.group, &other.version, &other.plural) == (&info.group, &info.version, &info.plural)
        })
    }

    /// Makes the maps fit the rows.
    fn index(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        *self = Self::default();
        for (index, info) in rows.iter().map(|row| row.info()).enumerate() {
            self.by_plural.entry(info.plural.clone()).or_default().push(index);
            self.by_kind.entry(info.kind.clone()).or_default().push(index);
            // A view describes nothing that is in the store: the row of the stored kind does.
            if !rows[index].is_alternate() {
                self.by_storage.insert(Arc::clone(&info.storage), index);
            }
        }
        self.rows = rows;
    }

    /// The resource of a path.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.find(self.by_plural.get(plural)?, group, version)
    }

    /// The resource of a manifest's `apiVersion` (split) and `kind`.
    #[must_use]
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.find(self.by_kind.get(kind)?, group, version)
    }

    /// The resource whose objects are stored under that key (`core/pods`).
    #[must_use]
    pub fn by_storage(&self, storage: &str) -> Option<&Resource> {
        self.by_storage.get(storage).map(|&index| &self.rows[index])
    }

    /// All rows, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.rows.iter()
    }

    /// The groups and their versions, in the order in which they appear; the core group first as `""`.
    #[must_use]
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for info in self.rows.iter().map(|row| row.info()) {
            let position = groups.iter().position(|(group, _)| *group == info.group);
            let index = position.unwrap_or_else(|| {
                groups.push((info.group.clone(), Vec::new()));
                groups.len() - 1
            });
            let versions = &mut groups[index].1;
            if !versions.contains(&info.version) {
                versions.push(info.version.clone());
            }
        }
        groups.sort_by_key(|(group, _)| !group.is_empty());
        groups
    }

    /// The rows of one group and version.
    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.rows.iter().filter(move |row| row.info().group == group && row.info().version == version)
    }

    /// Whether a group has built-in resources: only below these, upstream answers with a `Status` where nothing is.
    #[must_use]
    pub fn is_built_in(&self, group: &str) -> bool {
        self.rows.iter().any(|row| row.info().group == group && !row.info().custom)
    }

    fn find(&self, rows: &[usize], group: &str, version: &str) -> Option<&Resource> {
        let rows = rows.iter().map(|&index| &self.rows[index]);
        rows.into_iter().find(|row| row.info().group == group && row.info().version == version)
    }
}

/// The table in use, replaceable while the server runs.
pub struct ResourceTable {
    current: RwLock<Arc<Resources>>,
    changes: watch::Sender<()>,
}

impl ResourceTable {
    /// A table that starts with these rows.
    #[must_use]
    pub fn new(resources: Resources) -> Self {
        Self { current: RwLock::new(Arc::new(resources)), changes: watch::Sender::new(()) }
    }

    /// The table as it is now.
    #[must_use]
    pub fn load(&self) -> Arc<Resources> {
        Arc::clone(&self.current.read())
    }

    /// Replaces the table by a changed copy.
    pub fn change(&self, change: impl FnOnce(&mut Resources)) {
        {
            let mut current = self.current.write();
            let mut next = Resources::clone(&current);
            change(&mut next);
            *current = Arc::new(next);
        }
        self.changes.send_replace(());
    }

    /// Tells when the table has been replaced.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}
