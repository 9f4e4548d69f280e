//! Which lines of the log are wanted.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::cli;

/// What the targets of coracle's own crates begin with.
const OWN: &str = "coracle_";

/// Says of each line in turn whether it is wanted. What has no time of its own, as the lines of a backtrace, goes with the line
/// before.
#[derive(Debug)]
pub(super) struct Filter {
    since: Option<Timestamp>,
    problems: bool,
    component: Option<String>,
    was_wanted: bool,
    /// The components of all lines that were seen, for whoever asks for one that is not there.
    seen: BTreeSet<String>,
}

impl Filter {
    pub(super) fn new(logs: &cli::Logs, now: Timestamp) -> Self {
        Self {
            since: logs.since.map(|since| now.checked_sub(since).unwrap_or(Timestamp::MIN)),
            problems: logs.problems,
            component: logs.component.as_deref().map(plain),
            was_wanted: logs.since.is_none() && !logs.problems && logs.component.is_none(),
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn wants(&mut self, line: &str) -> bool {
        let Some(line) = Line::parse(line) else { return self.was_wanted };
        let mut components = line.components();
        let is_meant = match &self.component {
            None => true,
            Some(component) => {
                let is_meant = components.any(|one| one == *component);
                self.seen.extend(line.components());
                is_meant
            }
        };
        let in_time = self.since.is_none_or(|since| line.time >= since);
        self.was_wanted = is_meant && in_time && (!self.problems || line.is_problem);
        self.was_wanted
    }

    /// The components of the lines that were seen, if one was asked for that none of them is of.
    pub(super) fn unknown(&self) -> Option<String> {
        let component = self.component.as_ref().filter(|component| !self.seen.contains(*component))?;
        let seen: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        Some(format!("the log has no line of {component}; it has some of: {}", seen.join(", ")))
    }
}

/// The beginning of what was logged: `TIME LEVEL SPAN{FIELDS}: TARGET: TEXT`.
struct Line<'a> {
    time: Timestamp,
    is_problem: bool,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let time = time.parse().ok()?;
        let (level, rest) = rest.trim_start().split_once(' ')?;
        Some(Self { time, is_problem: ["WARN", "ERROR"].contains(&level), rest })
    }

    /// Who it is of: the controllers of its spans, and the crate.
    fn components(&self) -> impl Iterator<Item = String> {
        let spans = self.rest.split("controller=\"").skip(1).filter_map(|rest| rest.split_once('"'));
        let spans = spans.map(|(name, _)| plain(name));
        let crates = self.rest.split(": ").find_map(|part| {
            let target = part.split(' ').next_back()?.strip_prefix(OWN).or_else(|| part.strip_prefix("coracle::"))?;
            Some(plain(target.split("::").next()?))
        });
        spans.chain(crates)
    }
}

/// `scheduler` of `kube-scheduler`, `endpoint-slice` of `endpoint_slice`.
fn plain(name: &str) -> String {
    let name = name.to_lowercase().replace('_', "-");
    name.strip_prefix("kube-").map(str::to_owned).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LOG: &str = "\
2026-11-28T17:40:19.470942Z  INFO coracle::daemon: Node dev is Ready
2026-11-28T17:40:20.595856Z  INFO reconcile{controller=\"kube-scheduler\" key=\"default/db-0\"}: coracle_scheduler::service::attempt: 0/2 nodes are available pod=\"default/db-0\"
2026-11-28T17:41:20.595856Z  WARN reconcile{controller=\"endpoint_slice\" key=\"a\"}: coracle_controllers::endpoints: failed
a second line
2026-11-28T17:42:20.595856Z ERROR coracle_docker::sandbox: gone";

    /// The seconds after 17:40 of the lines that are wanted; `+` for one without a time.
    fn wanted(change: impl Fn(&mut cli::Logs)) -> (String, Filter) {
        let mut logs = cli::Logs { follow: false, tail: None, since: None, problems: false, component: None };
        change(&mut logs);
        let now = "2026-11-28T17:43:20Z".parse().expect("a time");
        let mut filter = Filter::new(&logs, now);
        let lines = LOG.lines().filter(|line| filter.wants(line));
        let marks = lines.map(|line| line.get(14..19).filter(|_| line.starts_with("20")).unwrap_or("+"));
        (marks.collect::<Vec<_>>().join(" "), filter)
    }

    #[test]
    fn lines_are_those_that_were_asked_for() {
        let check = |change: &dyn Fn(&mut cli::Logs), expected: &str| assert_eq!(wanted(change).0, expected);
        check(&|_| {}, "40:19 40:20 41:20 + 42:20");
        check(&|logs| logs.problems = true, "41:20 + 42:20");
        check(&|logs| logs.since = Some(Duration::from_secs(150)), "41:20 + 42:20");
        check(&|logs| logs.since = Some(Duration::from_secs(90)), "42:20");
        for scheduler in ["scheduler", "kube-scheduler", "Kube_Scheduler"] {
            check(&|logs| logs.component = Some(scheduler.to_owned()), "40:20");
        }
        check(&|logs| logs.component = Some("endpoint-slice".to_owned()), "41:20 +");
        check(&|logs| logs.component = Some("controllers".to_owned()), "41:20 +");
        check(&|logs| logs.component = Some("docker".to_owned()), "42:20");
        check(&|logs| logs.component = Some("daemon".to_owned()), "40:19");
        check(&|logs| (logs.component, logs.problems) = (Some("scheduler".to_owned()), true), "");
    }

    #[test]
    fn a_component_that_is_not_there_is_told() {
        let (_, filter) = wanted(|logs| logs.component = Some("schedular".to_owned()));
        let told = filter.unknown().expect("it is unknown");
        assert_eq!(
            told,
            "the log has no line of schedular; it has some of: controllers, daemon, docker, endpoint-slice, scheduler"
        );
        assert_eq!(wanted(|logs| logs.component = Some("docker".to_owned())).1.unknown(), None);
        assert_eq!(wanted(|logs| logs.problems = true).1.unknown(), None);
    }
}
