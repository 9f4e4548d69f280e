//! Step 3: what the server sets and the client cannot: the metadata all kinds have in common ([`meta`]), and what the
//! strategy of the kind takes from the stored object or begins anew (status, generation).

use machinery::status::ApiError;

use super::{Action, Write};
use crate::kind::Subresource;
use crate::meta;
use crate::object::Object;

/// Prepares the object that the request brings.
pub(super) fn first(write: &Write<'_>, new: &mut dyn Object, old: Option<&dyn Object>) -> Result<(), ApiError> {
    if old.is_none() {
        meta::prepare_create(new.meta_mut(), write.attributes.namespace, write.now);
    }
    again(write, new, old)
}

/// Prepares an object that has been prepared before, and changed since.
pub(super) fn again(write: &Write<'_>, new: &mut dyn Object, old: Option<&dyn Object>) -> Result<(), ApiError> {
    let resource = write.resource()?;
    if let Some(old) = old {
        // A new number of replicas is an update of the workload itself.
        match write.subresource().filter(|subresource| *subresource != Subresource::Scale) {
            Some(subresource) if write.action == Action::UpdateSubresource => {
                let reset = resource.info().metadata_reset(subresource);
                meta::prepare_subresource(new.meta_mut(), old.meta(), reset);
            }
            _ => meta::prepare_update(new.meta_mut(), old.meta()),
        }
    }
    resource.strategy().prepare(new, old, write.subresource(), &write.context())
}
