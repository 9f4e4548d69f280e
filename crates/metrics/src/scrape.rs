//! What pods say of themselves: those annotated for it are scraped when somebody asks for a metric of theirs.
//!
//! | annotation | meaning | default |
//! |---|---|---|
//! | `prometheus.io/scrape` | `"true"`: scrape this pod | not |
//! | `prometheus.io/port` | where | the first port a container declares |
//! | `prometheus.io/path` | under which path | `/metrics` |
//! | `prometheus.io/scheme` | `http` or `https` | `http` |
//!
//! Pods are reached through the API server's proxy, so that this works from wherever the API does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use informer::{Informer, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::client::Body;
use machinery::phase::PodPhase;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::collector::{FIRST_WINDOW, FRESH, STALE};
use crate::prometheus::{Exposition, Kind, Labels};

/// Name of the index of the pods that are scraped.
const SCRAPED: &str = "metrics/scraped";
/// Pods are not scraped again before they are no longer [`FRESH`], unless there are other pods to scrape now: then not before
/// this time.
const SOON: Duration = Duration::from_secs(1);
/// A pod that does not answer in this time is left out.
const POD_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest text that is read, in bytes.
const LONGEST: usize = 4 << 20;
/// So many pods are scraped at once.
const CONCURRENT: usize = 32;

/// One series: a metric of one pod under one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    /// Name of the metric.
    pub(crate) name: String,
    /// Its labels; those of the place where it was scraped (`namespace`, `pod`, `node`, `instance`) go before its own, the
    /// pod's labels after them.
    pub(crate) labels: Labels,
    /// What the metric is.
    pub(crate) kind: Kind,
    /// Its value.
    pub(crate) value: f64,
    /// When it was scraped, in milliseconds since the epoch.
    pub(crate) time: i64,
    /// Its growth per second since the scrape before, and how many seconds that was; a counter that was reset grew from 0.
    pub(crate) rate: Option<(f64, f64)>,
}

/// Scrapes.
pub(crate) struct Scraper {
    client: Client,
    pods: Informer<Pod>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: HashMap<Identity, (f64, i64)>,
    series: Arc<Vec<Series>>,
    scraped: Option<Instant>,
    /// What was scraped.
    targets: BTreeSet<Target>,
}

/// What makes a series the same from scrape to scrape.
type Identity = (String, Labels);

impl Scraper {
    pub(crate) fn new(client: Client, pods: Informer<Pod>) -> Self {
        pods.index(SCRAPED, |pod| if is_scraped(pod) { vec![String::new()] } else { Vec::new() });
        Self { client, pods, state: Mutex::default() }
    }

    /// All series, as fresh as they need be. Who asks meanwhile waits for the same ones.
    pub(crate) async fn series(&self) -> Arc<Vec<Series>> {
        let mut state = self.state.lock().await;
        let age = state.scraped.map(|scraped| scraped.elapsed());
        self.pods.synced().await;
        let targets = self.targets();
        let fresh = if targets == state.targets { FRESH } else { SOON };
        if age.is_some_and(|age| age < fresh) {
            return Arc::clone(&state.series);
        }
        let stale = age.is_none_or(|age| age >= STALE);
        if stale {
            state.last.clear();
        }
        state.targets = targets;
        self.scrape(&mut state).await;
        if stale && state.series.iter().any(|series| series.kind == Kind::Counter) {
            tokio::time::sleep(FIRST_WINDOW).await;
            self.scrape(&mut state).await;
        }
        state.scraped = Some(Instant::now());
        Arc::clone(&state.series)
    }

    fn targets(&self) -> BTreeSet<Target> {
        self.pods.by_index(SCRAPED, "").iter().filter_map(|pod| Target::of(pod)).collect()
    }

    async fn scrape(&self, state: &mut State) {
        let answers = stream::iter(state.targets.clone()).map(|target| async move {
            let answer = tokio::time::timeout(POD_TIMEOUT, self.ask(&target)).await;
            (target, answer)
        });
        let mut series = Vec::new();
        let mut answers = std::pin::pin!(answers.buffer_unordered(CONCURRENT));
        while let Some((target, answer)) = answers.next().await {
            let now = Timestamp::now().as_millisecond();
            match answer {
                Ok(Ok(text)) => target.add(&text, now, &state.last, &mut series),
                Ok(Err(error)) => tracing::debug!(pod = %target.key, error, "a pod cannot be scraped"),
                Err(_) => tracing::debug!(pod = %target.key, "a pod does not answer its scrape in time"),
            }
        }
        state.last = series
            .iter()
            .map(|series| ((series.name.clone(), series.labels.clone()), (series.value, series.time)))
            .collect();
        state.series = Arc::new(series);
    }

    async fn ask(&self, target: &Target) -> Result<String, String> {
        let request = http::Request::get(&target.url).body(Body::empty()).map_err(|error| error.to_string())?;
        let response = self.client.send(request).await.map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(&format!("prometheus.io/{name}")).map(String::as_str)
}

fn is_scraped(pod: &Pod) -> bool {
    annotation(pod, "scrape") == Some("true")
        && PodPhase::of(pod) == Some(PodPhase::Running)
        && pod.metadata.deletion_timestamp.is_none()
}

/// Where a pod is scraped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    key: ObjectKey,
    url: String,
    labels: Labels,
    /// The pod's own, under names that Prometheus can have, for what is not told already: as its usual job for pods does.
    pod_labels: Labels,
}

