//! The health of the components that run in this process, as each says of itself, and the objects that are made of it when
//! somebody asks: ComponentStatuses.

use std::sync::Arc;

use machinery::status::ApiError;
use parking_lot::RwLock;
use store::Entry;

use crate::Registry;
use crate::read::{Filter, attributes, key_of};
use crate::request::{ListPage, ListRequest, Target};
use crate::table::Resource;

/// Whether a component works, or why not. Whoever reads its ComponentStatus asks, so that it must answer at once.
pub type HealthCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentHealth {
    /// Its name.
    pub name: String,
    /// Why it does not work; nothing while it does.
    pub fault: Option<String>,
}

/// The checks of all components, sorted by name.
#[derive(Default)]
pub(crate) struct Components(RwLock<Vec<(String, HealthCheck)>>);

impl Registry {
    /// Lets a component say how it is, from now on.
    pub fn add_component(&self, name: &str, check: HealthCheck) {
        let mut components = self.0.components.0.write();
        components.push((name.to_owned(), check));
        components.sort_by(|(one, _), (other, _)| one.cmp(other));
    }

    fn component_health(&self) -> Vec<ComponentHealth> {
        let components = self.0.components.0.read();
        let ask = |(name, check): &(String, HealthCheck)| ComponentHealth { name: name.clone(), fault: check().err() };
        components.iter().map(ask).collect()
    }

    /// The objects of a resource that are made now, as if they were stored.
    fn computed(&self, resource: &Resource) -> Result<Vec<Arc<Entry>>, ApiError> {
        let revision = self.store().revision();
        let objects = resource.strategy().compute(&self.component_health());
        let entry = |object: Box<dyn crate::Object>| {
            let object = object.as_ref();
            let mut value = Vec::new();
            resource.encode(object, &mut value)?;
            let meta = object.meta();
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            Ok(Arc::new(Entry {
                key: key_of(resource.as_ref(), namespace, meta.name.as_deref().unwrap_or_default()),
                value: value.into(),
                revision,
                create_revision: revision,
                attributes: attributes(resource.as_ref(), object)?,
            }))
        };
        objects.into_iter().map(entry).collect()
    }

    /// The object of that name, if it is made.
    pub(crate) fn find_computed(&self, target: &Target) -> Result<Option<Arc<Entry>>, ApiError> {
        Ok(self.computed(&target.resource)?.into_iter().find(|entry| *entry.key.name == *target.name))
    }

    /// All objects that a filter shows. They are few, so that there is one page.
    pub(crate) fn list_computed(&self, target: &Target, request: &ListRequest) -> Result<ListPage, ApiError> {
        let filter = Filter::new(target, &request.selection)?;
        let mut entries = self.computed(&target.resource)?;
        entries.retain(|entry| filter.matches(entry));
        Ok(ListPage { entries, revision: self.store().revision(), continue_token: None, remaining: None })
    }
}
