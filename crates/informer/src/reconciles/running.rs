//! A reconcile that is running: what it says of itself until it ends.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Span, debug, info_span};

use super::{Did, Ending, Reconcile, Stats, Write, shorten};
use crate::cause::Causes;
use crate::pause::{PauseSwitch, StepPermit};

/// So many writes of one reconcile are kept, and so many actions; of the others the number is.
const KEPT: usize = 16;

/// What a component reports its reconciles with. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct ReconcileReporter {
    stats: Arc<Stats>,
}

impl ReconcileReporter {
    pub(crate) fn new(stats: Arc<Stats>) -> Self {
        Self { stats }
    }

    /// Whether the component is paused, and who waits for a step of it.
    pub fn pause(&self) -> &PauseSwitch {
        self.stats.pause()
    }

    /// A reconcile of `key` begins because of `causes`.
    pub fn begin(&self, key: &impl Display, causes: &Causes) -> Running {
        self.begin_since(Instant::now(), key, causes)
    }

    /// As [`Self::begin`], of a reconcile that has begun at `started`: one of several that are decided together.
    pub fn begin_since(&self, started: Instant, key: &impl Display, causes: &Causes) -> Running {
        let waited = started.saturating_duration_since(causes.since());
        let (causes, more_causes) = causes.record();
        let key = key.to_string();
        let span = info_span!("reconcile", controller = self.stats.name(), key);
        self.stats.begun(started, waited);
        let reconcile = Reconcile {
            key,
            causes,
            more_causes,
            started_at: Timestamp::now(),
            waited,
            took: Duration::ZERO,
            writes: Vec::new(),
            more_writes: 0,
            actions: Vec::new(),
            more_actions: 0,
            // What it is if nobody says otherwise.
            ending: Ending::Panicked,
            reason: None,
        };
        let (reconcile, trace) = (Some(reconcile), Trace::default());
        Running { stats: Arc::clone(&self.stats), span, started, reconcile, trace, step: None }
    }
}

/// A reconcile that is running. Dropped before its [end](Self::end) it was called off, and is reported only if it panicked.
#[derive(Debug)]
pub struct Running {
    stats: Arc<Stats>,
    span: Span,
    started: Instant,
    /// None after the end.
    reconcile: Option<Reconcile>,
    trace: Trace,
    /// Who is told of the end, where the component is paused.
    step: Option<StepPermit>,
}

impl Running {
    /// The span of all that it does.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes a write to the API. `write` is called only where it is kept.
    pub fn write(&mut self, write: impl FnOnce() -> Write) {
        self.trace.write(write);
    }

    /// Notes something done outside of the API, or begun. `action` is called only where it is kept.
    pub fn act<A: Into<Cow<'static, str>>>(&mut self, action: impl FnOnce() -> A) {
        if self.trace.actions.len() < KEPT {
            self.trace.actions.push(Did { after: self.started.elapsed(), what: action().into() });
        } else {
            self.trace.more_actions += 1;
        }
    }

    /// Notes why it did not do more.
    pub fn because(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.trace.reason = Some(match reason.into() {
            Cow::Owned(reason) => Cow::Owned(shorten(reason)),
            reason @ Cow::Borrowed(_) => reason,
        });
    }

    /// Reports it. `labels` are the values of the labels that the component's
    /// [duration metric](super::Reconciler::DURATION) has.
    pub fn end(mut self, ending: Ending, labels: &[&str]) {
        self.report(ending, labels);
    }

    /// It is part of the step that was let through, if it was one.
    pub fn set_step(&mut self, step: Option<StepPermit>) {
        self.step = step;
    }

    pub(crate) fn set_trace(&mut self, trace: Trace) {
        self.trace = trace;
    }

    fn report(&mut self, ending: Ending, labels: &[&str]) {
        let Some(reconcile) = self.reconcile.take() else {
            return;
        };
        let Trace { writes, more_writes, actions, more_actions, reason } = std::mem::take(&mut self.trace);
        let took = self.started.elapsed();
        let reconcile = Reconcile { took, writes, more_writes, actions, more_actions, ending, reason, ..reconcile };
        self.span.in_scope(|| debug!("{reconcile}"));
        let reconcile = self.stats.ended(reconcile, labels);
        if let Some(step) = self.step.take() {
            step.report(reconcile);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stats.stopped(self.started);
        if std::thread::panicking() {
            self.report(Ending::Panicked, &[]);
        }
    }
}

/// What a reconcile says of itself while it runs.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    writes: Vec<Write>,
    more_writes: usize,
    actions: Vec<Did>,
    more_actions: usize,
    pub(crate) reason: Option<Cow<'static, str>>,
}

impl Trace {
    pub(crate) fn write(&mut self, write: impl FnOnce() -> Write) {
        if self.writes.len() < KEPT {
            self.writes.push(write());
        } else {
            self.more_writes += 1;
        }
    }
}
