//! How many requests a daemon is given at a time, and for how long one that it does not answer counts.
//!
//! Docker 20.10 deadlocks for good when some hundred endpoints come and go at once (libnetwork's watch loop), and a request
//! that meets a deadlock stays in the daemon for ever, whoever hangs up. So every request of [`Transport`] takes a place in
//! its lane, and at most one of a kind is under way for a container. Both are held until the daemon answers or the
//! connection is given up: that the caller's patience has ended, or that it was dropped, makes the daemon no less busy.
//!
//! | lane | requests | at a time |
//! |---|---|---|
//! | start | what makes and starts containers, networks and images | [`Bounds::starts`] |
//! | end | what kills and removes them | [`Bounds::ends`] |
//! | query | everything else that is answered at once | [`Bounds::queries`] |
//! | none | what lasts as long as the container or its caller: logs, events, attach, exec's streams, wait, pulls | |
//!
//! [`Transport`]: crate::transport::Transport

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// A connection that brought no answer for so long is given up: its daemon may be gone without a word.
const GIVE_UP: Duration = Duration::from_secs(600);

/// How many containers the daemon counts the files of at a time.
const COUNTINGS: u8 = 4;

/// How many requests of each lane are under way at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) starts: usize,
    pub(crate) ends: usize,
    pub(crate) queries: usize,
}

impl Default for Bounds {
    /// Starts were measured with twenty pods on two processors: one at a time takes half as long again, and more than six
    /// gain nothing, for the daemon's own locks and the kernel's are what they wait for. The other two are chosen, not
    /// measured: ends are what deadlocked a daemon, so there are fewer of them, and questions are cheap.
    fn default() -> Self {
        Self { starts: 6, ends: 4, queries: 16 }
    }
}

/// What a request needs before it may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Start,
    End,
    Query,
}

/// The lane of a request and, where only one of its kind may be under way, the name of that; `None` for a stream.
/// `path` may begin with a version and have a query.
pub(crate) fn classify(method: &Method, path: &str) -> Option<(Lane, Option<String>)> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|first| first.starts_with("v1.")) {
        parts.remove(0);
    }
    let change = |id: &str| Some(format!("container {id}"));
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["events"] | ["containers", _, "logs"])
        | ("POST", ["containers", _, "attach" | "wait"] | ["exec", _, "start"] | ["images", "create"]) => None,
        ("POST", ["containers", "create"]) => {
            let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
            Some((Lane::Start, name.and_then(change)))
        }
        ("POST", ["containers", id, "start"]) => Some((Lane::Start, change(id))),
        ("POST", ["containers", id, "update" | "pause" | "unpause"]) => Some((Lane::Query, change(id))),
        ("POST", ["containers", id, "kill" | "stop"]) | ("DELETE", ["containers", id]) => Some((Lane::End, change(id))),
        ("POST", ["networks" | "images", ..]) => Some((Lane::Start, None)),
        ("DELETE", _) => Some((Lane::End, None)),
        // The daemon goes over all files of the container: a few at a time, so that a large one does not hold up all others,
        // and never in the way of other inspections.
        ("GET", ["containers", id, "json"]) if query.split('&').any(|pair| pair == "size=true") => {
            let turn = id.bytes().last().unwrap_or_default() % COUNTINGS;
            Some((Lane::Query, Some(format!("counting of files {turn}"))))
        }
        // While a container's own lock is held for ever, each of these would be stuck, too.
        ("GET", ["containers", id, "json"]) => Some((Lane::Query, Some(format!("inspection {id}")))),
        ("POST", ["containers", id, "exec"]) => Some((Lane::Query, Some(format!("exec {id}")))),
        // Asked as a health check, again and again.
        ("GET", ["networks"]) => Some((Lane::Query, Some("networks".to_owned()))),
        _ => Some((Lane::Query, None)),
    }
}

/// The limits of one daemon. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    starts: Places,
    ends: Places,
    queries: Places,
    /// What only one request at a time may do, while somebody does or waits for it.
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
}

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    progress: Mutex<Progress>,
}

/// When the requests of a lane were sent, and when the last answer came.
#[derive(Debug, Default)]
struct Progress {
    next: u64,
    pending: BTreeMap<u64, Instant>,
    answered: Option<Instant>,
}

