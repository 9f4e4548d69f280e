//! Step 4: the plugins of admission that may change the object, in upstream's order.

use machinery::status::ApiError;

use super::{Proposed, Step, Write, prepare};
use crate::admission::{AdmissionPlugin, Attributes, Reinvocation};

/// Runs the mutating half of admission; twice, when a policy or a webhook has changed the object ([`Reinvocation`]).
pub(super) async fn run(
    write: &Write<'_>,
    attributes: &Attributes<'_>,
    proposed: &mut Proposed,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    let mut reinvocation = Reinvocation::default();
    run_once(write, attributes, proposed, warnings, &mut reinvocation).await?;
    if reinvocation.begin_second() {
        run_once(write, attributes, proposed, warnings, &mut reinvocation).await?;
    }
    Ok(())
}

/// Runs all plugins. What they changed is prepared again: before policies and webhooks see it, and at the end.
async fn run_once(
    write: &Write<'_>,
    attributes: &Attributes<'_>,
    proposed: &mut Proposed,
    warnings: &mut Vec<String>,
    reinvocation: &mut Reinvocation,
) -> Result<(), ApiError> {
    let mut changed = false;
    for plugin in attributes.registry.0.plugins.iter().filter(|plugin| plugin.handles(attributes)) {
        if plugin.reinvokes() && changed {
            prepare_again(write, attributes, proposed)?;
            changed = false;
        }
        let changes = plugin.admit_again(attributes, proposed.object.as_mut(), warnings, reinvocation).await;
        changed |= changes.inspect_err(|error| refused(*plugin, error))?;
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
