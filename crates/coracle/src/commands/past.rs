//! The past of a cluster: `coracle at`, `coracle history` and `coracle diff`. The API server serves it at `/at/REVISION/`.

mod at;
mod diff;
mod history;

use anyhow::{Context, Result, bail};
use cluster::Profile;
use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

pub(super) use self::at::run as at;
pub(super) use self::diff::run as diff;
pub(super) use self::history::run as history;
use crate::cli::Moment;

/// A revision and when it was written, as the API server tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Known {
    pub(super) revision: String,
    time: Option<String>,
}

impl Known {
    fn number(&self) -> Result<u64> {
        self.revision.parse().context("the API server names no revision")
    }

    /// `12 (2026-01-02T03:04:05.678Z)`.
    fn text(&self) -> String {
        match &self.time {
            Some(time) => format!("{} ({time})", self.revision),
            None => self.revision.clone(),
        }
    }
}

/// How far back objects are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Past {
    oldest: Known,
    newest: Known,
    /// What was the newest at the time that was asked for.
    at: Known,
}

/// Asks for a document.
async fn ask_for(client: &Client, path: &str) -> Result<Value> {
    Ok(client.request(Request::get(path).body(Vec::new())?).await?)
}

async fn past(client: &Client, query: &str) -> Result<Past> {
    serde_json::from_value(ask_for(client, &format!("/at{query}")).await?)
        .context("the API server tells nothing of its past")
}

/// The revision that a moment means.
pub(super) async fn revision(client: &Client, profile: &Profile, moment: Moment) -> Result<Known> {
    let (query, revision) = match moment {
        Moment::Now => (String::new(), None),
        Moment::Ago(ago) => (format!("?ago={}", ago.as_secs()), None),
        Moment::Time(time) => (format!("?time={}", time.as_millisecond()), None),
        Moment::Revision(revision) => (String::new(), Some(revision)),
    };
    let past = past(client, &query).await?;
    let forgotten = || {
        format!(
            "that is forgotten; the oldest revision that is remembered is {}. More is with: coracle start -p {} --history 1h",
            past.oldest.text(),
            profile.name()
        )
    };
    match revision {
        Some(revision) if revision < past.oldest.number()? => bail!(forgotten()),
        Some(revision) if revision > past.newest.number()? => {
            bail!("revision {revision} has not happened; the newest is {}", past.newest.text())
        }
        Some(revision) => Ok(Known { revision: revision.to_string(), time: None }),
        // Before the first one there was no cluster, which can be looked at, too.
        None if past.at.time.is_none() && past.oldest.number()? > 0 => bail!(forgotten()),
        None => Ok(past.at),
    }
}
