//! `coracle pause`, `coracle resume` and `coracle step`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use cluster::Profile;
use serde::{Deserialize, Serialize};

use super::components::{self, Component};
use super::{ask, require_running, top};
use crate::cli::{Format, Pause, Resume, Step, Stepping};
use crate::output;

pub(crate) fn run(profile: &Profile, command: &Stepping) -> Result<ExitCode> {
    match command {
        Stepping::Pause(wanted) => pause(profile, wanted),
        Stepping::Resume(wanted) => resume(profile, wanted),
        Stepping::Step(wanted) => step(profile, wanted),
        Stepping::Top(wanted) => top::run(profile, wanted),
    }
}

fn pause(profile: &Profile, wanted: &Pause) -> Result<ExitCode> {
    let name = profile.name();
    let Some(what) = &wanted.what else { bail!(nothing_to_pause(name)) };
    require_running(profile)?;
    let found = ask(profile, async |client| components::change(&client, what, "pause").await)?;
    output::note(paused(&found, name));
    Ok(ExitCode::SUCCESS)
}

/// minikube's command of this name pauses the whole cluster.
fn nothing_to_pause(cluster: &str) -> String {
    format!(
        "say what to pause: controllers, scheduler, kubelet, all, or one controller, as in: coracle pause deployment. A whole cluster is not paused but stopped: coracle stop -p {cluster} frees memory and processors, and start goes on in a second; --keep-pods ends only the control plane"
    )
}

fn paused(found: &[Component], cluster: &str) -> String {
    let names = components::paused(found).join(", ");
    let busy = found.iter().filter(|component| component.figures.running > 0).map(|component| component.name.as_str());
    let busy: Vec<&str> = busy.collect();
    let still = if busy.is_empty() { String::new() } else { format!(" Still at work: {}.", busy.join(", ")) };
    format!(
        "Paused {names}; what happens meanwhile waits in the queues.{still} One reconcile: coracle step -p {cluster}. Go on: coracle resume -p {cluster}"
    )
}

fn resume(profile: &Profile, wanted: &Resume) -> Result<ExitCode> {
    require_running(profile)?;
    let found = ask(profile, async |client| components::change(&client, &wanted.what, "resume").await)?;
    let names: Vec<&str> = found.iter().map(|component| component.name.as_str()).collect();
    output::note(match &names[..] {
        [] => "Nothing of that was paused.".to_owned(),
        names if names.len() > 5 => format!("Resumed {} components.", names.len()),
        names => format!("Resumed {}.", names.join(", ")),
    });
    Ok(ExitCode::SUCCESS)
}

/// What became of a step.
#[derive(Debug, Deserialize)]
struct Stepped {
    metadata: Name,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    under_way: bool,
    reconciles: Vec<Reconcile>,
}

/// What is printed of a step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    component: String,
    /// Whether it goes on.
    under_way: bool,
    reconciles: Vec<Reconcile>,
    /// What can be stepped next.
    waiting: Vec<Component>,
}

/// A reconcile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reconcile {
    key: String,
    started_at: String,
    waited_millis: u64,
    took_micros: u64,
    causes: Vec<String>,
    writes: Vec<String>,
    actions: Vec<String>,
    ending: String,
    requeue_after_millis: Option<u64>,
    error: Option<String>,
    reason: Option<String>,
}

