//! The part of PromQL that rules are written in.
//!
//! ```text
//!   series  = NAME | [NAME] "{" [matcher {"," matcher}] "}"
//!   matcher = LABEL ("=" | "!=" | "=~" | "!~") "STRING"
//!   query   = [("sum" | "avg" | "min" | "max" | "count") ["by" "(" ... ")"] "("] values [")" ["by" "(" ... ")"]]
//!   values  = selected | ("rate" | "irate") "(" selected "[" DURATION "]" ")"
//!   selected = "<<.Series>>" ["{" "<<.LabelMatchers>>" {"," matcher} "}"]
//! ```
//!
//! `by` takes `<<.GroupBy>>` and nothing else. A rate is over the last two scrapes, whatever the duration says. Everything
//! else is refused with the place where it stops making sense.

use regex::Regex;

use crate::prometheus::{is_name, quoted};
use crate::scrape::Series;

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    /// It is not of the part that is understood.
    #[error("not understood from here on: {0:?}")]
    Unknown(String),
    /// A regular expression is none.
    #[error("{0}")]
    Regex(String),
}

/// A condition on a label.
#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    Matches(Regex),
}

impl Matcher {
    fn holds(&self, series: &Series) -> bool {
        let value = match self.label.as_str() {
            "__name__" => series.name.as_str(),
            label => series.labels.get(label).map_or("", String::as_str),
        };
        let holds = match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::Matches(pattern) => pattern.is_match(value),
        };
        holds != self.negated
    }
}

/// Conditions that a series meets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector(Vec<Matcher>);

impl Selector {
    /// Reads a `series`.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        let text = text.trim();
        let (name, rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        let mut matchers = Vec::new();
        let name = name.trim();
        if !name.is_empty() {
            if !is_name(name) {
                return Err(QueryError::Unknown(text.to_owned()));
            }
            let test = Test::Equal(name.to_owned());
            matchers.push(Matcher { label: "__name__".to_owned(), negated: false, test });
        }
        if let Some(inside) = rest.strip_prefix('{') {
            let rest = matchers_until(inside, '}', &mut matchers)?;
            if !rest.trim().is_empty() {
                return Err(QueryError::Unknown(rest.to_owned()));
            }
        }
        if matchers.is_empty() {
            return Err(QueryError::Unknown(text.to_owned()));
        }
        Ok(Self(matchers))
    }

    /// Whether a series meets them all.
    pub(crate) fn matches(&self, series: &Series) -> bool {
        self.0.iter().all(|matcher| matcher.holds(series))
    }
}

/// Reads `matcher, matcher }` and answers what follows.
fn matchers_until<'a>(text: &'a str, end: char, matchers: &mut Vec<Matcher>) -> Result<&'a str, QueryError> {
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix(end) {
            return Ok(after);
        }
        let unknown = || QueryError::Unknown(rest.to_owned());
        let at = rest.find(['=', '!']).ok_or_else(unknown)?;
        let (label, after) = rest.split_at(at);
        let operators = [("=~", false, true), ("!~", true, true), ("!=", true, false), ("=", false, false)];
        let found = operators
            .iter()
            .find_map(|(sign, negated, regex)| after.strip_prefix(sign).map(|after| (after, *negated, *regex)));
        let (after, negated, is_regex) = found.ok_or_else(unknown)?;
        let (value, after) = after.trim_start().strip_prefix('"').and_then(quoted).ok_or_else(unknown)?;
        let label = label.trim().to_owned();
        if !is_name(&label) {
            return Err(unknown());
        }
        let test = if is_regex {
            // Prometheus anchors its patterns.
            let pattern = Regex::new(&format!("^(?:{value})$"));
            Test::Matches(pattern.map_err(|error| QueryError::Regex(error.to_string()))?)
        } else {
            Test::Equal(value)
        };
        matchers.push(Matcher { label, negated, test });
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
}

/// How several values become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Average,
    Min,
    Max,
    Count,
}

/// What is computed from the series of a metric.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Nothing: each series stands for itself.
    pub(crate) aggregate: Option<Aggregate>,
    /// The growth per second instead of the value.
    pub(crate) rate: bool,
    /// Further conditions.
    matchers: Selector,
}

