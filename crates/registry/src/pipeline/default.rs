//! Step 2: what the client left out, and whose fields the client's are now.

use machinery::status::ApiError;

use super::{Proposed, Stored, Write};

/// Sets the defaults, and then the `managedFields`: what is there now is what the client has said, and nothing that the
/// later steps add.
pub(super) fn run(write: &Write<'_>, proposed: &mut Proposed, old: Option<&Stored>) -> Result<(), ApiError> {
    let (resource, writer) = (write.resource()?, write.writer()?);
    let object = proposed.object_mut()?;
    resource.strategy().default(object.as_mut())?;
    if proposed.managed_fields.is_none() {
        let object = proposed.object_mut()?.as_mut();
        proposed.managed_fields = match old {
            None => Some(writer.created(object)?),
            Some(old) => writer.updated(&old.entry.value, object)?,
        };
    }
    Ok(())
}
