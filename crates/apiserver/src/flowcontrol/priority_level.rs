//! The seats of the priority levels.
//!
//! The server's seats are shared out by the levels' shares: that is a level's nominal limit. A part of it is lendable. What is not
//! is the level's alone; the lendable seats of all levels are one pool, of which a level may have its own part first, and more, up
//! to its borrowing limit, while no other level waits for its own. So no more requests run at once than there are seats, and
//! none is idle while somebody waits who may have it. (Upstream: apiserver `pkg/util/flowcontrol/apf_controller.go`.)
//!
//! A seat is a few atomics as long as nobody waits; the lock of a level is for its queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{
    LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};
use parking_lot::{Mutex, MutexGuard};
use registry::optional::text;
use tokio::sync::oneshot;

use super::dump::{QueuedRequest, RequestInfo};
use super::flow_schema::FlowSchema;
use super::queue_set::{Place, QueueSet};
use super::shuffle_sharding;

/// The most seats that one request takes; upstream's `maximumSeats`.
const WIDTH_MAX: u32 = 10;

/// All priority levels of one configuration, and the pool of what they lend.
#[derive(Debug)]
pub(super) struct PriorityLevels {
    /// What they were made of, to tell whether it has changed.
    specs: BTreeMap<String, (String, PriorityLevelConfigurationSpec)>,
    levels: Vec<PriorityLevel>,
    /// How many seats all levels lend.
    lendable: u32,
    /// How many of them are taken.
    lent: AtomicU32,
}

/// A priority level.
#[derive(Debug)]
pub(super) struct PriorityLevel {
    pub(super) name: String,
    pub(super) uid: HeaderValue,
    /// None of a level that is exempt.
    limits: Option<Limits>,
    /// How many seats are taken.
    executing: AtomicU32,
    /// How many requests wait.
    waiting: AtomicUsize,
    // Never held across an await.
    queues: Mutex<QueueSet>,
}

/// What a level may have at once.
#[derive(Debug)]
struct Limits {
    /// Its part of the server's seats.
    nominal: u32,
    /// What of that nobody else gets.
    reserved: u32,
    /// What it may have together with what it borrows.
    max: u32,
    /// Where requests wait; none where they are rejected at once.
    queuing: Option<Queuing>,
}

#[derive(Debug, Clone, Copy)]
struct Queuing {
    queues: u32,
    hand_size: u32,
    length: usize,
}

/// What came of asking for free seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// Whether they are the request's now.
    granted: bool,
    /// Whether others may have been told that there were none because of seats that were given back at once. Then somebody has
    /// to look again who waits.
    held_up_others: bool,
}

/// Why a request got no seat, in the words of upstream's metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The level has no queues.
    ConcurrencyLimit,
    /// All queues of the flow are full.
    QueueFull,
    /// It waited too long.
    TimeOut,
}

impl Rejection {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

impl PriorityLevels {
    /// The levels of these objects, among whom `seats` are shared out; `before`, when it is made of the same.
    pub(super) fn new(objects: &[PriorityLevelConfiguration], seats: u32, before: Option<&Arc<Self>>) -> Arc<Self> {
        let specs = objects.iter().map(|object| {
            let (name, uid) = (text(&object.metadata.name).to_owned(), text(&object.metadata.uid).to_owned());
            (name, (uid, object.spec.clone().unwrap_or_default()))
        });
        let specs: BTreeMap<_, _> = specs.collect();
        // Levels that stay keep who runs and waits in them. Where something changes, those go on among themselves until they are done.
        if let Some(before) = before.filter(|before| before.specs == specs) {
            return Arc::clone(before);
        }
        let shares: i64 = specs.values().map(|(_, spec)| shares(spec)).sum();
        let levels: Vec<PriorityLevel> = specs
            .iter()
            .map(|(name, (uid, spec))| PriorityLevel {
                name: name.clone(),
                uid: HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static("")),
                limits: spec.limited.as_ref().map(|limited| Limits::new(limited, seats, shares)),
                executing: AtomicU32::new(0),
                waiting: AtomicUsize::new(0),
                queues: Mutex::default(),
            })
            .collect();
        let limits = levels.iter().filter_map(|level| level.limits.as_ref());
        let lendable = limits.map(|limits| limits.nominal - limits.reserved).sum();
        Arc::new(Self { specs, levels, lendable, lent: AtomicU32::new(0) })
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.levels.iter().position(|level| level.name == name)
    }

