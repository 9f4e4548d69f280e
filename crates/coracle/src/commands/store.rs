//! `coracle store`: what lies in the store, as `etcdctl` shows it of etcd.
//!
//! The API server serves it at `/debug/store/`, to administrators; a page is asked for after the other, and nothing is kept.

use std::process::ExitCode;

use anyhow::{Context, Result};
use cluster::Profile;
use http::Request;
use kube::Client;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ask, require_running};
use crate::cli::{Format, StoreCommand, StoreGet, StoreLs, StoreWatch};
use crate::output;

/// A key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    key: String,
    revision: u64,
    create_revision: u64,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Page {
    revision: u64,
    keys: Vec<Row>,
    #[serde(rename = "continue")]
    token: Option<String>,
}

/// A key with what lies under it.
#[derive(Debug, Deserialize, Serialize)]
struct Found {
    #[serde(flatten)]
    row: Row,
    value: Value,
}

/// A change.
#[derive(Debug, Deserialize, Serialize)]
struct Change {
    #[serde(rename = "type")]
    what: String,
    #[serde(flatten)]
    row: Row,
}

#[derive(Debug, Deserialize)]
struct Changes {
    changes: Vec<Change>,
    next: u64,
}

pub(crate) fn run(profile: &Profile, wanted: &StoreCommand) -> Result<ExitCode> {
    require_running(profile)?;
    ask(profile, async |client| match wanted {
        StoreCommand::Ls(wanted) => ls(&client, wanted).await,
        StoreCommand::Get(wanted) => get(&client, wanted).await,
        StoreCommand::Watch(wanted) => watch(&client, wanted).await,
    })
}

async fn ls(client: &Client, wanted: &StoreLs) -> Result<ExitCode> {
    let mut query = vec![("prefix", wanted.prefix.clone())];
    let mut is_first = true;
    loop {
        let page: Page = ask_for(client, "keys", &query).await?;
        if is_first && page.keys.is_empty() {
            output::note(format!("No key begins with {}.", wanted.prefix));
        } else if is_first && wanted.output == Format::Text && !wanted.keys_only {
            output::line(columns("REVISION", "CREATED", "SIZE", "KEY"))?;
        }
        is_first = false;
        for row in &page.keys {
            match wanted.output {
                Format::Json => output::line(serde_json::to_string(row)?)?,
                Format::Text if wanted.keys_only => output::line(&row.key)?,
                Format::Text => output::line(columns(row.revision, row.create_revision, row.size, &row.key))?,
            }
        }
        let Some(token) = page.token else { return Ok(ExitCode::SUCCESS) };
        query.truncate(1);
        query.extend([("revision", page.revision.to_string()), ("continue", token)]);
    }
}

async fn get(client: &Client, wanted: &StoreGet) -> Result<ExitCode> {
    let found: Found = ask_for(client, "value", &[("key", wanted.key.clone())]).await?;
    match wanted.output {
        Format::Json => output::json(&found)?,
        Format::Text => {
            let Row { key, revision, create_revision, size } = &found.row;
            output::line(format!(
                "Key:      {key}\nRevision: {revision}\nCreated:  {create_revision}\nSize:     {size}\n"
            ))?;
            output::json(&found.value)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(client: &Client, wanted: &StoreWatch) -> Result<ExitCode> {
    let mut from = wanted.from;
    if wanted.output == Format::Text {
        output::line(line("REVISION", "TYPE", "SIZE", "KEY"))?;
    }
    loop {
        let mut query = vec![("prefix", wanted.prefix.clone())];
        query.extend(from.map(|from| ("from", from.to_string())));
        // It answers when there are some, and after a while without any.
        let page: Changes = ask_for(client, "changes", &query).await?;
        for change in &page.changes {
            match wanted.output {
                Format::Json => output::line(serde_json::to_string(change)?)?,
                Format::Text => {
                    output::line(line(change.row.revision, &change.what, change.row.size, &change.row.key))?;
                }
            }
        }
        from = Some(page.next);
    }
}

/// A line of the list. Nobody knows how wide later ones are: they are not there yet.
fn columns(
    revision: impl ToString,
    created: impl ToString,
    size: impl ToString,
    key: impl std::fmt::Display,
) -> String {
    format!("{:>9}  {:>9}  {:>8}  {key}", revision.to_string(), created.to_string(), size.to_string())
}

/// A line of a watch.
fn line(revision: impl ToString, what: &str, size: impl ToString, key: impl std::fmt::Display) -> String {
    format!("{:>9}  {what:<6}  {:>8}  {key}", revision.to_string(), size.to_string())
}

async fn ask_for<T: serde::de::DeserializeOwned>(client: &Client, what: &str, query: &[(&str, String)]) -> Result<T> {
    let request = Request::get(path(what, query)).body(Vec::new())?;
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).context("the API server does not tell what lies in the store")
}

fn path(what: &str, query: &[(&str, String)]) -> String {
    let part = |(name, value): &(&str, String)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    format!("/debug/store/{what}?{}", query.iter().map(part).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_one_parameter() {
        let path = path("keys", &[("prefix", "a b&revision=1/ü".to_owned()), ("limit", "5".to_owned())]);
        assert_eq!(path, "/debug/store/keys?prefix=a%20b%26revision%3D1%2F%C3%BC&limit=5");
    }

    #[test]
    fn lines_and_their_heads() {
        assert_eq!(columns("REVISION", "CREATED", "SIZE", "KEY"), " REVISION    CREATED      SIZE  KEY");
        assert_eq!(columns(12, 7, 1536, "/registry/a"), "       12          7      1536  /registry/a");
        assert_eq!(line("REVISION", "TYPE", "SIZE", "KEY"), " REVISION  TYPE        SIZE  KEY");
        assert_eq!(line(12, "DELETE", 1536, "/registry/a"), "       12  DELETE      1536  /registry/a");
    }
}
