//! Step 4: the plugins of admission that may change the object, in upstream's order.

use machinery::status::ApiError;

use super::{Proposed, Step, Write, prepare};
use crate::admission::{AdmissionPlugin, Attributes};

/// Runs the mutating half of admission. What a plugin changed is prepared again: before the webhooks see it, and at the end.
///
/// When webhooks changed the object, the plugins before them look at it once more
/// (`staging/src/k8s.io/apiserver/pkg/admission/reinvocation.go`).
pub(super) async fn run(
    write: &Write<'_>,
    attributes: &Attributes<'_>,
    proposed: &mut Proposed,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut changed = false;
    for (index, plugin) in
        attributes.registry.0.plugins.iter().enumerate().filter(|(_, plugin)| plugin.handles(attributes))
    {
        if plugin.reinvokes() && changed {
            prepare_again(write, attributes, proposed)?;
            changed = false;
        }
        let changes = plugin.admit(attributes, proposed.object.as_mut(), warnings).await;
        let changes = changes.inspect_err(|error| refused(*plugin, error))?;
        if changes && plugin.reinvokes() {
            for earlier in attributes.registry.0.plugins[..index].iter().filter(|plugin| plugin.handles(attributes)) {
                earlier.admit(attributes, proposed.object.as_mut(), warnings).await?;
            }
        }
        changed |= changes;
    }
    if changed { prepare_again(write, attributes, proposed) } else { Ok(()) }
}

fn prepare_again(write: &Write<'_>, attributes: &Attributes<'_>, proposed: &mut Proposed) -> Result<(), ApiError> {
    if !write.takes(Step::Prepare) {
        return Ok(());
    }
    prepare::again(write, proposed.object_mut()?.as_mut(), attributes.old)
}

/// Says in the log which plugin refused a request; its client is told why, in upstream's words.
pub(super) fn refused(plugin: &dyn AdmissionPlugin, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), %error, "an admission plugin refused a request");
}
