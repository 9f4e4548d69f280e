//! Counting attempts against the thresholds. Pure.

use k8s_openapi::api::core::v1::Probe;

/// The attempts of one probe so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    failure_threshold: u32,
    success_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Nothing counted yet.
    pub(crate) fn new(probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default: u32| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            failure_threshold: threshold(probe.failure_threshold, 3),
            success_threshold: threshold(probe.success_threshold, 1),
            last: None,
            run: 0,
        }
    }

    /// Counts an attempt. The answer is a verdict, once enough attempts in a row agree.
    pub(crate) fn count(&mut self, success: bool) -> Option<bool> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = match success {
            true => self.success_threshold,
            false => self.failure_threshold,
        };
        (self.run >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let check = |failure, success, attempts: &str| -> String {
            let mut tally =
                Tally::new(&Probe { failure_threshold: failure, success_threshold: success, ..Probe::default() });
            let verdict = |c| match tally.count(c == '+') {
                None => '.',
                Some(true) => '+',
                Some(false) => '-',
            };
            attempts.chars().map(verdict).collect()
        };
        for (failure, success, attempts, verdicts) in [
            (None, None, "+", "+"),
            (None, None, "----", "..--"),
            (None, None, "--+--+---", "..+..+..-"),
            (Some(1), None, "-+-", "-+-"),
            (Some(2), Some(2), "+-++--", "...+.-"),
        ] {
            assert_eq!(check(failure, success, attempts), verdicts, "{attempts}");
        }
    }
}
