//! The last words of a container: its termination message.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use runtime::{Container, ContainerState, Runtime};
use streaming::LogOptions;

use crate::volumes::PodDirectory;

/// The most that is read of a termination log, in bytes (upstream: `MaxContainerTerminationMessageLength` in
/// `pkg/kubelet/container/runtime.go`).
const FROM_FILE: u64 = 4096;
/// The most that is taken from the log instead, in lines and bytes.
const FROM_LOG: (i64, usize) = (80, 2048);

/// The message that an ended container left. Empty when it left none. `fall_back` allows to take the end of its log.
pub(super) async fn termination_message(
    runtime: &dyn Runtime,
    directory: &PodDirectory,
    container: &Container,
    fall_back: bool,
) -> String {
    let ContainerState::Exited { exit_code, message, .. } = &container.state else {
        return String::new();
    };
    let path = directory.termination_log(&container.name, container.attempt);
    // The container wrote it, so its length is whatever the container likes.
    let written = tokio::task::spawn_blocking(move || hostfs::read_tail(&path, FROM_FILE)).await;
    if let Ok(Ok(written)) = written
        && !written.is_empty()
    {
        return String::from_utf8_lossy(&written).into_owned();
    }
    if fall_back && *exit_code != 0 {
        let log = from_log(runtime, &container.id);
        let log = tokio::time::timeout(Duration::from_secs(2), log).await;
        let log = log.unwrap_or_default();
        if !log.is_empty() {
            return log;
        }
    }
    message.clone()
}

async fn from_log(runtime: &dyn Runtime, id: &str) -> String {
    let options = LogOptions { tail_lines: Some(FROM_LOG.0), ..LogOptions::default() };
    let Ok(mut log) = runtime.logs(id, &options).await else {
        return String::new();
    };
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = log.next().await {
        let chunk: Bytes = chunk;
        text.extend_from_slice(&chunk);
        // A line can be as long as the log.
        text.drain(..text.len().saturating_sub(FROM_LOG.1));
    }
    String::from_utf8_lossy(&text).into_owned()
}