impl Query {
    /// The sum of the values, or of their growth.
    pub(crate) fn sum(rate: bool) -> Self {
        Self { aggregate: Some(Aggregate::Sum), rate, matchers: Selector::default() }
    }

    /// Each value, or its growth.
    pub(crate) fn each(rate: bool) -> Self {
        Self { aggregate: None, ..Self::sum(rate) }
    }

    /// Reads a `query`.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        let text = text.trim();
        let words = [
            ("sum", Aggregate::Sum),
            ("avg", Aggregate::Average),
            ("min", Aggregate::Min),
            ("max", Aggregate::Max),
            ("count", Aggregate::Count),
        ];
        let aggregate = words.iter().find_map(|(word, aggregate)| {
            let rest = text.strip_prefix(word)?.trim_start();
            (rest.starts_with('(') || rest.starts_with("by")).then_some((*aggregate, rest))
        });
        let Some((aggregate, rest)) = aggregate else {
            let (query, rest) = values(text)?;
            return ended(rest).map(|()| query);
        };
        let (grouped, rest) = grouping(rest)?;
        let inside = rest.strip_prefix('(').ok_or_else(|| QueryError::Unknown(rest.to_owned()))?;
        let (query, rest) = values(inside.trim_start())?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix(')').ok_or_else(|| QueryError::Unknown(rest.to_owned()))?.trim_start();
        let rest = if grouped { rest } else { grouping(rest)?.1 };
        ended(rest)?;
        Ok(Self { aggregate: Some(aggregate), ..query })
    }

    /// The value that a series contributes, and the seconds it is over; nothing if it has none.
    pub(crate) fn value(&self, series: &Series) -> Option<(f64, Option<f64>)> {
        if !self.matchers.matches(series) {
            return None;
        }
        match self.rate {
            true => series.rate.map(|(rate, seconds)| (rate, Some(seconds))),
            false => Some((series.value, None)),
        }
    }
}

impl Aggregate {
    /// One of many. Of none there is nothing.
    pub(crate) fn of(self, values: &[f64]) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a number of series")]
        let number = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        Some(match self {
            Self::Sum => values.iter().sum(),
            Self::Average => values.iter().sum::<f64>() / number,
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Count => number,
        })
    }
}

fn ended(rest: &str) -> Result<(), QueryError> {
    if rest.trim().is_empty() { Ok(()) } else { Err(QueryError::Unknown(rest.to_owned())) }
}

/// `by (<<.GroupBy>>)`, if it is there, and what follows.
fn grouping(text: &str) -> Result<(bool, &str), QueryError> {
    let Some(rest) = text.strip_prefix("by") else { return Ok((false, text)) };
    let unknown = || QueryError::Unknown(text.to_owned());
    let rest = rest.trim_start().strip_prefix('(').ok_or_else(unknown)?.trim_start();
    let rest = rest.strip_prefix("<<.GroupBy>>").ok_or_else(unknown)?.trim_start();
    Ok((true, rest.strip_prefix(')').ok_or_else(unknown)?.trim_start()))
}

/// `values`, and what follows.
fn values(text: &str) -> Result<(Query, &str), QueryError> {
    let unknown = |text: &str| QueryError::Unknown(text.to_owned());
    for word in ["rate", "irate"] {
        let Some(inside) = text.strip_prefix(word).and_then(|rest| rest.trim_start().strip_prefix('(')) else {
            continue;
        };
        let (matchers, rest) = selected(inside.trim_start())?;
        let rest = rest.trim_start().strip_prefix('[').ok_or_else(|| unknown(rest))?;
        let (duration, rest) = rest.split_once(']').ok_or_else(|| unknown(rest))?;
        let is_duration = |c: char| c.is_ascii_digit() || "smhdwy".contains(c);
        if duration.trim().is_empty() || !duration.trim().chars().all(is_duration) {
            return Err(unknown(duration));
        }
        let rest = rest.trim_start().strip_prefix(')').ok_or_else(|| unknown(rest))?;
        return Ok((Query { aggregate: None, rate: true, matchers }, rest));
    }
    let (matchers, rest) = selected(text)?;
    Ok((Query { aggregate: None, rate: false, matchers }, rest))
}

