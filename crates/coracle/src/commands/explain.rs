//! `coracle explain`: what an object wants and has, who acts next, and what that waits for; and who may do something.

mod access;
pub(super) mod decision;
mod related;

use std::process::ExitCode;

use anyhow::{Result, bail};
use cluster::Profile;
use explain::{Explanation, Step};
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;
use serde_json::Value;

use super::resources::{self, Resource};
use super::{ask, require_running};
use crate::cli::{Explain, ExplainCommand, ExplainObject, Format};
use crate::output;

/// What is printed of an object.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    explanation: Explanation,
    /// Of a pod: what the scheduler decided last.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Value>,
}

pub(crate) fn run(profile: &Profile, wanted: &Explain) -> Result<ExitCode> {
    require_running(profile)?;
    match &wanted.command {
        Some(ExplainCommand::Access(wanted)) => access::run(profile, wanted),
        None => object(profile, &wanted.object),
    }
}

fn object(profile: &Profile, wanted: &ExplainObject) -> Result<ExitCode> {
    let now = Timestamp::now();
    let answer = ask(profile, async |client| {
        let all = resources::all(&client).await?;
        let (resource, name) = match (&wanted.object, &wanted.name) {
            (Some(kind), Some(name)) if !kind.contains('/') => (resources::of_kind(&all, kind)?, name.as_str()),
            (Some(object), None) => resources::find(&all, object)?,
            _ => bail!("expected one object: KIND/NAME or KIND NAME"),
        };
        answer(&client, &all, &resource, &wanted.namespace, name, now).await
    })?;
    match wanted.output {
        Format::Json => output::json(&answer)?,
        Format::Text => {
            output::line(answer.explanation.text(now).trim_end())?;
            if let Some(decision) = &answer.decision {
                output::line(format!("\nThe scheduler's latest decision:\n{}", decision::text(decision)?.trim_end()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Who does what next about an object, as far as it can be read.
pub(super) async fn next(client: &Client, kind: &str, namespace: &str, name: &str) -> Result<Vec<Step>> {
    let all = resources::all(client).await?;
    let resource = resources::of_kind(&all, kind)?;
    Ok(answer(client, &all, &resource, namespace, name, Timestamp::now()).await?.explanation.next)
}

async fn answer(
    client: &Client,
    all: &[Resource],
    resource: &Resource,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<Answer> {
    let full_name = resource.full_name();
    let decision = match full_name.as_str() {
        "pods" => decision::of_pod(client, namespace, name).await?,
        _ => None,
    };
    let Some(object) = related::get(client, &resource.path(Some(namespace)), name).await? else {
        // A decision outlives its pod by a while.
        if decision.is_some() {
            let gone = Explanation {
                object: format!("pod/{name} -n {namespace}"),
                why: vec![
                    "it is gone; what the scheduler decided last about a pod of this name is still kept".to_owned(),
                ],
                ..Explanation::default()
            };
            return Ok(Answer { explanation: gone, decision });
        }
        let place = if resource.is_namespaced { format!(" in the namespace {namespace}") } else { String::new() };
        let option = if resource.is_namespaced { " -A" } else { "" };
        bail!("there is no {} {name}{place}; see: kubectl get {full_name}{option}", resource.singular);
    };
    // A pod of the same name may have been replaced since.
    let decision = decision.filter(|decision| decision["uid"] == object["metadata"]["uid"]);
    let related = related::of(client, all, resource, &object).await?;
    let mut explanation = explain::explain(&full_name, &resource.name_of(&object), &object, &related, now);
    if full_name == "pods" {
        scheduled(&mut explanation, &object, decision.as_ref());
    }
    Ok(Answer { explanation, decision })
}

/// Says where a decision is not kept, and what it says the pod waits for.
fn scheduled(explanation: &mut Explanation, pod: &Value, decision: Option<&Value>) {
    match decision {
        Some(decision) if pod["spec"]["nodeName"].is_null() => {
            let waits = decision["waitsFor"].as_array().into_iter().flatten().filter_map(Value::as_str);
            explanation.why.extend(waits.map(|what| format!("the scheduler waits for {what}")));
        }
        None if pod["spec"]["nodeName"].is_string() => explanation.unknown.push(
            "why it is on its node: no decision about it is kept. The latest 512 are, since the last start".to_owned(),
        ),
        _ => {}
    }
}
