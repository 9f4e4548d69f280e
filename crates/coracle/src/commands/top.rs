//! `coracle top`: what the components are at, from what they count anyway.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use cluster::Profile;
use http::Request;
use kube::Client;
use serde::Serialize;

use super::components::{self, Component};
use super::{ask, require_running};
use crate::cli::{Top, TopFormat};
use crate::output;

/// How long things are counted for figures that are printed once.
const ONCE: Duration = Duration::from_secs(1);
/// How often the figures are shown again.
const REFRESH: Duration = Duration::from_secs(2);
/// So many components are shown at most on a screen.
const ROWS: usize = 30;
/// Puts the cursor into the corner and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// All that is counted, at one moment.
struct Sample {
    at: Instant,
    components: Vec<Component>,
    metrics: String,
}

/// The figures between two moments.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// Those with most to do first.
    components: Vec<Row>,
    /// The watches that the API server serves.
    watches: f64,
    requests_in_flight: f64,
    requests_per_second: f64,
    revision: f64,
    objects: f64,
    commits_per_second: f64,
    resident_bytes: f64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    #[serde(flatten)]
    component: Component,
    reconciles_per_second: f64,
}

pub(super) fn run(profile: &Profile, wanted: &Top) -> Result<ExitCode> {
    require_running(profile)?;
    ask(profile, async |client| {
        let mut before = Sample::take(&client).await?;
        let live = wanted.output.is_none() && io::stdout().is_terminal();
        let mut pause = ONCE;
        loop {
            tokio::time::sleep(pause).await;
            let now = Sample::take(&client).await?;
            let figures = Figures::between(&before, &now);
            match wanted.output {
                Some(TopFormat::Json) => return output::json(&figures),
                _ if live => output::line(format!("{CLEAR}{}", figures.table(ROWS)))?,
                _ => return output::line(figures.table(usize::MAX)),
            }
            (before, pause) = (now, REFRESH);
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Sample {
    async fn take(client: &Client) -> Result<Self> {
        let metrics = client.request_text(Request::get("/metrics").body(Vec::new())?).await?;
        Ok(Self { at: Instant::now(), components: components::list(client).await?, metrics })
    }
}

impl Figures {
    fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001);
        let counted: BTreeMap<&str, u64> =
            before.components.iter().map(|component| (component.name.as_str(), component.figures.reconciles)).collect();
        let row = |component: &Component| {
            let earlier = counted.get(component.name.as_str()).copied().unwrap_or_default();
            let count = u32::try_from(component.figures.reconciles.saturating_sub(earlier)).unwrap_or(u32::MAX);
            Row { component: component.clone(), reconciles_per_second: f64::from(count) / seconds }
        };
        let mut components: Vec<Row> = now.components.iter().map(row).collect();
        components.sort_by(|a, b| {
            let (one, other) = (&a.component, &b.component);
            (other.figures.waiting.cmp(&one.figures.waiting))
                .then(b.reconciles_per_second.total_cmp(&a.reconciles_per_second))
                .then(other.figures.reconciles.cmp(&one.figures.reconciles))
                .then(one.name.cmp(&other.name))
        });
        let value = |name: &str| sum(&now.metrics, name);
        let rate = |name: &str| (value(name) - sum(&before.metrics, name)).max(0.0) / seconds;
        Self {
            components,
            watches: value("apiserver_longrunning_requests"),
            requests_in_flight: value("apiserver_current_inflight_requests"),
            requests_per_second: rate("apiserver_request_total"),
            revision: value("store_revision"),
            objects: value("apiserver_storage_objects"),
            commits_per_second: rate("store_commits_total"),
            resident_bytes: value("process_resident_memory_bytes"),
        }
    }

    /// For people: whatever has done something or has something to do, at most so many rows.
    fn table(&self, most: usize) -> String {
        let paused = components::paused(&self.components.iter().map(|row| row.component.clone()).collect::<Vec<_>>());
        let mut lines = vec![
            format!(
                "API server  {} watches, {:.0} requests/s, {} in flight",
                self.watches, self.requests_per_second, self.requests_in_flight
            ),
            format!(
                "Store       revision {}, {} objects, {:.0} commits/s",
                self.revision, self.objects, self.commits_per_second
            ),
            format!("Memory      {:.0} MiB", self.resident_bytes / f64::from(1 << 20)),
            format!("Paused      {}", if paused.is_empty() { "nothing".to_owned() } else { paused.join(", ") }),
            String::new(),
        ];
        let is_worth_it = |row: &&Row| {
            let figures = &row.component.figures;
            figures.reconciles > 0 || figures.waiting > 0 || figures.paused
        };
        let rows: Vec<&Row> = self.components.iter().filter(is_worth_it).collect();
        let width = rows.iter().map(|row| row.component.name.len()).max().unwrap_or_default().max(9);
        lines.push(format!(
            "{:<width$} {:>7} {:>7} {:>10} {:>6} {:>6} {:>8}  {:<6} NEXT",
            "COMPONENT", "WAITING", "RUNNING", "RECONCILES", "/S", "FAILED", "TOOK", "STATE"
        ));
        for row in rows.iter().take(most) {
            let Component { name, figures } = &row.component;
            let took = figures.latest_took_micros.map(Duration::from_micros).map(rounded).unwrap_or_default();
            let state = if figures.paused { "paused" } else { "" };
            let next = figures.next.as_ref().map(|next| next.key.as_str()).unwrap_or_default();
            let line = format!(
                "{name:<width$} {:>7} {:>7} {:>10} {:>6.1} {:>6} {took:>8}  {state:<6} {next}",
                figures.waiting, figures.running, figures.reconciles, row.reconciles_per_second, figures.failures
            );
            lines.push(line.trim_end().to_owned());
        }
        if rows.len() > most {
            lines.push(format!("and {} more; see: coracle top -o table", rows.len() - most));
        }
        lines.join("\n")
    }
}

/// A time with few digits.
fn rounded(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros}us"),
        micros @ 1000..1_000_000 => format!("{}ms", micros / 1000),
        _ => format!("{:.1}s", time.as_secs_f64()),
    }
}

