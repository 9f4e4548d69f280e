//! `/healthz`, `/livez` and `/readyz`: a line for each check with `?verbose`, single checks below (`/readyz/ping`).
//!
//! The checks are those of upstream's that scripts ask for by name. The store is part of this process, as the log is, and
//! always read from memory: who is answered at all finds it alive. It is ready only while it takes writes, though.

use http::StatusCode;
use store::Health as StoreHealth;

use crate::path::Health;
use crate::query::Query;

/// What the checks are about.
pub(crate) struct State {
    /// Whether the server is perhaps stopping.
    pub(crate) stopping: bool,
    pub(crate) store: StoreHealth,
    /// Whether the answer gives reasons. Upstream gives them to nobody; an administrator here has no other log at hand.
    pub(crate) with_reasons: bool,
}

/// The checks of an endpoint, and why they fail, if they do.
fn checks(endpoint: Health, state: &State) -> Vec<(&'static str, Option<String>)> {
    // A restart would mend nothing, and takes the reads away as well.
    let etcd = if endpoint == Health::Livez { None } else { store_fault(&state.store) };
    let mut checks = vec![("ping", None), ("log", None), ("etcd", etcd.clone())];
    // A server that is stopping is alive, and not ready.
    if endpoint == Health::Readyz {
        let shutdown = state.stopping.then(|| "process is shutting down".to_owned());
        checks.extend([("etcd-readiness", etcd), ("informer-sync", None), ("shutdown", shutdown)]);
    }
    checks
}

fn store_fault(health: &StoreHealth) -> Option<String> {
    match health {
        StoreHealth::Healthy => None,
        StoreHealth::DiskFull(why) => Some(format!("the disk is full, only deletes are accepted: {why}")),
        StoreHealth::ReadOnly(why) => Some(format!("the store cannot write: {why}")),
    }
}

/// The paths of all checks.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    [Health::Healthz, Health::Livez, Health::Readyz].into_iter().flat_map(|endpoint| {
        let state = State { stopping: false, store: StoreHealth::Healthy, with_reasons: false };
        let below = checks(endpoint, &state).into_iter().map(move |(check, _)| format!("/{}/{check}", endpoint.name()));
        std::iter::once(format!("/{}", endpoint.name())).chain(below)
    })
}

/// The answer: a status and a text. `None` when there is no such check.
pub(crate) fn answer(endpoint: Health, check: &str, query: &Query<'_>, state: &State) -> Option<(StatusCode, String)> {
    let checks = checks(endpoint, state);
    let shown = |why: String| if state.with_reasons { why } else { "reason withheld".to_owned() };
    if !check.is_empty() {
        let (name, fault) = checks.into_iter().find(|(name, _)| *name == check)?;
        return Some(match fault {
            None => (StatusCode::OK, "ok".to_owned()),
            Some(why) => {
                let text = format!("internal server error: {name} failed: {}\n", shown(why));
                (StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        });
    }
    let mut excluded: Vec<&str> = query.all("exclude").collect();
    let mut text = String::new();
    let mut healthy = true;
    for (name, fault) in checks {
        let line = match (excluded.contains(&name), fault) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, None) => format!("[+]{name} ok\n"),
            (false, Some(why)) => {
                healthy = false;
                format!("[-]{name} failed: {}\n", shown(why))
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
            (
                Health::Readyz,
                "shutdown",
                "",
                true,
                Some((500, "internal server error: shutdown failed: reason withheld\n")),
            ),
            (Health::Readyz, "", "exclude=shutdown", true, Some((200, "ok"))),
        ] {
            let state = State { stopping, store: StoreHealth::Healthy, with_reasons: false };
            let answer = answer(endpoint, check, &Query::parse(Some(query)), &state);
            let answer = answer.as_ref().map(|(status, text)| (status.as_u16(), text.as_str()));
            assert_eq!(answer, expect, "{endpoint:?} {check} {query}");
        }
    }

    #[test]
    fn a_store_that_refuses_writes_is_alive_and_not_ready() {
        let full = || StoreHealth::DiskFull("1 MiB is free".into());
        let read_only = || StoreHealth::ReadOnly("Input/output error".into());
        for (endpoint, check, store, with_reasons, expect) in [
            (Health::Livez, "", full(), true, (200, "ok")),
            (Health::Livez, "etcd", read_only(), true, (200, "ok")),
            (Health::Readyz, "ping", full(), true, (200, "ok")),
            (
                Health::Readyz,
                "",
                full(),
                false,
                (
                    500,
                    "[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n[-]etcd-readiness failed: reason \
                     withheld\n[+]informer-sync ok\n[+]shutdown ok\nreadyz check failed\n",
                ),
            ),
            (
                Health::Readyz,
                "etcd-readiness",
                full(),
                true,
                (
                    500,
                    "internal server error: etcd-readiness failed: the disk is full, only deletes are accepted: 1 MiB is \
                     free\n",
                ),
            ),
            (
                Health::Healthz,
                "etcd",
                read_only(),
                true,
                (500, "internal server error: etcd failed: the store cannot write: Input/output error\n"),
            ),
        ] {
            let state = State { stopping: false, store, with_reasons };
            let (status, text) = answer(endpoint, check, &Query::parse(None), &state).unwrap();
            assert_eq!((status.as_u16(), text.as_str()), expect, "{endpoint:?} {check}");
        }
    }
}