/// `selected`, and what follows.
fn selected(text: &str) -> Result<(Selector, &str), QueryError> {
    let rest = text.strip_prefix("<<.Series>>").ok_or_else(|| QueryError::Unknown(text.to_owned()))?.trim_start();
    let Some(inside) = rest.strip_prefix('{') else { return Ok((Selector::default(), rest)) };
    let inside = inside.trim_start();
    let inside = inside.strip_prefix("<<.LabelMatchers>>").map_or(inside, |after| {
        let after = after.trim_start();
        after.strip_prefix(',').unwrap_or(after)
    });
    let mut matchers = Vec::new();
    let rest = matchers_until(inside, '}', &mut matchers)?;
    Ok((Selector(matchers), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prometheus::{Kind, Labels};

    fn series(name: &str, labels: &[(&str, &str)]) -> Series {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Series { name: name.to_owned(), labels, kind: Kind::Gauge, value: 3.0, time: 0, rate: Some((2.0, 15.0)) }
    }

    #[test]
    fn selectors() {
        let one = series("http_requests_total", &[("pod", "web"), ("code", "500")]);
        for (text, expected) in [
            ("http_requests_total", true),
            ("http_requests", false),
            ("{__name__=~\"^http_.*\",pod!=\"\"}", true),
            ("http_requests_total{pod=\"other\"}", false),
            ("http_requests_total{code=~\"5..\"}", true),
            ("http_requests_total{code!~\"5..\"}", false),
            ("http_requests_total{absent=\"\"}", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&one), expected, "{text}");
        }
        for text in ["", "{}", "a b", "a{b}", "a{b=c}", "a{b=\"c\"} > 1", "a{b=~\"(\"}"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn queries() {
        let check = |text: &str, expected: Option<(Option<Aggregate>, bool)>| {
            let found = Query::parse(text).ok().map(|query| (query.aggregate, query.rate));
            assert_eq!(found, expected, "{text}");
        };
        let sum = Some(Aggregate::Sum);
        check("sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)", Some((sum, false)));
        check("sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})", Some((sum, false)));
        check("sum(rate(<<.Series>>{<<.LabelMatchers>>}[2m])) by (<<.GroupBy>>)", Some((sum, true)));
        check(
            "avg(<<.Series>>{<<.LabelMatchers>>, code=~\"5..\"}) by (<<.GroupBy>>)",
            Some((Some(Aggregate::Average), false)),
        );
        check("max(<<.Series>>)", Some((Some(Aggregate::Max), false)));
        check("irate(<<.Series>>{<<.LabelMatchers>>}[1m])", Some((None, true)));
        check("<<.Series>>{<<.LabelMatchers>>}", Some((None, false)));
        for unknown in [
            "",
            "sum(<<.Series>>) / 2",
            "sum(<<.Series>>) by (pod)",
            "histogram_quantile(0.9, <<.Series>>)",
            "sum(rate(<<.Series>>{<<.LabelMatchers>>}))",
            "sum(rate(<<.Series>>[x]))",
            "stddev(<<.Series>>)",
        ] {
            check(unknown, None);
        }
    }

    #[test]
    fn values_and_aggregates() {
        let one = series("a", &[("code", "500")]);
        let value = |text: &str| Query::parse(text).unwrap().value(&one);
        assert_eq!(value("<<.Series>>"), Some((3.0, None)));
        assert_eq!(value("rate(<<.Series>>[1m])"), Some((2.0, Some(15.0))));
        assert_eq!(value("<<.Series>>{<<.LabelMatchers>>,code=\"200\"}"), None);
        for (aggregate, expected) in [
            (Aggregate::Sum, 6.0),
            (Aggregate::Average, 2.0),
            (Aggregate::Min, 1.0),
            (Aggregate::Max, 3.0),
            (Aggregate::Count, 3.0),
        ] {
            assert_eq!(aggregate.of(&[1.0, 2.0, 3.0]), Some(expected));
        }
        assert_eq!(Aggregate::Sum.of(&[]), None);
    }
}
