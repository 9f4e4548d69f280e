//! Figures and how they are printed.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use crate::process::{Meter, Process};

/// A figure: its name, its value, and what it is counted in.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    note: String,
    /// What each process of the server spent on one operation, in seconds of a processor.
    cpu: Vec<(String, f64)>,
}

/// The figures of one cluster.
pub(crate) struct Report {
    only: Option<String>,
    processes: Vec<Process>,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty report that wants the figures whose names contain `only`, of a server that consists of `processes`.
    pub(crate) fn new(only: Option<String>, processes: Vec<Process>) -> Self {
        Self { only, processes, figures: Vec::new() }
    }

    /// Whether a figure of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// Adds a figure, and says so to the person who waits.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str, note: impl Into<String>) {
        self.push(Figure { name: name.to_owned(), value, unit, note: note.into(), cpu: Vec::new() });
    }

    /// Starts to measure the processor time of the server.
    pub(crate) fn meter(&self) -> Result<Meter> {
        Meter::start(&self.processes)
    }

    /// Adds a figure of `operations` that began when `meter` was started and have ended.
    pub(crate) fn add_metered(
        &mut self,
        name: &str,
        value: (f64, &'static str),
        note: impl Into<String>,
        (meter, operations): (&Meter, usize),
    ) -> Result<()> {
        let cpu = meter.read()?.into_iter().map(|(name, seconds)| (name, seconds / operations as f64)).collect();
        self.push(Figure { name: name.to_owned(), value: value.0, unit: value.1, note: note.into(), cpu });
        Ok(())
    }

    /// Adds the figures of many operations that took `latencies`, done within `elapsed`.
    pub(crate) fn add_rate(
        &mut self,
        name: &str,
        latencies: &mut [Duration],
        elapsed: Duration,
        meter: &Meter,
    ) -> Result<()> {
        latencies.sort_unstable();
        let rate = latencies.len() as f64 / elapsed.as_secs_f64();
        let note = format!("p50 {:.2} ms, p99 {:.2} ms", millis(latencies, 0.50), millis(latencies, 0.99));
        self.add_metered(name, (rate, "/s"), note, (meter, latencies.len()))
    }

    /// Adds the resident memory of the server: nothing where its processes are not known.
    pub(crate) fn add_memory(&mut self, name: &str) -> Result<()> {
        if self.processes.is_empty() {
            return Ok(());
        }
        let all = self.processes.iter().map(|process| Ok((process, process.memory()?))).collect::<Result<Vec<_>>>()?;
        let each = |(process, memory): &(&Process, f64)| format!("{} {memory:.1}", process.name);
        let note = if all.len() == 1 { "resident".into() } else { all.iter().map(each).collect::<Vec<_>>().join(", ") };
        self.add(name, all.iter().map(|(_, memory)| memory).sum(), "MB", note);
        Ok(())
    }

    /// Prints everything; beside `other`, with the ratio of the two.
    pub(crate) fn print(&self, other: Option<&Self>) {
        let mut out = std::io::stdout().lock();
        for figure in &self.figures {
            let theirs = other.and_then(|other| other.figures.iter().find(|one| one.name == figure.name));
            let _ = match theirs {
                None => writeln!(out, "{}", line(figure)),
                Some(theirs) => writeln!(out, "{}   | other: {}", line(figure), ratios(figure, theirs)),
            };
        }
    }

    fn push(&mut self, figure: Figure) {
        let _ = writeln!(std::io::stderr(), "  {}", line(&figure));
        self.figures.push(figure);
    }
}

fn line(figure: &Figure) -> String {
    let cpu = if figure.cpu.is_empty() { String::new() } else { format!("; CPU {}", cpu(&figure.cpu)) };
    format!("{:<44} {:>12.2} {:<9} {}{cpu}", figure.name, figure.value, figure.unit, figure.note)
}

/// The other cluster's figure, and this one's as a multiple of it.
fn ratios(figure: &Figure, theirs: &Figure) -> String {
    let values = format!("{:.2} {}, ratio {:.2}", theirs.value, theirs.unit, figure.value / theirs.value);
    let total = |figure: &Figure| figure.cpu.iter().map(|(_, seconds)| seconds).sum::<f64>();
    if total(theirs) == 0.0 || figure.cpu.is_empty() {
        return values;
    }
    format!("{values}; CPU {}, ratio {:.2}", cpu(&theirs.cpu), total(figure) / total(theirs))
}

/// Processor time of one operation: in sum, and of each process.
fn cpu(processes: &[(String, f64)]) -> String {
    let time = |seconds: f64| match seconds {
        seconds if seconds >= 0.1 => format!("{seconds:.2} s"),
        seconds => format!("{:.0} µs", seconds * 1e6),
    };
    let sum = time(processes.iter().map(|(_, seconds)| seconds).sum());
    if processes.len() < 2 {
        return sum;
    }
    let each: Vec<String> = processes.iter().map(|(name, seconds)| format!("{name} {}", time(*seconds))).collect();
    format!("{sum} ({})", each.join(", "))
}

/// The latency that this part of the operations stayed below, in milliseconds.
fn millis(sorted: &[Duration], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = ((sorted.len() as f64 * part) as usize).min(last);
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
}
