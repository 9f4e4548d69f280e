//! Post-start and pre-stop hooks.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use runtime::Runtime;

use crate::probes::{AttemptResult, Target, get};

/// Runs a hook, for at most `timeout`. The error says why it failed.
pub(crate) async fn run(
    runtime: &Arc<dyn Runtime>,
    target: &Target,
    handler: &LifecycleHandler,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let output = runtime.exec_sync(&target.id, command, timeout).await;
        let output = output.map_err(|error| error.to_string())?;
        return match output.exit_code {
            0 => Ok(()),
            code => Err(format!("command exited with {code}: {}", String::from_utf8_lossy(&output.output))),
        };
    }
    if let Some(action) = &handler.http_get {
        return match get(&target.request(action)?, timeout).await {
            AttemptResult::Success | AttemptResult::Warning(_) => Ok(()),
            AttemptResult::Failure(message) | AttemptResult::Error(message) => Err(message),
        };
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(timeout)).await;
        return Ok(());
    }
    Err("invalid handler: no action".to_owned())
}
