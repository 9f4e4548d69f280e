//! The account of what was acknowledged and seen, and what follows from it.
//!
//! Each object has one writer, which does one thing at a time. So its state is what was last acknowledged, or, while an answer
//! is missing, perhaps what was tried since. Whatever the server shows of it must be one of these.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};

/// The state of an object: its number, which each write raises; `None` when there is none.
pub(crate) type State = Option<u64>;

/// What is known of an object.
#[derive(Debug, Default)]
struct Known {
    acknowledged: State,
    /// What was tried since, without an answer.
    tried: Vec<State>,
}

/// Something that happened at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Happened {
    object: String,
    state: State,
}

/// What a watcher saw.
#[derive(Debug, Default)]
struct Seen {
    events: BTreeMap<u64, Happened>,
    /// Between these revisions (the first not included) it missed nothing, if the server did its part.
    spans: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Account {
    objects: HashMap<String, Known>,
    /// All that was acknowledged, by revision.
    revisions: BTreeMap<u64, Happened>,
    watchers: HashMap<usize, Seen>,
    uncertain: usize,
    refused: usize,
    relists: usize,
    /// The first thing that is wrong.
    wrong: Option<String>,
}

impl Account {
    fn wrong(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }
}

/// The account, shared by all writers and watchers.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Account>);

impl History {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write is about to be tried.
    pub(crate) fn tries(&self, object: &str, state: State) {
        self.account().objects.entry(object.to_owned()).or_default().tried.push(state);
    }

    /// It was acknowledged; for what leaves a revision behind, with that.
    pub(crate) fn acknowledges(&self, object: &str, state: State, revision: Option<u64>) {
        let mut account = self.account();
        let known = account.objects.entry(object.to_owned()).or_default();
        *known = Known { acknowledged: state, tried: Vec::new() };
        let Some(revision) = revision else { return };
        let happened = Happened { object: object.to_owned(), state };
        if let Some(before) = account.revisions.insert(revision, happened.clone())
            && before != happened
        {
            account.wrong(format!("revision {revision} was given to {happened:?}, and before to {before:?}"));
        }
    }

    /// It was refused, so that nothing has changed.
    pub(crate) fn refuses(&self, object: &str) {
        let mut account = self.account();
        account.refused += 1;
        account.objects.entry(object.to_owned()).or_default().tried.pop();
    }

    /// There was no answer.
    pub(crate) fn leaves_open(&self) {
        self.account().uncertain += 1;
    }

    /// The server shows an object: it must be as acknowledged or as tried since. From now on that is what counts.
    pub(crate) fn shows(&self, object: &str, state: State) {
        let mut account = self.account();
        let known = account.objects.entry(object.to_owned()).or_default();
        if known.acknowledged == state || known.tried.contains(&state) {
            *known = Known { acknowledged: state, tried: Vec::new() };
        } else {
            let complaint = format!("{object} is {state:?}, but {known:?}");
            account.wrong(complaint);
        }
    }

    /// A watcher begins to see all that comes after a revision.
    pub(crate) fn watches(&self, watcher: usize, after: u64) {
        let mut account = self.account();
        let seen = account.watchers.entry(watcher).or_default();
        if !seen.spans.is_empty() {
            account.relists += 1;
        }
        account.watchers.entry(watcher).or_default().spans.push((after, after));
    }

    /// A watcher sees an event.
    pub(crate) fn sees(&self, watcher: usize, object: &str, state: State, revision: u64) {
        let mut account = self.account();
        let happened = Happened { object: object.to_owned(), state };
        let seen = account.watchers.entry(watcher).or_default();
        let Some(span) = seen.spans.last_mut() else { return };
        let last = span.1;
        span.1 = revision.max(last);
        seen.events.insert(revision, happened);
        if revision <= last {
            account.wrong(format!("watcher {watcher} saw revision {revision} after {last}"));
        }
    }

    /// How many writes were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.account().revisions.len()
    }

    /// Whether anything was wrong so far.
    pub(crate) fn verdict(&self) -> Result<()> {
        match &self.account().wrong {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(()),
        }
    }

    /// Whether each watcher saw all that was acknowledged while it watched, as it was acknowledged.
    pub(crate) fn check_watchers(&self) -> Result<()> {
        self.verdict()?;
        let account = self.account();
        for (watcher, seen) in &account.watchers {
            for (after, upto) in &seen.spans {
                for (revision, happened) in account.revisions.range(after + 1..=*upto) {
                    match seen.events.get(revision) {
                        Some(event) if event == happened => {}
                        other => bail!("watcher {watcher}: at revision {revision} {happened:?}, but it saw {other:?}"),
                    }
                }
            }
        }
        Ok(())
    }

    /// In one line what happened.
    pub(crate) fn summary(&self) -> String {
        let account = self.account();
        let seen: usize = account.watchers.values().map(|seen| seen.events.len()).sum();
        format!(
            "{} writes acknowledged, {} refused, {} without an answer, {seen} events seen, {} new lists",
            account.revisions.len(),
            account.refused,
            account.uncertain,
            account.relists
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_as_acknowledged_or_as_tried_since() {
        let history = History::default();
        history.tries("a", Some(1));
        history.acknowledges("a", Some(1), Some(5));
        history.tries("a", Some(2));
        history.leaves_open();
        history.shows("a", Some(1));
        history.verdict().expect("the write may have failed");
        history.tries("a", Some(3));
        history.shows("a", Some(3));
        history.verdict().expect("the write may have succeeded");
        history.shows("a", Some(1));
        history.verdict().expect_err("what was shown cannot be undone");
    }

    #[test]
    fn a_lost_write_and_a_revision_used_twice_are_found() {
        let lost = History::default();
        lost.acknowledges("a", Some(1), Some(5));
        lost.shows("a", None);
        lost.verdict().expect_err("it is lost");
        let twice = History::default();
        twice.acknowledges("a", Some(1), Some(5));
        twice.acknowledges("b", Some(1), Some(5));
        twice.verdict().expect_err("two writes have one revision");
    }

    #[test]
    fn watchers_see_all_once_and_in_order() {
        let history = History::default();
        history.acknowledges("a", Some(1), Some(5));
        history.acknowledges("a", Some(2), Some(6));
        history.acknowledges("a", Some(3), Some(8));
        history.watches(0, 5);
        history.sees(0, "a", Some(2), 6);
        history.check_watchers().expect("it has not come to 8 yet");
        history.sees(0, "b", Some(9), 9);
        history.check_watchers().expect_err("8 is missing");
        let again = History::default();
        again.watches(0, 5);
        again.sees(0, "a", Some(2), 6);
        again.sees(0, "a", Some(2), 6);
        again.verdict().expect_err("it came twice");
    }
}
