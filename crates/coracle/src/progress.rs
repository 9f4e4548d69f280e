//! What a person sees while the cluster starts: a line for each step, with its time.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of one command. On a terminal the step under way spins; elsewhere only what is done is printed.
pub(crate) struct Progress {
    current: Option<(ProgressBar, Instant)>,
}

impl Progress {
    /// Starts without a step.
    pub(crate) fn new() -> Self {
        Self { current: None }
    }

    /// Says what is being done now. Ends the step before.
    pub(crate) fn step(&mut self, doing: &str) {
        self.clear();
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
            bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
        }
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(Duration::from_millis(80));
        self.current = Some((bar, Instant::now()));
    }

    /// Says what is done now, and how long it took since [`Progress::step`].
    pub(crate) fn done(&mut self, what: &str) {
        let took = self.current.as_ref().map(|(_, since)| since.elapsed());
        self.clear();
        let took = took.map(duration).unwrap_or_default();
        crate::output::note(format!("✔ {what:<58} {took:>8}"));
    }

    /// Takes the step under way off the screen.
    pub(crate) fn clear(&mut self) {
        if let Some((bar, _)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

fn duration(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}