    pub(super) fn level(&self, index: usize) -> &PriorityLevel {
        &self.levels[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PriorityLevel> {
        self.levels.iter()
    }

    /// Takes seats, if they are free.
    fn take(&self, level: &PriorityLevel, limits: &Limits, width: u32) -> Taken {
        let mut executing = level.executing.load(Ordering::SeqCst);
        let mut held_up_others = false;
        loop {
            let after = executing + width;
            if after > limits.max || (after > limits.nominal && self.somebody_waits_for_their_own(level)) {
                return Taken { granted: false, held_up_others };
            }
            let borrowed = limits.of_the_pool(after) - limits.of_the_pool(executing);
            if !self.borrow(borrowed) {
                return Taken { granted: false, held_up_others };
            }
            match level.executing.compare_exchange(executing, after, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Taken { granted: true, held_up_others },
                Err(now) => {
                    self.lent.fetch_sub(borrowed, Ordering::SeqCst);
                    held_up_others |= borrowed > 0;
                    executing = now;
                }
            }
        }
    }

    /// Takes seats of the pool.
    fn borrow(&self, seats: u32) -> bool {
        let fits = |lent: u32| Some(lent + seats).filter(|after| *after <= self.lendable);
        seats == 0 || self.lent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Whether another level waits though it has less than its nominal limit.
    fn somebody_waits_for_their_own(&self, but: &PriorityLevel) -> bool {
        self.levels.iter().filter(|level| !std::ptr::eq(*level, but)).any(PriorityLevel::waits_for_its_own)
    }

    /// Gives seats back, and passes them on to who waits.
    fn release(&self, level: &PriorityLevel, width: u32) {
        let executing = level.executing.fetch_sub(width, Ordering::SeqCst);
        let Some(limits) = &level.limits else { return };
        let borrowed = limits.of_the_pool(executing) - limits.of_the_pool(executing - width);
        if borrowed > 0 {
            self.lent.fetch_sub(borrowed, Ordering::SeqCst);
            self.dispatch_all();
        } else {
            self.dispatch(level);
        }
    }

    /// Gives free seats to who waits, first to those who wait for their own.
    fn dispatch_all(&self) {
        // Each further round is one that others had to wait for.
        while self.dispatch_round() {}
    }

    /// One round of [`Self::dispatch_all`]; whether there has to be another one.
    fn dispatch_round(&self) -> bool {
        let mut again = false;
        for own in [true, false] {
            for level in &self.levels {
                if !own || level.waits_for_its_own() {
                    again |= self.dispatch_level(level);
                }
            }
        }
        again
    }

    /// Gives free seats to those who wait in a level.
    fn dispatch(&self, level: &PriorityLevel) {
        if self.dispatch_level(level) {
            self.dispatch_all();
        }
    }

    /// As [`Self::dispatch`]; whether others were held up by it.
    fn dispatch_level(&self, level: &PriorityLevel) -> bool {
        let Some(limits) = &level.limits else { return false };
        if level.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let mut held_up_others = false;
        let mut queues = level.queues();
        while let Some(width) = queues.next_width() {
            let taken = self.take(level, limits, width);
            held_up_others |= taken.held_up_others;
            if !taken.granted {
                break;
            }
            level.waiting.fetch_sub(1, Ordering::SeqCst);
            queues.grant_next();
        }
        held_up_others
    }
}

impl PriorityLevel {
    /// The most seats that a request may take: no flow is to fill all its queues' turns with one (upstream: `maxSeats` in
    /// apiserver `pkg/util/flowcontrol/apf_controller.go`).
    pub(super) fn max_width(&self) -> u32 {
        let Some(limits) = &self.limits else { return 1 };
        let hand_size = limits.queuing.map_or(1, |queuing| queuing.hand_size);
        limits.nominal.div_ceil(hand_size.max(1)).clamp(1, WIDTH_MAX)
    }

    /// Whether its requests need not wait for a seat.
    pub(super) fn is_exempt(&self) -> bool {
        self.limits.is_none()
    }

    /// How many seats are taken.
    pub(super) fn executing(&self) -> u32 {
        self.executing.load(Ordering::Relaxed)
    }

    /// The nominal limit; 0 of a level that has none.
    pub(super) fn nominal(&self) -> u32 {
        self.limits.as_ref().map_or(0, |limits| limits.nominal)
    }

    /// How many queues there are.
    pub(super) fn queue_count(&self) -> u32 {
        self.limits.as_ref().and_then(|limits| limits.queuing).map_or(0, |queuing| queuing.queues)
    }

    /// The requests that wait.
    pub(super) fn queued(&self) -> Vec<QueuedRequest> {
        self.queues().queued()
    }

    fn waits_for_its_own(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0 && self.executing.load(Ordering::SeqCst) < self.nominal()
    }

    fn queues(&self) -> MutexGuard<'_, QueueSet> {
        self.queues.lock()
    }
}

impl Limits {
    fn new(limited: &LimitedPriorityLevelConfiguration, seats: u32, all_shares: i64) -> Self {
        let share = i64::from(limited.nominal_concurrency_shares.unwrap_or_default().max(0));
        let nominal = (share * i64::from(seats) + all_shares - 1).checked_div(all_shares).unwrap_or_default();
        let nominal = u32::try_from(nominal).unwrap_or(seats);
        let percent = |percent: i32| {
            let seats = (i64::from(nominal) * i64::from(percent.max(0)) + 50) / 100;
            u32::try_from(seats).unwrap_or(u32::MAX)
        };
        let max =
            limited.borrowing_limit_percent.map_or(seats.max(nominal), |limit| nominal.saturating_add(percent(limit)));
        let response = limited.limit_response.as_ref();
        let queuing = response.and_then(|response| response.queuing.as_ref()).map(|queuing| {
            let number = |value: Option<i32>| u32::try_from(value.unwrap_or(1)).unwrap_or(1).max(1);
            Queuing {
                queues: number(queuing.queues),
                hand_size: number(queuing.hand_size),
                length: number(queuing.queue_length_limit) as usize,
            }
        });
        Self {
            nominal,
            reserved: nominal.saturating_sub(percent(limited.lendable_percent.unwrap_or_default())),
            max,
            queuing,
        }
    }

    /// How many of so many seats are of the pool.
    fn of_the_pool(&self, seats: u32) -> u32 {
        seats.saturating_sub(self.reserved)
    }
}

fn shares(spec: &PriorityLevelConfigurationSpec) -> i64 {
    let limited = spec.limited.as_ref().and_then(|limited| limited.nominal_concurrency_shares);
    let exempt = spec.exempt.as_ref().and_then(|exempt| exempt.nominal_concurrency_shares);
    i64::from(limited.or(exempt).unwrap_or_default().max(0))
}

/// Seats that a request has, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    schema: Arc<FlowSchema>,
    width: u32,
}

impl Seat {
    /// Takes seats of the level of a schema; waits for them at most for `patience`. What waits is shown as `request`.
    pub(super) async fn acquire(
        schema: &Arc<FlowSchema>,
        flow: u64,
        width: u32,
        patience: Duration,
        request: impl FnOnce() -> RequestInfo,
    ) -> Result<Self, Rejection> {
        let (levels, level) = (schema.levels(), schema.level());
        let Some(limits) = &level.limits else {
            level.executing.fetch_add(width, Ordering::SeqCst);
            return Ok(Self::of(schema, width));
        };
        // Who comes does not overtake who waits.
        if level.waiting.load(Ordering::SeqCst) == 0 {
            let taken = levels.take(level, limits, width);
            if taken.held_up_others {
                levels.dispatch_all();
            }
            if taken.granted {
                return Ok(Self::of(schema, width));
            }
        }
        let queuing = limits.queuing.ok_or(Rejection::ConcurrencyLimit)?;
        let hand = shuffle_sharding::deal(flow, queuing.queues, queuing.hand_size);
        let started = Instant::now();
        let mut waiting = Waiting::begin(schema, &hand, queuing.length, width, request).ok_or(Rejection::QueueFull)?;
        // What was given back before this one waited was given to nobody.
        levels.dispatch(level);
        let _ = tokio::time::timeout(patience, &mut waiting.granted).await;
        // At the last moment, too, it may have been granted.
        if waiting.end() {
            return Err(Rejection::TimeOut);
        }
        schema.metrics.waited(started.elapsed());
        Ok(Self::of(schema, width))
    }