impl Limits {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let places = |count: usize| Places { free: Arc::new(Semaphore::new(count)), progress: Mutex::default() };
        Self(Arc::new(Inner {
            starts: places(bounds.starts),
            ends: places(bounds.ends),
            queries: places(bounds.queries),
            turns: Mutex::default(),
        }))
    }

    /// Does `work`, which sends a request and brings the head of its answer, once it is its turn. Dropping the future gives
    /// up waiting for the turn; what was sent then goes on without it. `None` when the connection was given up.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        class: Option<(Lane, Option<String>)>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let Some((lane, name)) = class else {
            return Some(work.await);
        };
        // First the turn, so that nobody holds a place while waiting for it.
        let turn = match name {
            Some(name) => Some(Turn::take(self.clone(), name).await),
            None => None,
        };
        // The semaphores are never closed.
        let place = Arc::clone(&self.places(lane).free).acquire_owned().await.ok()?;
        let (send, answer) = oneshot::channel();
        let limits = self.clone();
        tokio::spawn(async move {
            let number = limits.places(lane).begin();
            let done = tokio::time::timeout(GIVE_UP, work).await.ok();
            limits.places(lane).finish(number, done.is_some());
            drop((place, turn));
            // A caller that is gone has no use for it.
            let _ = send.send(done);
        });
        answer.await.ok().flatten()
    }

    /// Why the daemon seems to be stuck though it answers: something was asked to start or to end, and for so long now
    /// nothing of the kind has come back.
    pub(crate) fn stuck(&self, after: Duration) -> Option<String> {
        let now = Instant::now();
        [(Lane::Start, "starting"), (Lane::End, "stopping and removing")].into_iter().find_map(|(lane, doing)| {
            let (count, since) = self.places(lane).waiting()?;
            let waited = now.saturating_duration_since(since);
            (waited >= after)
                .then(|| format!("{doing} containers has not come back for {} s ({count} under way)", waited.as_secs()))
        })
    }

    fn places(&self, lane: Lane) -> &Places {
        match lane {
            Lane::Start => &self.0.starts,
            Lane::End => &self.0.ends,
            Lane::Query => &self.0.queries,
        }
    }

    fn turns(&self) -> MutexGuard<'_, HashMap<String, Arc<Semaphore>>> {
        self.0.turns.lock()
    }
}

impl Places {
    fn begin(&self) -> u64 {
        let mut progress = self.progress.lock();
        let number = progress.next;
        progress.next += 1;
        progress.pending.insert(number, Instant::now());
        number
    }

    fn finish(&self, number: u64, answered: bool) {
        let mut progress = self.progress.lock();
        progress.pending.remove(&number);
        if answered {
            progress.answered = Some(Instant::now());
        }
    }

    /// How many requests are under way, if any, and since when none has been answered.
    fn waiting(&self) -> Option<(usize, Instant)> {
        let progress = self.progress.lock();
        let oldest = progress.pending.values().next().copied()?;
        let since = progress.answered.map_or(oldest, |answered| answered.max(oldest));
        Some((progress.pending.len(), since))
    }
}

