//! Custom resources: rows of the resource table made from CustomResourceDefinitions, and the objects in them.
//!
//! A definition is compiled once (`Crd`) and has a row for each version it serves (`rows`). Objects are JSON
//! under a structural schema (`object`). They are stored in the storage version, as they are served; under another
//! version, or a schema that has changed since, they are converted as they are read.

mod columns;
mod convert;
mod object;
mod reload;
mod resource;
mod select;
mod webhook;

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use machinery::gvk::{GroupKind, GroupResource};
use machinery::schema::Schema;
use store::Revision;

use crate::Registry;
use crate::descriptor::{ALL_VERBS, MetadataReset, NameRule, Scope, Subresource};
use crate::optional::list;
use crate::table::{ResourceInfo, api_version};
use columns::Columns;
pub(crate) use object::CustomObject;
use webhook::Converter;

pub(crate) use reload::Crds;
pub(crate) use resource::CustomResource;
pub(crate) use select::text_at;

/// Where the definitions are stored.
pub const CRDS: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// The condition of a definition under which its resource is served.
pub const ESTABLISHED: &str = "Established";
/// The condition of a definition that is being deleted.
pub const TERMINATING: &str = "Terminating";

/// Whether a condition of a definition holds.
#[must_use]
pub fn is_true(object: &CustomResourceDefinition, kind: &str) -> bool {
    let conditions = object.status.iter().flat_map(|status| list(&status.conditions));
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// A definition in the form in which it is used.
pub(crate) struct Crd {
    /// The definition as it is stored, for what only people read.
    source: Bytes,
    versions: Vec<Version>,
    /// The index of the storage version.
    storage: usize,
    /// Objects written before this revision may not be as the schema now says; 0 when there are none such.
    since: Revision,
    /// Who converts between versions, where they differ in ways only a webhook knows.
    converter: Option<Converter>,
    /// No new objects are taken: the definition is being deleted.
    terminating: bool,
}

/// A version of a definition.
struct Version {
    name: String,
    info: ResourceInfo,
    schema: Arc<Schema>,
    columns: Columns,
    scale: Option<Scale>,
    served: bool,
    /// Whether what is in the store may have to be changed to be served in this version.
    converts: bool,
}

/// Where in an object the subresource `scale` finds its numbers.
struct Scale {
    spec_replicas: Vec<String>,
    status_replicas: Vec<String>,
    selector: Option<Vec<String>>,
}

impl Crd {
    /// Compiles a definition; `None` when it serves nothing (yet).
    fn new(registry: &Registry, object: &CustomResourceDefinition, source: Bytes, since: Revision) -> Option<Self> {
        if !is_true(object, ESTABLISHED) {
            return None;
        }
        let storage = object.spec.versions.iter().position(|version| version.storage)?;
        let stored = object.status.as_ref().and_then(|status| status.stored_versions.as_deref()).unwrap_or_default();
        let mut versions: Vec<Version> = Vec::new();
        for version in &object.spec.versions {
            let mut compiled = Version::new(object, version, stored, since > 0);
            // Versions that say the same share what they say.
            if let Some(same) = versions.iter().find(|other| other.schema == compiled.schema) {
                compiled.schema = Arc::clone(&same.schema);
            }
            versions.push(compiled);
        }
        let terminating = is_true(object, TERMINATING);
        // What is left of a definition that serves nothing must be reachable to go with it.
        if terminating && !versions.iter().any(|version| version.served) {
            versions[storage].served = true;
        }
        let converter = object.spec.conversion.as_ref().and_then(|conversion| Converter::new(registry, conversion));
        Some(Self { source, versions, storage, since, converter, terminating })
    }

    fn converts_by_webhook(&self) -> bool {
        self.converter.is_some()
    }

    fn storage(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// The version whose row stands for what is in the store: the storage version, if it is served.
    fn carrier(&self) -> Option<usize> {
        let served = |index: &usize| self.versions[*index].served;
        Some(self.storage).filter(served).or_else(|| (0..self.versions.len()).find(served))
    }
}

/// The rows of a definition, one for each version that is served.
fn rows(crd: &Arc<Crd>) -> impl Iterator<Item = CustomResource> {
    let carrier = crd.carrier();
    let served = (0..crd.versions.len()).filter(|index| crd.versions[*index].served);
    served.map(move |index| CustomResource::new(Arc::clone(crd), index, carrier == Some(index)))
}

impl Version {
    fn new(
        object: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        stored: &[String],
        stale: bool,
    ) -> Self {
        let spec = &object.spec;
        let names = object.status.as_ref().and_then(|status| status.accepted_names.as_ref()).unwrap_or(&spec.names);
        let subresources = version.subresources.as_ref();
        let scale = subresources.and_then(|subresources| subresources.scale.as_ref());
        let status = subresources.is_some_and(|subresources| subresources.status.is_some());
        let mut below = Vec::new();
        below.extend(status.then_some(Subresource::Status));
        below.extend(scale.map(|_| Subresource::Scale));
        let deprecated = version.deprecated == Some(true);
        let deprecation = deprecated.then(|| {
            let text = format!("{}/{} {} is deprecated", spec.group, version.name, names.kind);
            version.deprecation_warning.clone().unwrap_or(text)
        });
        let selectable = version.selectable_fields.iter().flatten();
        let info = ResourceInfo {
            group: spec.group.clone(),
            version: version.name.clone(),
            kind: names.kind.clone(),
            list_kind: names.list_kind.clone().unwrap_or_else(|| format!("{}List", names.kind)),
            plural: spec.names.plural.clone(),
            singular: names.singular.clone().unwrap_or_default(),
            short_names: names.short_names.clone().unwrap_or_default(),
            categories: names.categories.clone().unwrap_or_default(),
            scope: if spec.scope == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
            verbs: ALL_VERBS,
            computed: false,
            stands_for: None,
            subresources: below,
            status_reset: MetadataReset::Everything,
            openapi_name: openapi_name(&spec.group, &version.name, &names.kind),
            storage: format!("{}/{}", spec.group, spec.names.plural).into(),
            names: NameRule::Subdomain,
            selectable: selectable.map(|field| field.json_path.trim_start_matches('.').to_owned()).collect(),
            create_on_update: false,
            unconditional_update: false,
            orphan_by_default: false,
            returns_deleted_object: false,
            compiles: false,
            group_resource: GroupResource::new(spec.group.clone(), spec.names.plural.clone()),
            group_kind: GroupKind::new(spec.group.clone(), names.kind.clone()),
            api_version: api_version(&spec.group, &version.name),
            custom: true,
            deprecation,
        };
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let path = |path: &str| path.trim_start_matches('.').split('.').map(str::to_owned).collect::<Vec<_>>();
        Self {
            name: version.name.clone(),
            info,
            schema: Arc::new(schema.map(Schema::parse).unwrap_or_default()),
            columns: Columns::new(version.additional_printer_columns.as_deref().unwrap_or_default()),
            scale: scale.map(|scale| Scale {
                spec_replicas: path(&scale.spec_replicas_path),
                status_replicas: path(&scale.status_replicas_path),
                selector: scale.label_selector_path.as_deref().filter(|path| !path.is_empty()).map(path),
            }),
            served: version.served,
            converts: stale || stored.iter().any(|stored| *stored != version.name),
        }
    }

    fn has_status(&self) -> bool {
        self.info.has(Subresource::Status)
    }
}

/// The name in OpenAPI: the group backwards, version, kind.
fn openapi_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}
