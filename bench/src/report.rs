//! Figures and how they are printed.

use std::io::Write;
use std::time::Duration;

/// A figure: its name, its value, and what it is counted in.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    note: String,
}

/// The figures of one cluster.
pub(crate) struct Report {
    only: Option<String>,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty report that wants the figures whose names contain `only`.
    pub(crate) fn new(only: Option<String>) -> Self {
        Self { only, figures: Vec::new() }
    }

    /// Whether a figure of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Adds a figure, and says so to the person who waits.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str, note: impl Into<String>) {
        let figure = Figure { name: name.to_owned(), value, unit, note: note.into() };
        let _ = writeln!(std::io::stderr(), "  {}", line(&figure));
        self.figures.push(figure);
    }

    /// Adds the figures of many operations that took `latencies`, done within `elapsed`.
    pub(crate) fn add_rate(&mut self, name: &str, latencies: &mut [Duration], elapsed: Duration) {
        latencies.sort_unstable();
        let rate = latencies.len() as f64 / elapsed.as_secs_f64();
        let note = format!("p50 {:.2} ms, p99 {:.2} ms", millis(latencies, 0.50), millis(latencies, 0.99));
        self.add(name, rate, "/s", note);
    }

    /// Prints everything; beside `other`, with the ratio of the two.
    pub(crate) fn print(&self, other: Option<&Self>) {
        let mut out = std::io::stdout().lock();
        for figure in &self.figures {
            let theirs = other.and_then(|other| other.figures.iter().find(|one| one.name == figure.name));
            let _ = match theirs {
                None => writeln!(out, "{}", line(figure)),
                Some(theirs) => writeln!(
                    out,
                    "{}   | other: {:.2} {}, ratio {:.2}",
                    line(figure),
                    theirs.value,
                    theirs.unit,
                    figure.value / theirs.value
                ),
            };
        }
    }
}

fn line(figure: &Figure) -> String {
    format!("{:<44} {:>12.2} {:<9} {}", figure.name, figure.value, figure.unit, figure.note)
}

/// The latency that this part of the operations stayed below, in milliseconds.
fn millis(sorted: &[Duration], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = ((sorted.len() as f64 * part) as usize).min(last);
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
}