/// The right to do what only one request at a time may do. Its name is forgotten with the last who wants it.
struct Turn {
    limits: Limits,
    name: String,
    semaphore: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    async fn take(limits: Limits, name: String) -> Self {
        let semaphore = {
            let mut turns = limits.turns();
            Arc::clone(turns.entry(name.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        // Made before the wait, so that whoever gives up waiting leaves nothing behind.
        let mut turn = Self { limits, name, semaphore: Some(Arc::clone(&semaphore)), permit: None };
        turn.permit = semaphore.acquire_owned().await.ok();
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.limits.turns();
        self.permit = None;
        self.semaphore = None;
        // They are cloned under this lock only: a count of one is the map's own.
        if turns.get(&self.name).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
            turns.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const BOUNDS: Bounds = Bounds { starts: 3, ends: 2, queries: 4 };

    #[test]
    fn lanes() {
        let check = |method: Method, path: &str, expected: Option<(Lane, Option<&str>)>| {
            let class = classify(&method, path);
            let class = class.as_ref().map(|(lane, name)| (*lane, name.as_deref()));
            assert_eq!(class, expected, "{method} {path}");
        };
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        check(post.clone(), "/v1.41/containers/create?name=k8s_x", Some((Lane::Start, Some("container k8s_x"))));
        check(post.clone(), "/v1.41/containers/c1/start", Some((Lane::Start, Some("container c1"))));
        check(post.clone(), "/containers/c1/kill?signal=SIGTERM", Some((Lane::End, Some("container c1"))));
        check(delete.clone(), "/v1.41/containers/c1?force=true&v=true", Some((Lane::End, Some("container c1"))));
        check(get.clone(), "/v1.41/containers/c1/json", Some((Lane::Query, Some("inspection c1"))));
        let counting = Some((Lane::Query, Some("counting of files 1")));
        check(get.clone(), "/v1.41/containers/c1/json?size=true", counting);
        check(get.clone(), "/v1.41/containers/c1/json?size=false", Some((Lane::Query, Some("inspection c1"))));
        check(get.clone(), "/v1.41/containers/c2/json?size=true", Some((Lane::Query, Some("counting of files 2"))));
        check(post.clone(), "/v1.41/containers/c1/update", Some((Lane::Query, Some("container c1"))));
        check(post.clone(), "/v1.41/containers/c1/exec", Some((Lane::Query, Some("exec c1"))));
        check(get.clone(), "/v1.41/containers/json?all=true", Some((Lane::Query, None)));
        check(get.clone(), "/v1.41/containers/c1/stats?stream=false", Some((Lane::Query, None)));
        check(get.clone(), "/v1.41/networks?filters=x", Some((Lane::Query, Some("networks"))));
        check(post.clone(), "/v1.41/networks/create", Some((Lane::Start, None)));
        check(delete.clone(), "/v1.41/networks/n", Some((Lane::End, None)));
        check(post.clone(), "/v1.41/images/load?quiet=true", Some((Lane::Start, None)));
        check(get.clone(), "/_ping", Some((Lane::Query, None)));
        for (method, path) in [
            (&get, "/v1.41/events?since=1"),
            (&get, "/v1.41/containers/c1/logs?follow=1"),
            (&post, "/v1.41/containers/c1/attach?stream=1"),
            (&post, "/v1.41/containers/c1/wait"),
            (&post, "/v1.41/exec/e1/start"),
            (&post, "/v1.41/images/create?fromImage=x"),
        ] {
            check(method.clone(), path, None);
        }
    }

    /// Lets everything run that can.
    async fn settle() {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn no_more_than_its_bound_is_under_way_in_a_lane() {
        let limits = Limits::new(BOUNDS);
        let sent = Arc::new(AtomicUsize::new(0));
        let hang = |lane, name: Option<String>| {
            let (limits, sent) = (limits.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                let work = async move {
                    sent.fetch_add(1, Ordering::SeqCst);
                    pending::<()>().await;
                };
                limits.run(Some((lane, name)), work).await
            })
        };
        let starts: Vec<_> = (0..50).map(|number| hang(Lane::Start, Some(format!("c{number}")))).collect();
        settle().await;
        assert_eq!(sent.load(Ordering::SeqCst), BOUNDS.starts);
        // Whoever leaves gives no place back: the daemon is at it all the same.
        starts.iter().for_each(tokio::task::JoinHandle::abort);
        let _ends: Vec<_> = (0..50).map(|number| hang(Lane::End, Some(format!("e{number}")))).collect();
        let _more: Vec<_> = (0..50).map(|number| hang(Lane::Start, Some(format!("d{number}")))).collect();
        settle().await;
        assert_eq!(sent.load(Ordering::SeqCst), BOUNDS.starts + BOUNDS.ends);
        // A stream needs no place.
        assert_eq!(limits.run(None, async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn one_operation_at_a_time_for_a_container() {
        let limits = Limits::new(BOUNDS);
        let class = |name: &str| Some((Lane::End, Some(name.to_owned())));
        let (answer, answered) = oneshot::channel::<()>();
        let first = tokio::spawn({
            let (limits, class) = (limits.clone(), class("c"));
            async move { limits.run(class, answered).await }
        });
        settle().await;
        // Its caller has lost patience, and another one comes again and again.
        first.abort();
        for _ in 0..10 {
            let again = limits.run(class("c"), async {});
            assert!(tokio::time::timeout(Duration::ZERO, again).await.is_err());
        }
        // Others are not held up.
        assert_eq!(limits.run(class("d"), async { 1 }).await, Some(1));
        answer.send(()).unwrap();
        assert_eq!(limits.run(class("c"), async { 2 }).await, Some(2));
        settle().await;
        assert!(limits.turns().is_empty(), "names are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn stuck_is_what_nothing_comes_back_from() {
        let limits = Limits::new(BOUNDS);
        let minute = Duration::from_secs(60);
        assert_eq!(limits.stuck(minute), None, "idle");
        let hang = tokio::spawn({
            let limits = limits.clone();
            async move { limits.run(Some((Lane::Start, None)), pending::<()>()).await }
        });
        settle().await;
        tokio::time::advance(Duration::from_secs(50)).await;
        // Another one comes back meanwhile: it is a single container that is slow.
        limits.run(Some((Lane::Start, None)), async {}).await;
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(limits.stuck(minute), None);
        tokio::time::advance(Duration::from_secs(20)).await;
        let why = limits.stuck(minute).unwrap();
        assert_eq!(why, "starting containers has not come back for 70 s (1 under way)");
        tokio::time::advance(GIVE_UP).await;
        assert_eq!(hang.await.unwrap(), None, "given up");
        assert_eq!(limits.stuck(minute), None);
        assert_eq!(limits.0.starts.free.available_permits(), BOUNDS.starts);
    }
}
