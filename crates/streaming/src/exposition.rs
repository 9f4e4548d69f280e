//! Prometheus' text format, as far as a node's metrics need it: families of gauges and counters, whose samples may have times.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use jiff::Timestamp;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type and meaning of a family of metrics.
pub type Family = (&'static str, &'static str, &'static str);

/// A number, and when it was read where that is told.
pub type Sample = (f64, Option<Timestamp>);

/// Writes a family; nothing of one that has no samples. The text before each value is that of [`labels`], or empty.
pub fn family(out: &mut String, (name, kind, help): Family, samples: impl IntoIterator<Item = (String, Sample)>) {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, (value, time)) in samples {
        let _ = write!(out, "{name}{labels} {value}");
        let _ = match time {
            Some(time) => writeln!(out, " {}", time.as_millisecond()),
            None => writeln!(out),
        };
    }
}

/// The labels of a sample, in the order given: `{name="value",…}`.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in pairs.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        let mut out = String::new();
        family(&mut out, ("none", "gauge", "Nothing"), []);
        assert_eq!(out, "");
        let time = Timestamp::from_millisecond(1500).ok();
        let samples = [(labels(&[("a", "x\"\\\n"), ("b", "")]), (0.5, time)), (String::new(), (2.0, None))];
        family(&mut out, ("some", "counter", "Something"), samples);
        let expect = "# HELP some Something\n# TYPE some counter\nsome{a=\"x\\\"\\\\\\n\",b=\"\"} 0.5 1500\nsome 2\n";
        assert_eq!(out, expect);
    }
}
