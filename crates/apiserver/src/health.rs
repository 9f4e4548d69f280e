//! `/healthz`, `/livez` and `/readyz`: a line for each check with `?verbose`, single checks below (`/readyz/ping`).
//!
//! The checks are those of upstream's that scripts ask for by name. The store is part of this process and open before
//! the server listens, and so is the log: who is answered at all finds them well.

use http::StatusCode;

use crate::path::Health;
use crate::query::Query;

/// The checks of an endpoint, and how they end when the server is perhaps `stopping`.
fn checks(endpoint: Health, stopping: bool) -> Vec<(&'static str, bool)> {
    let mut checks = vec![("ping", true), ("log", true), ("etcd", true)];
    // A server that is stopping is alive, and not ready.
    if endpoint == Health::Readyz {
        checks.extend([("etcd-readiness", true), ("informer-sync", true), ("shutdown", !stopping)]);
    }
    checks
}

/// The paths of all checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    [Health::Healthz, Health::Livez, Health::Readyz].into_iter().flat_map(|endpoint| {
        let below = checks(endpoint, false).into_iter().map(move |(check, _)| format!("/{}/{check}", endpoint.name()));
        std::iter::once(format!("/{}", endpoint.name())).chain(below)
    })
}

/// The answer of a server which is perhaps `stopping`: a status and a text. `None` when there is no such check.
pub(crate) fn answer(endpoint: Health, check: &str, query: &Query<'_>, stopping: bool) -> Option<(StatusCode, String)> {
    let checks = checks(endpoint, stopping);
    if !check.is_empty() {
        let (name, good) = checks.into_iter().find(|(name, _)| *name == check)?;
        return Some(if good {
            (StatusCode::OK, "ok".to_owned())
        } else {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed\n"))
        });
    }
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut healthy = true;
    for (name, good) in checks {
        let line = match (excluded.contains(&name), good) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, true) => format!("[+]{name} ok\n"),
            (false, false) => {
                healthy = false;
                format!("[-]{name} failed: reason withheld\n")
            }
        };
        text.push_str(&line);
        excluded.retain(|excluded| *excluded != name);
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        excluded.dedup();
        let unknown: Vec<String> = excluded.iter().map(|name| format!("\"{name}\"")).collect();
        let warning = "warn: some health checks cannot be excluded: no matches for";
        text.push_str(&format!("{warning} {}\n", unknown.join(",")));
    }
    let name = endpoint.name();
    Some(match (healthy, query.get("verbose").is_some()) {
        (true, false) => (StatusCode::OK, "ok".to_owned()),
        (true, true) => (StatusCode::OK, format!("{text}{name} check passed\n")),
        (false, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{name} check failed\n")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (endpoint, check, query, stopping, expect) in [
            (Health::Healthz, "", "", false, Some((200, "ok"))),
            (Health::Readyz, "ping", "", false, Some((200, "ok"))),
            (Health::Readyz, "nonsense", "", false, None),
            (Health::Livez, "shutdown", "", false, None),
            (
                Health::Livez,
                "",
                "verbose",
                false,
                Some((200, "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n")),
            ),
            (
                Health::Livez,
                "",
                "verbose&exclude=etcd&exclude=b&exclude=a",
                false,
                Some((
                    200,
                    "[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no \
                     matches for \"a\",\"b\"\nlivez check passed\n",
                )),
            ),
            (Health::Livez, "", "", true, Some((200, "ok"))),
            (
                Health::Readyz,
                "",
                "",
                true,
                Some((
                    500,
                    "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]etcd-readiness ok\n[+]informer-sync ok\n[-]shutdown failed: \
                     reason withheld\nreadyz check failed\n",
                )),
            ),
            (Health::Readyz, "shutdown", "", true, Some((500, "internal server error: shutdown failed\n"))),
            (Health::Readyz, "", "exclude=shutdown", true, Some((200, "ok"))),
        ] {
            let answer = answer(endpoint, check, &Query::parse(Some(query)), stopping);
            let answer = answer.as_ref().map(|(status, text)| (status.as_u16(), text.as_str()));
            assert_eq!(answer, expect, "{endpoint:?} {check} {query}");
        }
    }
}
