//! How single values of the command line are read.

use std::time::Duration;

/// A duration as Go's clients write it, `90s`, `5m` or `1h30m`, in whole seconds; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a duration in whole seconds, such as 90s or 5m".to_owned();
    // Rust takes a sign.
    if let Ok(seconds) = text.parse()
        && !text.starts_with('+')
    {
        return Ok(Duration::from_secs(seconds));
    }
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = match rest[end..].chars().next() {
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[end + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// The name in `NAME` or `kind/NAME`, as kubectl takes both; `kinds` are the resource's names.
fn name(text: &str, kinds: &[&str]) -> Result<String, String> {
    let name = match text.split_once('/') {
        Some((kind, name)) if kinds.contains(&kind) => name,
        Some((kind, _)) => return Err(format!("{kind} is another kind; expected NAME or {}/NAME", kinds[0])),
        None => text,
    };
    if name.is_empty() { Err(format!("expected NAME or {}/NAME", kinds[0])) } else { Ok(name.to_owned()) }
}

/// A pod's name.
pub(crate) fn pod(text: &str) -> Result<String, String> {
    name(text, &["pod", "pods", "po"])
}

/// A node's name.
pub(crate) fn node(text: &str) -> Result<String, String> {
    name(text, &["node", "nodes", "no"])
}

/// What `coracle service` is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Services {
    /// A table of all; a service of the name `list` is `service/list`.
    List,
    /// The one of this name.
    Named(String),
}

/// A service's name, or `list`.
pub(crate) fn services(text: &str) -> Result<Services, String> {
    match text {
        "list" => Ok(Services::List),
        _ => name(text, &["service", "services", "svc"]).map(Services::Named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let good = [("30", 30), ("0", 0), ("30s", 30), ("90s", 90), ("5m", 300), ("2h", 7200), ("1h30m5s", 5405)];
        for (text, seconds) in good {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "5x", "-5s", "+5", "1.5m", "5m3", "500ms", "99999999999999999999", "9999999999999999999h"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_may_have_their_kind_before_them() {
        assert_eq!(pod("a").as_deref(), Ok("a"));
        assert_eq!(pod("pod/a").as_deref(), Ok("a"));
        assert_eq!(node("nodes/a").as_deref(), Ok("a"));
        assert_eq!(node("pod/a"), Err("pod is another kind; expected NAME or node/NAME".to_owned()));
        assert!(pod("").is_err());
        assert!(pod("pod/").is_err());
        assert_eq!(services("list"), Ok(Services::List));
        assert_eq!(services("svc/list"), Ok(Services::Named("list".to_owned())));
        assert_eq!(services("web"), Ok(Services::Named("web".to_owned())));
    }
}