impl Target {
    fn of(pod: &Pod) -> Option<Self> {
        let key = ObjectKey::of(pod);
        let spec = pod.spec.as_ref()?;
        let declared = || spec.containers.iter().flat_map(|container| container.ports.iter().flatten()).next();
        let port: u16 = match annotation(pod, "port") {
            Some(port) => port.parse().ok()?,
            None => u16::try_from(declared()?.container_port).ok()?,
        };
        let scheme = match annotation(pod, "scheme") {
            Some("https") => "https",
            _ => "http",
        };
        let path = annotation(pod, "path").unwrap_or("/metrics").trim_start_matches('/');
        let (namespace, name) = (&key.namespace, &key.name);
        let url = format!("/api/v1/namespaces/{namespace}/pods/{scheme}:{name}:{port}/proxy/{path}");
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        let labels = [
            ("namespace", namespace.clone()),
            ("pod", name.clone()),
            ("node", spec.node_name.clone().unwrap_or_default()),
            ("instance", format!("{ip}:{port}")),
        ];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let own = pod.metadata.labels.iter().flatten();
        let pod_labels = own.map(|(name, value)| (label_name(name), value.clone())).collect();
        Some(Self { key, url, labels, pod_labels })
    }

    fn add(&self, text: &str, now: i64, last: &HashMap<Identity, (f64, i64)>, series: &mut Vec<Series>) {
        let exposition = Exposition::parse(text);
        if exposition.truncated {
            tracing::warn!(pod = %self.key, "a pod has more metrics than are read");
        }
        for sample in exposition.samples.iter().filter(|sample| sample.value.is_finite()) {
            let mut labels = sample.labels.clone();
            for (name, value) in &self.labels {
                // As Prometheus does with a label that the pod has, too.
                if let Some(own) = labels.insert(name.clone(), value.clone()) {
                    labels.insert(format!("exported_{name}"), own);
                }
            }
            for (name, value) in &self.pod_labels {
                labels.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let identity = (sample.name.clone(), labels);
            let rate = last.get(&identity).and_then(|(before, then)| rate(*before, sample.value, now - then));
            let (name, labels) = identity;
            let kind = exposition.kind(&name);
            series.push(Series { name, labels, kind, value: sample.value, time: now, rate });
        }
    }
}

/// `app.kubernetes.io/name` → `app_kubernetes_io_name`.
fn label_name(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "_")
}

fn rate(before: f64, after: f64, milliseconds: i64) -> Option<(f64, f64)> {
    if milliseconds <= 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
    let seconds = milliseconds as f64 / 1000.0;
    let growth = if after >= before { after - before } else { after };
    Some((growth / seconds, seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets() {
        let check = |annotations: serde_json::Value, expected: Option<&str>| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": { "name": "p", "namespace": "n", "annotations": annotations },
                "spec": { "containers": [{ "name": "c", "ports": [{ "containerPort": 8080 }] }] },
                "status": { "phase": "Running", "podIP": "10.0.0.1" },
            }))
            .unwrap();
            let target = Some(&pod).filter(|pod| is_scraped(pod)).and_then(Target::of);
            assert_eq!(target.as_ref().map(|target| target.url.as_str()), expected, "{annotations}");
        };
        check(json!({}), None);
        check(json!({ "prometheus.io/scrape": "false" }), None);
        check(json!({ "prometheus.io/scrape": "true" }), Some("/api/v1/namespaces/n/pods/http:p:8080/proxy/metrics"));
        check(
            json!({
                "prometheus.io/scrape": "true",
                "prometheus.io/port": "9090",
                "prometheus.io/path": "/stats?all",
                "prometheus.io/scheme": "https",
            }),
            Some("/api/v1/namespaces/n/pods/https:p:9090/proxy/stats?all"),
        );
        check(json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "x" }), None);
    }

    #[test]
    fn labels_and_rates() {
        let labels = Labels::from([("pod".to_owned(), "p".to_owned())]);
        let target = Target {
            key: ObjectKey::new("n", "p"),
            url: String::new(),
            labels,
            pod_labels: [("app", "web"), ("a", "9")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        let mut first = Vec::new();
        target.add("r_total{a=\"1\"} 10\nq{pod=\"mine\"} 3\nnan NaN\n", 1_000, &HashMap::new(), &mut first);
        assert_eq!(first.len(), 2);
        let named = ["app", "a"].map(|name| first[0].labels[name].as_str());
        assert_eq!(named, ["web", "1"], "what it says itself goes before the pod's labels");
        assert_eq!((first[0].kind, first[0].rate), (Kind::Counter, None));
        assert_eq!(first[1].labels["exported_pod"], "mine");
        let last = HashMap::from([(("r_total".to_owned(), first[0].labels.clone()), (10.0, 1_000))]);
        let mut second = Vec::new();
        target.add("r_total{a=\"1\"} 20\n", 3_000, &last, &mut second);
        assert_eq!(second[0].rate, Some((5.0, 2.0)));
        assert_eq!(rate(10.0, 4.0, 2_000), Some((2.0, 2.0)), "it was reset");
        assert_eq!(rate(1.0, 2.0, 0), None);
    }
}
