//! The text format of Prometheus: tolerant of what it does not know, and bounded in what it takes.
//!
//! Read are samples with their labels and times, and the types of families. A line that makes no sense is skipped, as
//! one bad line of an application is no reason to be blind to all others.

use std::collections::{BTreeMap, HashMap};

/// Labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// No more samples than this are taken from one text.
const MOST_SAMPLES: usize = 10_000;
/// No more labels than this of one sample.
const MOST_LABELS: usize = 64;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Name of the metric.
    pub(crate) name: String,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Its value.
    pub(crate) value: f64,
    /// When it was measured, in milliseconds since the epoch, where the line says so.
    pub(crate) time: Option<i64>,
}

/// What a family is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A histogram, a summary, or what nobody said anything about.
    Other,
}

/// A text, read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Exposition {
    /// In the order of the text.
    pub(crate) samples: Vec<Sample>,
    /// By name of the family.
    pub(crate) kinds: HashMap<String, Kind>,
    /// Whether there was more than is taken.
    pub(crate) truncated: bool,
}

impl Exposition {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_whitespace();
                if words.next() == Some("TYPE")
                    && let (Some(name), Some(kind)) = (words.next(), words.next())
                {
                    found.kinds.insert(name.to_owned(), kind_of(kind));
                }
                continue;
            }
            if found.samples.len() >= MOST_SAMPLES {
                found.truncated = true;
                break;
            }
            found.samples.extend(sample(line));
        }
        found
    }

    /// What a metric of that name is. OpenMetrics types a counter without its `_total`.
    pub(crate) fn kind(&self, name: &str) -> Kind {
        let known = self.kinds.get(name).or_else(|| self.kinds.get(name.strip_suffix("_total")?));
        known.copied().unwrap_or(if name.ends_with("_total") { Kind::Counter } else { Kind::Other })
    }
}

fn kind_of(word: &str) -> Kind {
    match word {
        "counter" => Kind::Counter,
        "gauge" | "untyped" | "unknown" => Kind::Gauge,
        _ => Kind::Other,
    }
}

/// `name{label="value",...} value [time]`
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return None;
    }
    let mut labels = Labels::new();
    if let Some(inside) = rest.trim_start().strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let mut words = rest.split_whitespace();
    let value = number(words.next()?)?;
    // An exemplar of OpenMetrics begins with `#`.
    let time = words.next().filter(|word| *word != "#");
    let time = match time {
        None => None,
        Some(word) => Some(word.parse().ok()?),
    };
    Some(Sample { name: name.to_owned(), labels, value, time })
}

/// Reads up to the closing brace and answers what follows it.
fn read_labels<'a>(text: &'a str, labels: &mut Labels) -> Option<&'a str> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some(after);
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim();
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        if !is_name(name) || labels.len() >= MOST_LABELS {
            return None;
        }
        labels.insert(name.to_owned(), value);
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
}

/// A string up to its closing quote, and what follows.
pub(crate) fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// Whether it can be the name of a metric or a label.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.chars().next().is_some_and(|first| fits(first) && !first.is_ascii_digit()) && text.chars().all(fits)
}

fn number(word: &str) -> Option<f64> {
    match word {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        word => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, labels, value and time.
    type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64, Option<i64>);

    fn check(line: &str, expected: Option<Expected<'_>>) {
        let found = sample(line);
        let expected = expected.map(|(name, labels, value, time)| Sample {
            name: name.to_owned(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            value,
            time,
        });
        assert_eq!(found, expected, "{line}");
    }

    #[test]
    fn lines() {
        check("up 1", Some(("up", &[], 1.0, None)));
        check("up{} 1 1700000000000", Some(("up", &[], 1.0, Some(1_700_000_000_000))));
        check("a:b{x=\"1\",y=\"2\",} 1e3", Some(("a:b", &[("x", "1"), ("y", "2")], 1000.0, None)));
        check("a { x = \"q\\\"\\\\\\n}\" , y=\"\" } -0.5", Some(("a", &[("x", "q\"\\\n}"), ("y", "")], -0.5, None)));
        check("a +Inf", Some(("a", &[], f64::INFINITY, None)));
        check("a_total{x=\"1\"} 5 # {trace=\"1\"} 0.5", Some(("a_total", &[("x", "1")], 5.0, None)));
        for nonsense in
            ["", "a", "a b", "1a 1", "a{x=1} 1", "a{x=\"1\" 1", "a{x=\"1} 1", "a{=\"1\"} 1", "a 1 x", "{} 1"]
        {
            check(nonsense, None);
        }
    }

    #[test]
    fn texts() {
        let text =
            "# HELP q Length.\n# TYPE q gauge\nq 1\n\ngarbage!\n# TYPE r counter\nr_total 2\ns_total 3\nh_bucket 4\n";
        let found = Exposition::parse(text);
        let names: Vec<&str> = found.samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["q", "r_total", "s_total", "h_bucket"]);
        for (name, kind) in
            [("q", Kind::Gauge), ("r_total", Kind::Counter), ("s_total", Kind::Counter), ("h_bucket", Kind::Other)]
        {
            assert_eq!(found.kind(name), kind, "{name}");
        }
        assert!(!found.truncated);
        let many: String = (0..MOST_SAMPLES + 5).map(|number| format!("m{number} 1\n")).collect();
        let found = Exposition::parse(&many);
        assert_eq!((found.samples.len(), found.truncated), (MOST_SAMPLES, true));
    }
}
