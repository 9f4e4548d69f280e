//! The last words of a container: its termination message.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use runtime::{Container, ContainerState, Runtime};
use streaming::LogOptions;

use crate::volumes::PodDirectory;

/// The most that is read of a termination log, in bytes.
const FROM_FILE: usize = 4096;
/// The most that is taken from the log instead, in lines and bytes.
const FROM_LOG: (i64, usize) = (80, 2048);

/// The message that an ended container left. Empty when it left none. `fall_back` allows to take the end of its log.
pub(super) async fn last_words(
    runtime: &dyn Runtime,
    directory: &PodDirectory,
    container: &Container,
    fall_back: bool,
) -> String {
    let ContainerState::Exited { exit_code, message, .. } = &container.state else {
        return String::new();
    };
    let path = directory.termination_log(&container.name, container.attempt);
    let written = tokio::fs::read(path).await.unwrap_or_default();
    if !written.is_empty() {
        return tail(&written, FROM_FILE);
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
    }
    tail(&text, FROM_LOG.1)
}

fn tail(text: &[u8], most: usize) -> String {
    let from = text.len().saturating_sub(most);
    String::from_utf8_lossy(&text[from..]).into_owned()
}
