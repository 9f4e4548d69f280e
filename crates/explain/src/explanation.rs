//! The answer: what is wanted, what is there, who acts next, and why.

use std::fmt::Write;

use jiff::Timestamp;
use serde::Serialize;

use crate::words::span;

/// What there is to say of an object, in sentences.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What it is about: `deployment.apps/web -n default`.
    pub object: String,
    /// Of a question whether somebody may do something: the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// What the object asks for.
    pub wants: Vec<String>,
    /// What is there of it.
    pub has: Vec<String>,
    /// Who does what next.
    pub next: Vec<Step>,
    /// Why it is so: what the components said of it, refusals, results.
    pub why: Vec<String>,
    /// The latest events, the newest first.
    pub events: Vec<String>,
    /// What could not be read, and so is not said.
    pub unknown: Vec<String>,
}

/// What somebody does next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Who: a component, a controller, or you.
    pub who: String,
    /// What that one does, in the present tense.
    pub does: String,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Until when it waits at most, or when it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Step {
    /// Who does what.
    pub fn new(who: impl Into<String>, does: impl Into<String>) -> Self {
        Self { who: who.into(), does: does.into(), waits_for: None, until: None }
    }

    /// Not before this.
    #[must_use]
    pub fn waits_for(mut self, what: impl Into<String>) -> Self {
        self.waits_for = Some(what.into());
        self
    }

    /// At this time, or not longer than until then.
    #[must_use]
    pub fn until(mut self, time: Option<Timestamp>) -> Self {
        self.until = time;
        self
    }

    fn text(&self, now: Timestamp) -> String {
        let mut text = format!("{} {}", self.who, self.does);
        let until = self.until.map(|until| {
            let time = machinery::age::rfc3339(until);
            match until.duration_since(now).as_secs() {
                left if left > 0 => format!("until {time} (in {})", span(left)),
                past => format!("until {time} ({} ago)", span(-past)),
            }
        });
        match (&self.waits_for, until) {
            (Some(what), Some(until)) => _ = write!(text, "; waits for {what}, {until}"),
            (Some(what), None) => _ = write!(text, "; waits for {what}"),
            (None, Some(until)) => _ = write!(text, "; waits {until}"),
            (None, None) => {}
        }
        text
    }
}

impl Explanation {
    pub(crate) fn new(object: &str) -> Self {
        Self { object: object.to_owned(), ..Self::default() }
    }

    pub(crate) fn wants(&mut self, text: impl Into<String>) {
        self.wants.push(text.into());
    }

    pub(crate) fn has(&mut self, text: impl Into<String>) {
        self.has.push(text.into());
    }

    pub(crate) fn why(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() && !self.why.contains(&text) {
            self.why.push(text);
        }
    }

    pub(crate) fn next(&mut self, step: Step) {
        self.next.push(step);
    }

    /// The answer as people read it.
    pub fn text(&self, now: Timestamp) -> String {
        let mut out = format!("{}\n", self.object);
        let next: Vec<String> = self.next.iter().map(|step| step.text(now)).collect();
        for (title, lines) in [
            ("It wants", &self.wants),
            ("It has", &self.has),
            ("Next", &next),
            ("Why", &self.why),
            ("Latest events", &self.events),
            ("Not known", &self.unknown),
        ] {
            if !lines.is_empty() {
                let _ = writeln!(out, "\n{title}:");
            }
            for line in lines {
                let _ = writeln!(out, "  {}", line.trim_end().replace('\n', "\n    "));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_sentences() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let at = |seconds: i64| Timestamp::from_second(now.as_second() + seconds).ok();
        let mut explanation = Explanation::new("pod/web -n default");
        explanation.wants("1 container");
        explanation.next(Step::new("The kubelet", "starts it").waits_for("its back-off").until(at(80)));
        explanation.next(Step::new("The kubelet", "kills it").until(at(-5)));
        explanation.next(Step::new("Nobody", "acts"));
        explanation.why("one\ntwo");
        explanation.why("one\ntwo");
        let expected = "pod/web -n default\n\nIt wants:\n  1 container\n\nNext:\n  \
            The kubelet starts it; waits for its back-off, until 2026-01-01T00:01:20Z (in 1m20s)\n  \
            The kubelet kills it; waits until 2025-12-31T23:59:55Z (5s ago)\n  Nobody acts\n\nWhy:\n  one\n    two\n";
        assert_eq!(explanation.text(now), expected);
    }
}