fn step(profile: &Profile, wanted: &Step) -> Result<ExitCode> {
    require_running(profile)?;
    let answer = ask(profile, async |client| {
        let Stepped { metadata, status } = components::post(&client, &wanted.what, "step").await?;
        let mut waiting = components::list(&client).await?;
        waiting.retain(|component| component.figures.paused && component.figures.waiting > 0);
        let Status { under_way, reconciles } = status;
        Ok(Answer { component: metadata.name, under_way, reconciles, waiting })
    })?;
    match wanted.output {
        Format::Json => output::json(&answer)?,
        Format::Text => text(&answer).iter().try_for_each(output::line)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    for reconcile in &answer.reconciles {
        let took = Duration::from_micros(reconcile.took_micros);
        lines.push(format!("{} reconciled {} in {took:?}", answer.component, reconcile.key));
        let list = |lines: &mut Vec<String>, head: &str, what: &[String]| {
            for (index, text) in what.iter().enumerate() {
                lines.push(format!("  {:<8}  {text}", if index == 0 { head } else { "" }));
            }
        };
        list(&mut lines, "woken by", &reconcile.causes);
        let nothing = ["nothing".to_owned()];
        let has_done = !reconcile.actions.is_empty() || !reconcile.writes.is_empty();
        list(&mut lines, "wrote", if has_done { &reconcile.writes[..] } else { &nothing[..] });
        list(&mut lines, "did", &reconcile.actions);
        list(&mut lines, "then", &[ending(reconcile)]);
    }
    if answer.under_way {
        lines.push(format!("{} is still at it; its end is shown by: coracle top", answer.component));
    } else if answer.reconciles.is_empty() {
        lines.push(format!("{} had nothing to do after all", answer.component));
    }
    let waiting: Vec<String> = answer.waiting.iter().map(waits).collect();
    lines.push(if waiting.is_empty() {
        "Nothing waits.".to_owned()
    } else {
        format!("Waiting: {}", waiting.join(", "))
    });
    lines
}

fn ending(reconcile: &Reconcile) -> String {
    let reason = reconcile.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let error = reconcile.error.as_deref().unwrap_or("a fault of the program");
    match (reconcile.ending.as_str(), reconcile.requeue_after_millis) {
        ("AwaitChange", _) => format!("waits for a change{reason}"),
        (_, Some(after)) => format!("comes again in {:?}{reason}", Duration::from_millis(after)),
        _ => format!("failed, and is tried again: {error}{reason}"),
    }
}

fn waits(component: &Component) -> String {
    let name = &component.name;
    match (&component.figures.next, component.figures.waiting) {
        (Some(next), 0 | 1) => format!("{name} ({})", next.key),
        (Some(next), count) => format!("{name} ({} and {} more)", next.key, count - 1),
        (None, count) => format!("{name} ({count})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::components::{Figures, Next};

    fn component(name: &str, running: u64, waiting: u64) -> Component {
        let next = (waiting > 0).then(|| Next { key: "default/web-1".to_owned(), waited_millis: 7 });
        let figures = Figures { paused: true, running, waiting, next, ..Figures::default() };
        Component { name: name.to_owned(), figures }
    }

    #[test]
    fn a_step_is_told_line_by_line() {
        let reconcile = |more: serde_json::Value| {
            let mut reconcile = json!({
                "key": "default/web", "startedAt": "2026-01-01T00:00:00Z", "waitedMillis": 5, "tookMicros": 2500,
                "causes": ["Deployment default/web @7"], "writes": [], "actions": [], "ending": "AwaitChange",
            });
            for (name, value) in more.as_object().expect("fields") {
                reconcile[name] = value.clone();
            }
            serde_json::from_value::<Reconcile>(reconcile).expect("a reconcile")
        };
        let told = |reconciles: Vec<Reconcile>, waiting: Vec<Component>| {
            text(&Answer { component: "deployment".to_owned(), under_way: false, reconciles, waiting }).join("\n")
        };
        let wrote =
            reconcile(json!({ "writes": ["create ReplicaSet default/web-1 @8", "patch Deployment default/web @9"] }));
        let expected = "deployment reconciled default/web in 2.5ms
  woken by  Deployment default/web @7
  wrote     create ReplicaSet default/web-1 @8
            patch Deployment default/web @9
  then      waits for a change
Waiting: replicaset (default/web-1), pod_gc (default/web-1 and 2 more)";
        assert_eq!(told(vec![wrote], vec![component("replicaset", 0, 1), component("pod_gc", 0, 3)]), expected);
        let idle = reconcile(json!({ "ending": "RequeueAfter", "requeueAfterMillis": 1500, "reason": "it is early" }));
        let text = told(vec![idle], Vec::new());
        assert!(
            text.contains("wrote     nothing\n  then      comes again in 1.5s (it is early)\nNothing waits."),
            "{text}"
        );
        let acted = reconcile(json!({ "actions": ["start container a"], "ending": "Failed", "error": "no luck" }));
        let text = told(vec![acted], Vec::new());
        assert!(
            text.contains("@7\n  did       start container a\n  then      failed, and is tried again: no luck\n"),
            "{text}"
        );
        assert!(told(Vec::new(), Vec::new()).starts_with("deployment had nothing to do after all\n"));
    }

    #[test]
    fn who_pauses_is_told_the_way_out() {
        let text = paused(&[component("deployment", 0, 0), component("replicaset", 1, 0)], "dev");
        assert!(text.starts_with("Paused deployment, replicaset; "), "{text}");
        assert!(text.contains(" Still at work: replicaset.") && text.ends_with("coracle resume -p dev"), "{text}");
        let text = nothing_to_pause("dev");
        assert!(text.contains("coracle pause deployment") && text.contains("coracle stop -p dev"), "{text}");
    }
}
