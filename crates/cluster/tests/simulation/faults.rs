//! What can go wrong between a component and the API server: everything, but in a way that a network could do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;

type Problem = Box<dyn std::error::Error + Send + Sync>;
type Frames = BoxStream<'static, Result<Frame<Bytes>, Problem>>;
type Answer = Response<StreamBody<Frames>>;

/// Decides what goes wrong, for all components.
pub(crate) struct Faults {
    pub(crate) chance: Chance,
    on: AtomicBool,
    /// Counts how often all watches were cut.
    cut: watch::Sender<u64>,
    /// How many faults there were, for the report.
    pub(crate) count: AtomicUsize,
}

/// What becomes of a request.
enum Fate {
    Pass,
    /// It comes late.
    Late(Duration),
    /// It is refused, with this status and reason.
    Refused(StatusCode, &'static str),
    /// It is done, and nobody hears of it.
    Unheard,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let (on, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { chance: Chance::new(seed), on, cut: watch::Sender::new(0), count })
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Ends all watches at once.
    pub(crate) fn cut_watches(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    fn happen(&self, count: usize) -> bool {
        let happens = self.on.load(Ordering::Relaxed) && self.chance.one_in(count);
        self.count.fetch_add(usize::from(happens), Ordering::Relaxed);
        happens
    }

    fn fate(&self, method: &Method, watches: bool) -> Fate {
        if !self.happen(12) {
            return Fate::Pass;
        }
        let late = Fate::Late(self.chance.up_to(Duration::from_secs(2)));
        match (self.chance.below(4), method) {
            (0, _) => Fate::Refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
            // The history that a watch asks for is gone.
            (1, _) if watches => Fate::Refused(StatusCode::GONE, "Expired"),
            (1, &Method::PUT | &Method::PATCH) => Fate::Refused(StatusCode::CONFLICT, "Conflict"),
            (1, _) => Fate::Refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            (2, &Method::GET) | (3, _) => late,
            (_, _) => Fate::Unheard,
        }
    }

    /// A client that calls as `server` does, until `gone`; after that nothing it says is heard.
    pub(crate) fn client(self: &Arc<Self>, server: Client, gone: CancellationToken) -> Client {
        let faults = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let (faults, server, gone) = (Arc::clone(&faults), server.clone(), gone.clone());
            async move {
                let ended = gone.clone();
                tokio::select! {
                    biased;
                    () = ended.cancelled() => Err(lost()),
                    answer = faults.carry(server, request, gone) => answer,
                }
            }
        });
        Client::new(service, "default")
    }

    async fn carry(
        self: Arc<Self>,
        server: Client,
        request: Request<Body>,
        gone: CancellationToken,
    ) -> Result<Answer, Problem> {
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match self.fate(request.method(), watches) {
            Fate::Pass => {}
            Fate::Late(time) => tokio::time::sleep(time).await,
            Fate::Refused(code, reason) => return Ok(refusal(code, reason)),
            Fate::Unheard => {
                let _ = still(server.send(request)).await;
                return Err(lost());
            }
        }
        let (parts, body) = still(server.send(request)).await?.into_parts();
        let body = if watches { self.watched(body, gone) } else { frames(body) };
        Ok(Response::from_parts(parts, StreamBody::new(body)))
    }

    /// A watch whose events come late sometimes, and that ends when nobody expects it: between two events, or after a
    /// while in which it only seemed to be alive.
    fn watched(self: Arc<Self>, body: Body, gone: CancellationToken) -> Frames {
        let cut = self.cut.subscribe();
        let next = move |(mut body, mut cut, faults, gone): (
            Frames,
            watch::Receiver<u64>,
            Arc<Self>,
            CancellationToken,
        )| async move {
            let frame = async {
                if faults.happen(40) {
                    tokio::time::sleep(faults.chance.up_to(Duration::from_secs(8))).await;
                    return None;
                }
                let frame = body.next().await;
                if faults.happen(6) {
                    tokio::time::sleep(faults.chance.up_to(Duration::from_millis(700))).await;
                }
                frame
            };
            let frame = tokio::select! {
                biased;
                () = gone.cancelled() => None,
                _ = cut.changed() => None,
                frame = frame => frame,
            };
            frame.map(|frame| (frame, (body, cut, faults, gone)))
        };
        stream::unfold((frames(body), cut, self, gone), next).boxed()
    }
}

/// The store works on threads of its own: while it is asked, the clock must not believe that nothing happens.
async fn still<T>(work: impl Future<Output = T>) -> T {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let waiting = tokio::task::spawn_blocking(move || wait.recv().is_ok());
    let result = work.await;
    drop(done);
    let _ = waiting.await;
    result
}

fn lost() -> Problem {
    Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
}

fn frames(body: Body) -> Frames {
    body.into_data_stream().map(|data| Ok(Frame::data(data?))).boxed()
}

fn refusal(code: StatusCode, reason: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": format!("a fault of the simulation: {reason}"),
    });
    let body = Body::from(status.to_string().into_bytes());
    let mut response = Response::new(StreamBody::new(frames(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
