//! Commands that look into the past.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use cluster::History;
use jiff::Timestamp;

use super::{Format, duration};
use crate::complete;

/// Commands about the past of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Past {
    /// Run a command that sees the cluster as it was: coracle at -5m -- kubectl get pods -A
    At(At),
    /// Show the versions of an object that are remembered: when, by whom, and what changed
    History(HistoryOf),
    /// Show what changed between two moments, of all objects or of one
    Diff(Diff),
}

/// A moment in the past of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After the newest write.
    Now,
    /// So long ago.
    Ago(Duration),
    /// At this time.
    Time(Timestamp),
    /// After the write of this revision.
    Revision(u64),
}

/// `coracle at`.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// A revision, a time ago such as -5m, or a time such as 2026-01-02T10:04:00Z
    #[arg(value_parser = moment, value_name = "WHEN")]
    pub(crate) when: Moment,
    /// The command; its kubeconfig is one of the past. Without: print the revision
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `coracle history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryOf {
    /// The object
    #[arg(value_name = "KIND/NAME", add = ArgValueCompleter::new(complete::objects))]
    pub(crate) object: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The output format; json has all changes
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A revision, a time ago such as -5m, or a time such as 2026-01-02T10:04:00Z
    #[arg(value_parser = moment, value_name = "WHEN")]
    pub(crate) from: Moment,
    /// A later one [default: now], and the object that is looked at alone
    #[arg(num_args = 0..=2, value_name = "WHEN|KIND/NAME", value_parser = until)]
    until: Vec<Until>,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// What may stand behind the first moment of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Until {
    Moment(Moment),
    Object(String),
}

fn until(text: &str) -> Result<Until, String> {
    if text.contains('/') { Ok(Until::Object(text.to_owned())) } else { moment(text).map(Until::Moment) }
}

impl Diff {
    /// The later moment.
    pub(crate) fn to(&self) -> Moment {
        let mut moments = self.until.iter().filter_map(|until| match until {
            Until::Moment(moment) => Some(*moment),
            Until::Object(_) => None,
        });
        moments.next_back().unwrap_or(Moment::Now)
    }

    /// The object that is looked at alone.
    pub(crate) fn object(&self) -> Option<&str> {
        self.until.iter().find_map(|until| match until {
            Until::Object(object) => Some(object.as_str()),
            Until::Moment(_) => None,
        })
    }
}

/// A time ago is typed with a sign, which would be an option: `-5m` becomes `5m`, and `-90` becomes `90s`.
pub(super) fn without_signs(typed: Vec<OsString>) -> Vec<OsString> {
    let command = typed.iter().position(|word| word == "at" || word == "diff");
    let end = typed.iter().position(|word| word == "--").unwrap_or(typed.len());
    let ago = |word: &OsString| {
        let text = word.to_str()?.strip_prefix('-')?;
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_ago = text.starts_with(|letter: char| letter.is_ascii_digit()) && duration(text).is_ok();
        is_ago.then(|| OsString::from(if is_number { format!("{text}s") } else { text.to_owned() }))
    };
    let words = typed.into_iter().enumerate();
    let word = |(index, word): (usize, OsString)| match command {
        Some(command) if index > command && index < end => ago(&word).unwrap_or(word),
        _ => word,
    };
    words.map(word).collect()
}

/// A moment as it is typed.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if text == "now" {
        return Ok(Moment::Now);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().map(Moment::Revision).map_err(|_| format!("{text} is no revision"));
    }
    if let Ok(ago) = duration(text) {
        return Ok(Moment::Ago(ago));
    }
    let expected = "expected a revision, a time ago such as -5m, or a time such as 2026-01-02T10:04:00Z";
    text.parse().map(Moment::Time).map_err(|_| expected.to_owned())
}

/// How much is remembered, as it is typed.
pub(crate) fn history(text: &str) -> Result<History, String> {
    if let Some(bytes) = History::of_bytes(text) {
        return Ok(bytes);
    }
    match duration(text) {
        Ok(age) if age >= Duration::from_secs(60) => Ok(History::Age(age)),
        _ => {
            Err("expected a time of a minute and more, such as 1h, or a size of 1MiB and more, such as 1GiB".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, expected) in [
            ("now", Moment::Now),
            ("5m", Moment::Ago(Duration::from_secs(300))),
            ("90s", Moment::Ago(Duration::from_secs(90))),
            ("123", Moment::Revision(123)),
            ("2026-01-02T10:04:00Z", Moment::Time("2026-01-02T10:04:00Z".parse().expect("a time"))),
        ] {
            assert_eq!(moment(text), Ok(expected), "{text}");
        }
        for bad in ["", "-", "10:04", "99999999999999999999999", "+5", "yesterday"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_ago_have_a_sign() {
        let check = |line: &str, expected: &str| {
            let words = without_signs(line.split(' ').map(OsString::from).collect());
            assert_eq!(words.join(OsString::from(" ").as_os_str()), OsString::from(expected));
        };
        check("coracle at -5m -- kubectl logs --since -5m", "coracle at 5m -- kubectl logs --since -5m");
        check("coracle -p x diff -90 -1h30m -n a", "coracle -p x diff 90s 1h30m -n a");
        check("coracle start --pod-max-pids -1", "coracle start --pod-max-pids -1");
        check("coracle -n diff -o json", "coracle -n diff -o json");
    }

    #[test]
    fn differences_are_of_all_or_of_one() {
        use clap::Parser;

        use crate::cli::{Arguments, Command};

        let check = |line: &str, to: Moment, object: Option<&str>| {
            let words =
                without_signs(["coracle", "diff"].into_iter().chain(line.split(' ')).map(OsString::from).collect());
            let parsed = Arguments::try_parse_from(words);
            let Ok(Arguments { command: Command::Past(Past::Diff(diff)), .. }) = parsed else {
                panic!("{line}: {parsed:?}")
            };
            assert_eq!((diff.to(), diff.object()), (to, object), "{line}");
        };
        check("-5m", Moment::Now, None);
        check("12 15", Moment::Revision(15), None);
        check("-5m deployment/web", Moment::Now, Some("deployment/web"));
        check("-5m -1m deployment/web -n a", Moment::Ago(Duration::from_secs(60)), Some("deployment/web"));
    }

    #[test]
    fn bounds_of_the_history() {
        assert_eq!(history("1h"), Ok(History::Age(Duration::from_secs(3600))));
        assert_eq!(history("1GiB"), Ok(History::Bytes(1 << 30)));
        for bad in ["", "5s", "1", "1KiB", "x"] {
            assert!(history(bad).is_err(), "{bad}");
        }
    }
}
