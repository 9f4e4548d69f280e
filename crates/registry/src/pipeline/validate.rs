//! Step 5: whether the object is right, by the rules of its metadata and its kind; and, once nobody's rights grow by it, the
//! plugins of admission that may only refuse.

use machinery::field::ErrorList;
use machinery::status::ApiError;

use super::{Proposed, Write, mutate};
use crate::admission::Attributes;
use crate::meta;
use crate::object::Object;
use crate::table::ResourceInfo;

/// Validates metadata and object.
///
/// # Errors
/// 422 with everything that is wrong.
pub(super) fn object(
    write: &Write<'_>,
    proposed: &Proposed,
    old: Option<&dyn Object>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let (info, resource) = (write.attributes.info, write.resource()?);
    let new = proposed.object.as_deref().ok_or_else(|| ApiError::internal("there is nothing to validate"))?;
    let mut errors = meta::validate(new.meta(), info);
    if let Some(old) = old {
        errors.extend(meta::validate_update(new.meta(), old.meta()));
    }
    let findings = resource.strategy().validate(new, old, write.subresource())?;
    errors.extend(findings.errors);
    refuse_invalid(info, new, &errors)?;
    warnings.extend(findings.warnings);
    Ok(())
}

/// Runs the validating half of admission.
///
/// # Errors
/// That of the first plugin which refuses.
pub(super) async fn admission(
    attributes: &Attributes<'_>,
    proposed: &Proposed,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    for plugin in attributes.registry.0.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
        let verdict = plugin.validate(attributes, proposed.object.as_deref(), warnings).await;
        verdict.inspect_err(|error| mutate::refused(*plugin, error))?;
    }
    Ok(())
}

/// 422 when there is something wrong.
fn refuse_invalid(info: &ResourceInfo, object: &dyn Object, errors: &ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let meta = object.meta();
    let name = meta.name.as_deref().or(meta.generate_name.as_deref()).unwrap_or_default();
    Err(ApiError::invalid(&info.group_kind, name, errors))
}