    fn of(schema: &Arc<FlowSchema>, width: u32) -> Self {
        schema.metrics.dispatched();
        Self { schema: Arc::clone(schema), width }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.metrics.executed();
        self.schema.levels().release(self.schema.level(), self.width);
    }
}

/// A request in a queue. Dropped, it leaves; what it was granted meanwhile goes back.
struct Waiting<'a> {
    schema: &'a FlowSchema,
    place: Place,
    width: u32,
    granted: oneshot::Receiver<()>,
    over: bool,
}

impl<'a> Waiting<'a> {
    fn begin(
        schema: &'a FlowSchema,
        hand: &[u32],
        limit: usize,
        width: u32,
        request: impl FnOnce() -> RequestInfo,
    ) -> Option<Self> {
        let level = schema.level();
        let mut queues = level.queues();
        let (place, granted) = queues.enqueue(hand, limit, width, request)?;
        level.waiting.fetch_add(1, Ordering::SeqCst);
        schema.metrics.enqueued();
        Some(Self { schema, place, width, granted, over: false })
    }

    /// Leaves the queue; false when the request has been granted its seats, which are the caller's then.
    fn end(&mut self) -> bool {
        self.over = true;
        let level = self.schema.level();
        self.schema.metrics.dequeued();
        let left = level.queues().leave(self.place);
        if left {
            level.waiting.fetch_sub(1, Ordering::SeqCst);
            // The one behind may need fewer seats, and another level no longer wait for this one.
            self.schema.levels().dispatch_all();
        }
        left
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.schema.metrics.cancelled();
        if !self.end() {
            self.schema.levels().release(self.schema.level(), self.width);
        }
    }
}
