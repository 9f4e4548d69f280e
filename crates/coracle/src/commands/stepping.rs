//! `coracle pause`, `coracle resume` and `coracle step`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use cluster::Profile;
use kube::Client;
use serde::{Deserialize, Serialize};

use super::components::{self, Component};
use super::{ask, explain, require_running, top};
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
    /// What it was about to do, where that can be foreseen.
    plan: Vec<String>,
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
    ask(profile, async |client| {
        let Some(slow) = wanted.slow else { return one_step(&client, wanted).await };
        loop {
            match one_step(&client, wanted).await {
                Err(error) if is_idle(&error) && is_paused(&client, &wanted.what).await? => {}
                done => done?,
            }
            tokio::time::sleep(slow).await;
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Whether a step found nothing to do, or nothing that is paused.
fn is_idle(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

async fn is_paused(client: &Client, what: &str) -> Result<bool> {
    let all = components::list(client).await?;
    Ok(all.iter().any(|component| component.figures.paused && is_meant(component, what)))
}

async fn one_step(client: &Client, wanted: &Step) -> Result<()> {
    let next = next(&components::list(client).await?, &wanted.what);
    let plan = match &next {
        Some((component, key)) => plan(client, component, key).await,
        None => Vec::new(),
    };
    if let (Some((component, key)), Format::Text) = (&next, wanted.output) {
        about_to(component, key, &plan).iter().try_for_each(output::line)?;
    }
    let Stepped { metadata, status } = components::post(client, &wanted.what, "step").await?;
    let mut waiting = components::list(client).await?;
    waiting.retain(|component| component.figures.paused && component.figures.waiting > 0);
    let Status { under_way, reconciles } = status;
    // Something else may have come first: that was not foreseen.
    let is_done = |(component, key): &(String, String)| {
        *component == metadata.name && reconciles.first().is_none_or(|reconcile| reconcile.key == *key)
    };
    let plan = if next.as_ref().is_some_and(is_done) { plan } else { Vec::new() };
    let answer = Answer { component: metadata.name, plan, under_way, reconciles, waiting };
    match wanted.output {
        Format::Json => output::json(&answer),
        Format::Text => text(&answer).iter().try_for_each(output::line),
    }
}

/// The kinds of the objects that components reconcile, and what `coracle explain` calls the components; of those whose next step
/// it knows.
const EXPLAINED: [(&str, &str, &str); 10] = [
    ("deployment", "deployments.apps", "Deployment controller"),
    ("replicaset", "replicasets.apps", "ReplicaSet controller"),
    ("statefulset", "statefulsets.apps", "StatefulSet controller"),
    ("daemonset", "daemonsets.apps", "DaemonSet controller"),
    ("job", "jobs.batch", "Job controller"),
    ("cronjob", "cronjobs.batch", "CronJob controller"),
    ("horizontalpodautoscaler", "horizontalpodautoscalers.autoscaling", "autoscaler's controller"),
    ("kube-scheduler", "pods", "scheduler"),
    ("kubelet", "pods", "kubelet"),
    ("fake_node", "pods", "kubelet"),
];

/// Whether a component is meant by its name or by that of its group, as the API server takes them.
fn is_meant(component: &Component, what: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace('_', "-");
    let (name, what) = (plain(&component.name), plain(what));
    let group = component.figures.group.as_deref();
    what == "all" || group == Some(&*what) || name == what || what.strip_suffix('s') == Some(&*name)
}

/// The component whose step comes next, and the key of that.
fn next(components: &[Component], what: &str) -> Option<(String, String)> {
    let paused = components.iter().filter(|component| component.figures.paused && is_meant(component, what));
    let waiting = paused.filter_map(|component| Some((component, component.figures.next.as_ref()?)));
    let (component, next) = waiting.max_by_key(|(_, next)| next.waited_millis)?;
    Some((component.name.clone(), next.key.clone()))
}

/// What the component is about to do with the object of the key. What cannot be read or foreseen is not said: the step tells.
async fn plan(client: &Client, component: &str, key: &str) -> Vec<String> {
    let Some((_, kind, who)) = EXPLAINED.into_iter().find(|(name, ..)| *name == component) else { return Vec::new() };
    let Some((namespace, name)) = key.split_once('/') else { return Vec::new() };
    let next = explain::next(client, kind, namespace, name).await.unwrap_or_default();
    let of_component = next.into_iter().filter(|step| step.who.contains(who) && step.waits_for.is_none());
    of_component.map(|step| step.does).collect()
}

fn about_to(component: &str, key: &str, plan: &[String]) -> Vec<String> {
    let line = |(index, does): (usize, &String)| {
        if index == 0 {
            format!("{component} is about to reconcile {key}: it {does}")
        } else {
            format!("{:indent$}it {does}", "", indent = component.len() + key.len() + 25)
        }
    };
    plan.iter().enumerate().map(line).collect()
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

    #[test]
    fn what_has_waited_longest_is_next() {
        let component = |name: &str, group: &str, waited: Option<u64>| Component {
            name: name.to_owned(),
            figures: Figures {
                group: Some(group.to_owned()),
                paused: name != "job",
                next: waited.map(|waited_millis| Next { key: format!("default/{name}"), waited_millis }),
                ..Figures::default()
            },
        };
        let components = [
            component("deployment", "controllers", Some(5)),
            component("endpoint_slice", "controllers", Some(9)),
            component("kube-scheduler", "scheduler", Some(70)),
            component("replicaset", "controllers", None),
            component("job", "controllers", Some(100)),
        ];
        for (what, expected) in [
            ("all", Some("kube-scheduler")),
            ("controllers", Some("endpoint_slice")),
            ("Deployments", Some("deployment")),
            ("endpoint-slice", Some("endpoint_slice")),
            ("replicaset", None),
            ("job", None),
        ] {
            let next = next(&components, what);
            assert_eq!(next.as_ref().map(|(name, _)| name.as_str()), expected, "{what}");
        }
        assert_eq!(about_to("job", "default/a", &[]), [""; 0]);
        let plan = ["creates 2 pods".to_owned(), "deletes the pod b".to_owned()];
        assert_eq!(
            about_to("job", "default/a", &plan),
            [
                "job is about to reconcile default/a: it creates 2 pods",
                "                                     it deletes the pod b"
            ]
        );
    }

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
            let (component, plan) = ("deployment".to_owned(), Vec::new());
            text(&Answer { component, plan, under_way: false, reconciles, waiting }).join("\n")
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
