//! `coracle timeline`: what happened to an object and all that belongs to it, in the order in which it happened, with what each
//! followed from. The API server knows it (`cluster/src/timeline.rs`).

mod otlp;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use cluster::Profile;
use cluster::timeline::{Because, Entry, What, Writer};
use http::Request;
use jiff::Timestamp;
use kube::Client;
use machinery::changes::{self, Change};
use serde_json::{Value, json};

use super::resources::{self, Resource};
use super::{ask, require_running};
use crate::cli::{Timeline, TimelineFormat};
use crate::output;

const PATH: &str = "/apis/timeline.coracle.dev/v1/timelinereviews";
/// How often it is looked for more.
const FOLLOW: Duration = Duration::from_secs(1);
/// So many causes are.
const CAUSES: usize = 2;

pub(super) fn run(profile: &Profile, wanted: &Timeline) -> Result<ExitCode> {
    require_running(profile)?;
    ask(profile, async |client| {
        let spec = spec(&client, wanted).await?;
        let story = story(&client, &spec).await.map_err(|error| unknown(error, wanted))?;
        match wanted.output {
            TimelineFormat::Json => return output::json(&story),
            TimelineFormat::Otlp => return output::json(&otlp::traces(&story.entries)),
            TimelineFormat::Text => {}
        }
        if story.is_cut {
            output::note("What happened before is forgotten, or too much; more is with: coracle start --history 1h");
        }
        if story.entries.is_empty() && !wanted.follow {
            let what = wanted.object.as_deref().unwrap_or("the cluster");
            output::note(format!("Nothing that is remembered has happened to {what}."));
        }
        let mut printer = Printer::new(&story.entries);
        printer.new_lines(&story.entries).iter().try_for_each(output::line)?;
        if !wanted.follow {
            return Ok(());
        }
        loop {
            tokio::time::sleep(FOLLOW).await;
            let story = self::story(&client, &spec).await?;
            printer.new_lines(&story.entries).iter().try_for_each(output::line)?;
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the API server is asked.
async fn spec(client: &Client, wanted: &Timeline) -> Result<Value> {
    let mut spec = json!({ "sinceSeconds": wanted.since().map(|since| since.as_secs()) });
    if let Some(object) = &wanted.object {
        let all = resources::all(client).await?;
        let (resource, name) = resources::find(&all, object)?;
        spec["object"] = named(&resource, &wanted.namespace, name);
    }
    Ok(spec)
}

/// An object that never was is called as whoever typed it did.
fn unknown(error: anyhow::Error, wanted: &Timeline) -> anyhow::Error {
    match (error.downcast_ref(), &wanted.object) {
        (Some(kube::Error::Api(status)), Some(object)) if status.code == 404 => {
            anyhow!("there is no {object} in what is remembered; see: coracle at --help")
        }
        _ => error,
    }
}

/// An object as the API server is asked for it.
pub(super) fn named(resource: &Resource, namespace: &str, name: &str) -> Value {
    json!({
        "group": resource.group, "version": resource.version, "resource": resource.plural, "name": name,
        "namespace": if resource.is_namespaced { namespace } else { "" },
    })
}

pub(super) async fn story(client: &Client, spec: &Value) -> Result<cluster::timeline::Timeline> {
    let request = Request::post(PATH).body(json!({ "spec": spec }).to_string().into_bytes())?;
    let mut answer: Value = client.request(request).await?;
    serde_json::from_value(answer["status"].take()).context("the API server tells no timeline that is understood")
}

/// Prints a story as it grows.
struct Printer {
    /// When it began, in microseconds since 1970.
    began: Option<i64>,
    /// The widest name of who did something.
    width: usize,
    printed: HashSet<String>,
    has_head: bool,
}

impl Printer {
    fn new(entries: &[Entry]) -> Self {
        let width = entries.iter().map(|entry| who(entry).chars().count()).max().unwrap_or(0).clamp(2, 48);
        let began = entries.first().map(|entry| entry.time_micros);
        Self { began, width, printed: HashSet::new(), has_head: false }
    }

    /// The lines of what was not there before.
    fn new_lines(&mut self, entries: &[Entry]) -> Vec<String> {
        let mut lines = Vec::new();
        let width = self.width;
        for entry in entries {
            // Why something happened may be known a moment later than that it did.
            let name = format!("{:?} {:?} {:?}", entry.time_micros, entry.revision, entry.text);
            if !self.printed.insert(name) {
                continue;
            }
            if !std::mem::replace(&mut self.has_head, true) {
                lines.push(format!("{:<15}  {:>9}  {:<width$}  WHAT", "TIME", "AFTER", "WHO"));
            }
            let began = *self.began.get_or_insert(entry.time_micros);
            let after = u64::try_from(entry.time_micros.saturating_sub(began)).unwrap_or_default();
            lines.push(format!(
                "{:<15}  {:>9}  {:<width$}  {}",
                time(entry.time_micros, entry.revision.is_some()),
                elapsed(Duration::from_micros(after)),
                who(entry),
                what(entry)
            ));
        }
        lines
    }
}

/// `10:04:00.123`, of what is known to the microsecond `10:04:00.123456`.
fn time(micros: i64, is_millisecond: bool) -> String {
    let Ok(time) = Timestamp::from_microsecond(micros) else { return String::new() };
    let text = format!("{time:.6}");
    let text = text.split_once('T').map_or(text.as_str(), |(_, time)| time.trim_end_matches('Z'));
    text[..text.len().saturating_sub(if is_millisecond { 3 } else { 0 })].to_owned()
}

/// How much later: `+12 ms`, `+3.2 s`, `+12 min`.
fn elapsed(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 => String::new(),
        1..1_000 => format!("+{millis} ms"),
        1_000..100_000 => format!("+{:.1} s", time.as_secs_f64()),
        _ => format!("+{} min", time.as_secs() / 60),
    }
}

/// The component, else the program and its user.
fn who(entry: &Entry) -> String {
    match (&entry.component, &entry.author) {
        (Some(component), _) => component.clone(),
        (None, Some(Writer { user, program, .. })) if program.is_empty() => user.clone(),
        // Parts of the system are known by what they are.
        (None, Some(Writer { user, program, .. })) if user.starts_with("system:") => program.clone(),
        (None, Some(Writer { user, program, .. })) => format!("{program} ({user})"),
        (None, None) => "-".to_owned(),
    }
}

fn what(entry: &Entry) -> String {
    let name = entry.object.as_ref().map(|object| format!("{} {}", object.kind, object.name)).unwrap_or_default();
    let text = entry.text.as_deref().unwrap_or_default();
    let subresource = entry.author.as_ref().map(|author| author.subresource.as_str()).unwrap_or_default();
    let told = match entry.what {
        What::Did => format!("{name}: {text}"),
        What::Failed => format!("{name}: failed: {text}"),
        What::Created | What::Changed if entry.text.is_some() => format!("Event {text}"),
        What::Created => format!("created {name}"),
        What::Deleted => format!("deleted {name}"),
        What::Changed if entry.author.as_ref().is_some_and(|author| author.verb == "bind") => {
            format!("bound {name}: {}", changes(&entry.changes))
        }
        What::Changed if !subresource.is_empty() => format!("{name} ({subresource}): {}", changes(&entry.changes)),
        What::Changed => format!("{name}: {}", changes(&entry.changes)),
    };
    let revision = entry.revision.map(|revision| format!("  @{revision}")).unwrap_or_default();
    let mut because: Vec<String> = entry.because.iter().take(CAUSES).map(cause).collect();
    if entry.because.len() > CAUSES {
        because.push(format!("{} more", entry.because.len() - CAUSES));
    }
    let because = if because.is_empty() { String::new() } else { format!("  ← {}", because.join(", ")) };
    format!("{told}{revision}{because}")
}

fn cause(because: &Because) -> String {
    let revision = because.revision.map(|revision| format!(" @{revision}")).unwrap_or_default();
    format!("{}{revision}", because.text)
}

/// The fields that changed, in a line.
fn changes(changes: &[Change]) -> String {
    if changes.is_empty() { "nothing that can be seen".to_owned() } else { changes::summary(changes) }
}

#[cfg(test)]
mod tests;
