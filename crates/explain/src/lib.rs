//! What an object wants, what it has, who acts next, what that waits for and until when.
//!
//! Everything here is a pure function of an object, of what is [`Related`] to it, and of the time. Whoever asks reads both
//! from the API with the rights of whoever asks him, and says what could not be read. Numbers and names come from the
//! objects; what they do not tell is not said.
//!
//! | module | of what |
//! |---|---|
//! | [`mod@explanation`] | the answer, as sentences and as JSON |
//! | [`mod@related`] | what is read besides the object |
//! | `pod` | pods: containers, volumes, probes, gates, eviction |
//! | `deployment`, `replica_set`, `stateful_set`, `daemon_set`, `job`, `cron_job` | the next step of their controllers |
//! | `service`, `claim`, `autoscaler`, `namespace`, `node` | these |
//! | `common` | every object, custom resources too: conditions, owners, finalizers, events |
//! | [`access`] | who may do something, and by which binding and role |

pub mod access;
pub mod explanation;
pub mod related;

mod autoscaler;
mod claim;
mod common;
mod cron_job;
mod daemon_set;
mod deployment;
mod finalizers;
mod job;
mod meta;
mod namespace;
mod node;
mod pod;
mod replica_set;
mod service;
mod stateful_set;
#[cfg(test)]
mod tests;
mod words;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use explanation::{Explanation, Step};
pub use related::{Need, Owner, Related, Scope, needs};

/// Explains `object`, which is of a resource such as `deployments.apps` and is called `called` among people.
pub fn explain(resource: &str, called: &str, object: &Value, related: &Related, now: Timestamp) -> Explanation {
    let mut out = Explanation::new(called);
    let known = match resource {
        "pods" => with(object, |pod| pod::explain(&mut out, pod, related, now)),
        "deployments.apps" => with(object, |it| deployment::explain(&mut out, it, related, now)),
        "replicasets.apps" => with(object, |it| replica_set::explain(&mut out, it, related, now)),
        "statefulsets.apps" => with(object, |it| stateful_set::explain(&mut out, it, related, now)),
        "daemonsets.apps" => with(object, |it| daemon_set::explain(&mut out, it, related, now)),
        "jobs.batch" => with(object, |it| job::explain(&mut out, it, related, now)),
        "cronjobs.batch" => with(object, |it| cron_job::explain(&mut out, it, related, now)),
        "services" => with(object, |it| service::explain(&mut out, it, related, now)),
        "persistentvolumeclaims" => with(object, |it| claim::explain(&mut out, it, related, now)),
        "horizontalpodautoscalers.autoscaling" => with(object, |it| autoscaler::explain(&mut out, it, now)),
        "namespaces" => with(object, |it| namespace::explain(&mut out, it, related, now)),
        "nodes" => with(object, |it| node::explain(&mut out, it, related, now)),
        _ => false,
    };
    common::explain(&mut out, object, related, now, known);
    out
}

/// Whether `object` is one of the type, and then what is to be said of it.
fn with<T: DeserializeOwned>(object: &Value, say: impl FnOnce(&T)) -> bool {
    // A custom resource of the same name under another version need not have the form.
    match T::deserialize(object) {
        Ok(object) => {
            say(&object);
            true
        }
        Err(_) => false,
    }
}