/// The sum of a metric over all its labels, in the text that Prometheus reads; zero where it is not.
fn sum(metrics: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            // No label of these has a brace in its value.
            Some(labelled) => labelled.split_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    };
    // The sum of nothing would be -0.
    metrics.lines().filter_map(value).fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::components::{Figures as OfComponent, Next};

    #[test]
    fn metrics_are_added_up_over_their_labels() {
        let text = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3.5\na_total 7\nb 4 123\n# EOF\n";
        for (name, value) in [("a", 5.5), ("a_total", 7.0), ("b", 4.0), ("c", 0.0)] {
            assert!((sum(text, name) - value).abs() < f64::EPSILON, "{name}");
        }
    }

    #[test]
    fn the_busiest_come_first_and_the_idle_not_at_all() {
        let start = Instant::now();
        let sample = |seconds: u64, requests: u64, counts: [(u64, u64); 3]| {
            let components = ["endpoint_slice", "idle", "replicaset"].iter().zip(counts).map(|(name, counts)| {
                let (reconciles, waiting) = counts;
                let next = (waiting > 0).then(|| Next { key: "default/web".to_owned(), waited_millis: 1 });
                let figures = OfComponent {
                    reconciles,
                    waiting,
                    next,
                    paused: waiting > 0,
                    latest_took_micros: Some(2500),
                    ..OfComponent::default()
                };
                Component { name: (*name).to_owned(), figures }
            });
            Sample {
                at: start + Duration::from_secs(seconds),
                components: components.collect(),
                metrics: format!(
                    "apiserver_request_total{{verb=\"get\"}} {requests}\nstore_revision 42\napiserver_longrunning_requests 17\n"
                ),
            }
        };
        let figures =
            Figures::between(&sample(0, 10, [(4, 0), (0, 0), (1, 0)]), &sample(2, 30, [(9, 0), (0, 0), (1, 3)]));
        let expected = "API server  17 watches, 10 requests/s, 0 in flight
Store       revision 42, 0 objects, 0 commits/s
Memory      0 MiB
Paused      replicaset

COMPONENT      WAITING RUNNING RECONCILES     /S FAILED     TOOK  STATE  NEXT
replicaset           3       0          1    0.0      0      2ms  paused default/web
endpoint_slice       0       0          9    2.5      0      2ms";
        assert_eq!(figures.table(usize::MAX), expected);
        assert!(figures.table(1).ends_with("default/web\nand 1 more; see: coracle top -o table"));
        let json = serde_json::to_value(&figures).expect("JSON");
        assert_eq!(
            (&json["components"][0]["name"], &json["components"][0]["waiting"]),
            (&"replicaset".into(), &3.into())
        );
    }
}
