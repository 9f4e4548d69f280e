//! The Service that gives the Pods of a set their names.
//!
//! Upstream says nothing when it is missing: the Pods run, and only whoever asks for one of them by name finds out. Here
//! it is an event on the set. Not at once: in a file with both, the set may come first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;

use crate::meta;

/// So long after the set its Service may come.
const GRACE: Duration = Duration::from_secs(5);

/// What there is to say about the Service of a set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Fine,
    /// It is too early: look again then.
    Later(Duration),
    /// This is wrong: a reason and a message.
    Wrong(&'static str, String),
}

/// The name of the set's Service, if it names one.
pub(super) fn name_of(set: &StatefulSet) -> Option<&str> {
    set.spec.as_ref()?.service_name.as_deref().filter(|name| !name.is_empty())
}

/// Looks at the Service of `set`, which is `service`.
pub(super) fn look(set: &StatefulSet, service: Option<&Service>, now: Timestamp) -> Verdict {
    let Some(name) = name_of(set).filter(|_| !meta::is_deleting(set)) else {
        return Verdict::Fine;
    };
    let spec = service.and_then(|service| service.spec.as_ref());
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        return Verdict::Fine;
    }
    let created = set.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    let age = now.duration_since(created).max(SignedDuration::ZERO).unsigned_abs();
    if let Some(wait) = GRACE.checked_sub(age).filter(|wait| !wait.is_zero()) {
        return Verdict::Later(wait);
    }
    let first = format!("{}-0.{name}.{}.svc", meta::name(set), meta::namespace(set));
    match service {
        None => Verdict::Wrong(
            "ServiceNotFound",
            format!("Service {name:?}, which spec.serviceName names, not found: names like {first} do not resolve"),
        ),
        Some(_) => Verdict::Wrong(
            "ServiceNotHeadless",
            format!("Service {name:?} is not headless (clusterIP: None): names like {first} do not resolve"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn a_missing_service_is_told_of_in_time() {
        let check = |service_name: &str, service: Value, seconds: i64, expected: &str| {
            let set: StatefulSet = from_value(json!({
                "metadata": { "name": "db", "namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "serviceName": service_name, "selector": {}, "template": {} },
            }))
            .expect("a set");
            let service: Option<Service> = from_value(service).expect("a service");
            let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
            let now = created + SignedDuration::from_secs(seconds);
            let verdict = match look(&set, service.as_ref(), now) {
                Verdict::Fine => String::new(),
                Verdict::Later(wait) => format!("in {} s", wait.as_secs()),
                Verdict::Wrong(reason, message) => format!("{reason}: {message}"),
            };
            assert_eq!(verdict, expected, "{service_name} {seconds}");
        };
        let headless = json!({ "spec": { "clusterIP": "None" } });
        let other = json!({ "spec": { "clusterIP": "10.0.0.1" } });
        check("", Value::Null, 60, "");
        check("db", headless, 60, "");
        check("db", Value::Null, 1, "in 4 s");
        check("db", Value::Null, -9, "in 5 s");
        let rest = "names like db-0.db.ns.svc do not resolve";
        let missing = "ServiceNotFound: Service \"db\", which spec.serviceName names, not found: ";
        check("db", Value::Null, 5, &format!("{missing}{rest}"));
        check("db", other, 5, &format!("ServiceNotHeadless: Service \"db\" is not headless (clusterIP: None): {rest}"));
    }
}
