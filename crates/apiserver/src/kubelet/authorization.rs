//! Who may ask a kubelet for what: rights to subresources of its node (upstream: `pkg/kubelet/server/auth.go`, KEP-2862).

use http::Method;
use machinery::Verb;

use crate::authn::User;
use crate::authz::{Attributes, Authorizer, Decision, Target};
use crate::kubelet_routes;

/// Refuses what the user has no right to, in upstream's words.
///
/// Deviation: a connection into a pod that begins with a GET, as a WebSocket does, needs the right of one that begins with a
/// POST as well, as it does for pods in the API. Upstream lets whoever may read `nodes/proxy` run commands.
pub(super) fn authorize(
    authorizer: &dyn Authorizer,
    node: &str,
    user: &User,
    method: &Method,
    path: &str,
) -> Result<(), String> {
    let verb = verb(method);
    let subresources = subresources(path);
    let may = |verb: Verb<'_>, subresource: &str| {
        let target =
            Target::Resource { group: "", version: "v1", resource: "nodes", subresource, namespace: "", name: node };
        matches!(authorizer.authorize(&Attributes::new(user, verb, target)), Decision::Allow(_))
    };
    let refused = |verb: Verb<'_>| {
        let (user, subresources) = (&user.name, subresources.join(" "));
        format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n")
    };
    if !subresources.iter().any(|subresource| may(verb, subresource)) {
        return Err(refused(verb));
    }
    if verb == Verb::Get && kubelet_routes::connects(path) && !may(Verb::Create, "proxy") {
        return Err(refused(Verb::Create));
    }
    Ok(())
}

/// The verb of a method; the empty word, which only rights to all verbs have, where there is none.
fn verb(method: &Method) -> Verb<'static> {
    match *method {
        Method::GET => Verb::Get,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE => Verb::Delete,
        _ => Verb::Other(""),
    }
}

/// The subresources a right to one of which is enough.
fn subresources(path: &str) -> &'static [&'static str] {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if below("/pods") || below("/runningpods") {
        &["pods", "proxy"]
    } else if below("/healthz") {
        &["healthz", "proxy"]
    } else if below("/configz") {
        &["configz", "proxy"]
    } else if below("/statusz") {
        &["statusz", "proxy"]
    } else if below("/stats") {
        &["stats"]
    } else if below("/metrics") {
        &["metrics"]
    } else if below("/logs") {
        &["log"]
    } else if below("/checkpoint") {
        &["checkpoint"]
    } else {
        &["proxy"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_subresources() {
        for (path, expect) in [
            ("/pods", "pods proxy"),
            ("/runningpods/", "pods proxy"),
            ("/healthz/ping", "healthz proxy"),
            ("/configz", "configz proxy"),
            ("/stats/summary", "stats"),
            ("/metrics", "metrics"),
            ("/metrics/cadvisor", "metrics"),
            ("/metricsx", "proxy"),
            ("/logs/", "log"),
            ("/checkpoint/ns/p/c", "checkpoint"),
            // Upstream does not count it among the logs.
            ("/containerLogs/ns/p/c", "proxy"),
            ("/exec/ns/p/c", "proxy"),
            ("/", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), expect, "{path}");
        }
    }
}
