//! The audit log: who asked for what, when, from where, and what became of it.
//!
//! A [`Policy`] says for each request how much of it is noted. What is to be noted is gathered while the request is
//! answered ([`Recording`]) and handed to a thread of its own ([`log`]), which makes JSON lines of it ([`event`]): upstream's
//! `audit.k8s.io/v1`, `Event`. The queue to that thread is bounded. What finds it full is dropped and counted, as with upstream's
//! log backend in batch mode: a disk that is slow must not hold up the API.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/audit` and `pkg/endpoints/filters/audit.go`.

mod event;
mod log;
mod policy;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use machinery::Verb;
use machinery::status::ApiError;
use prometheus_client::collector::Collector;
use registry::audit::Annotations;

use crate::authn::User;
use crate::authz::Target;
use crate::body::RequestBody;
use crate::resource;
use crate::respond::Answer;
use event::{Content, Object, ObjectReference, Record, Request};
use log::Log;
use policy::Decision;
pub use policy::Policy;
pub(crate) use policy::{Level, Stage};

/// The audit log of a server. Copies are the same.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    policy: Policy,
    log: Log,
}

impl Audit {
    /// Opens the log at `path`, or begins one there, for what `policy` selects.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(policy: Policy, path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner { policy, log: Log::open(path)? })))
    }

    /// What the log counts, by upstream's names.
    pub(crate) fn metrics(&self) -> Box<dyn Collector> {
        self.0.log.metrics()
    }

    /// Writes what is queued. What is noted later is dropped.
    pub async fn close(&self) {
        let log = self.clone();
        // It fails only if the thread panicked, and then there is nothing left to write.
        let _ = tokio::task::spawn_blocking(move || log.0.log.close()).await;
    }

    /// Begins to record a request, unless the policy does not want it. It comes from whoever has been authenticated, who may
    /// be about to act as somebody else; from nobody, where that failed.
    pub(crate) fn begin(
        &self,
        user: Option<&Arc<User>>,
        verb: Verb<'_>,
        target: Target<'_>,
        parts: &Parts,
        id: &HeaderValue,
    ) -> Option<Recording> {
        let user = user.map(Arc::clone);
        let decision = self.0.policy.decide(user.as_deref(), verb.as_str(), target)?;
        let mut object_reference = None;
        let mut long_running = verb == Verb::Watch;
        let mut connects = false;
        if let Target::Resource { subresource, .. } = target {
            let lasts = resource::lasts(subresource);
            connects = lasts && subresource != "log";
            long_running |= lasts;
            object_reference = Some(ObjectReference::new(target));
        }
        let request = Request {
            id: String::from_utf8_lossy(id.as_bytes()).into_owned(),
            // Over HTTP/2 it comes with scheme and host.
            uri: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string),
            verb: verb.as_str().to_owned(),
            user,
            source_ips: event::source_ips(parts),
            user_agent: event::user_agent(&parts.headers),
            object_reference,
            received: Timestamp::now(),
            level: decision.level,
            omit_managed_fields: decision.omit_managed_fields,
        };
        let recording = Recording {
            audit: self.clone(),
            decision,
            request: Arc::new(request),
            long_running,
            reads_body: !connects
                && matches!(verb, Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection),
            names_created: verb == Verb::Create && !connects,
            bearer: parts.headers.contains_key(http::header::AUTHORIZATION),
            impersonated: None,
            request_object: None,
            failure: None,
            answer: None,
            done: false,
            annotations: Annotations::default(),
        };
        if recording.request.user.is_some() {
            recording.note(Stage::RequestReceived, None, None);
        }
        Some(recording)
    }
}

/// Notes the answer to a request that is recorded.
pub(crate) fn answered(recording: Option<Recording>, answer: Answer) -> Answer {
    match recording {
        Some(recording) => recording.answered(answer),
        None => answer,
    }
}

/// Notes why a request that is recorded failed.
pub(crate) fn failed(recording: Option<Recording>, error: &ApiError, answer: Answer) -> Answer {
    match recording {
        Some(mut recording) => {
            recording.failure = Some(recording.failure_of(error));
            recording.answered(answer)
        }
        None => answer,
    }
}

/// Notes that the handler of a request that is recorded panicked.
pub(crate) fn panicked(recording: Option<Recording>, panic: &str) {
    if let Some(mut recording) = recording {
        recording.failure = Some(ApiError::internal(format!("APIServer panic'd: {panic}")));
        recording.note(Stage::Panic, Some(StatusCode::INTERNAL_SERVER_ERROR), None);
        recording.done = true;
    }
}

/// What is noted of one request. When it is dropped, the last stage is noted: the last of the answer is gone, or the client was
/// gone before there was one, which undoes nothing of what it asked for.
pub(crate) struct Recording {
    audit: Audit,
    decision: Decision,
    request: Arc<Request>,
    /// Its answer may last: that it began is a stage of its own.
    long_running: bool,
    /// Whether it has an object for a body.
    reads_body: bool,
    /// Whether the name of its object may be known by its answer only.
    names_created: bool,
    /// Whether it came with a token.
    bearer: bool,
    impersonated: Option<Arc<User>>,
    request_object: Option<Content>,
    failure: Option<ApiError>,
    /// What it is answered with, once that is known.
    answer: Option<(StatusCode, Option<Content>)>,
    /// Nothing more is noted.
    done: bool,
    annotations: Annotations,
}

impl Recording {
    /// Takes a copy of the body of a request, where the policy asks for it.
    ///
    /// # Errors
    /// As [`RequestBody::read`].
    pub(crate) async fn read(&mut self, parts: &Parts, body: RequestBody) -> Result<RequestBody, ApiError> {
        if self.decision.level < Level::Request || !self.reads_body {
            return Ok(body);
        }
        let bytes = body.read().await?;
        self.request_object = Content::of_request(&parts.headers, bytes.clone());
        Ok(RequestBody::Whole(bytes))
    }

    /// Whom the user acts as.
    pub(crate) fn acts_as(&mut self, user: &Arc<User>) {
        self.impersonated = Some(Arc::clone(user));
    }

    /// Where the annotations of the event are gathered.
    pub(crate) fn annotations(&self) -> Annotations {
        self.annotations.clone()
    }

    /// Why it failed. Of who could not be authenticated, it is told how they tried (`filters/authn_audit.go`).
    fn failure_of(&self, error: &ApiError) -> ApiError {
        let mut failure = error.clone();
        if self.request.user.is_none() {
            let attempted = if self.bearer { "bearer" } else { "x509" };
            failure.message = format!("Authentication failed, attempted: {attempted}");
        }
        failure
    }

    /// Notes what became of the request: now, or, if the answer is a stream, when it has ended. A connection that becomes
    /// another protocol's (exec, attach, port-forward) ends here with its beginning.
    fn answered(mut self, answer: Answer) -> Answer {
        let status = answer.status();
        if self.long_running || self.request.user.is_none() {
            self.note(Stage::ResponseStarted, Some(status), None);
        }
        if self.request.user.is_none() {
            return answer;
        }
        let (parts, body) = answer.into_parts();
        let wants_response = self.decision.level >= Level::RequestResponse;
        let names = self.names_created && status.is_success();
        let response = body.at_hand().filter(|_| (wants_response || names) && !self.long_running);
        let response = response.map(|bytes| Content::of_answer(&parts.headers, bytes));
        self.answer = Some((status, response));
        Answer::from_parts(parts, body.keeping(self))
    }

    fn note(&self, stage: Stage, status: Option<StatusCode>, response: Option<Content>) {
        if self.decision.omits(stage) {
            return;
        }
        let with_request = stage != Stage::RequestReceived;
        self.audit.0.log.write(Record {
            request: Arc::clone(&self.request),
            stage,
            at: Timestamp::now(),
            status: status.map(|status| status.as_u16()),
            failure: self.failure.clone(),
            impersonated: self.impersonated.clone(),
            request_object: self.request_object.clone().filter(|_| with_request).map(Object),
            response_object: response.map(Object),
            annotations: self.annotations.get(),
        });
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.done || self.request.user.is_none() {
            return;
        }
        let answer = self.answer.take();
        let (status, response) = answer.map_or((None, None), |(status, response)| (Some(status), response));
        if status.is_none() && self.long_running {
            self.note(Stage::ResponseStarted, None, None);
        }
        self.note(Stage::ResponseComplete, status, response);
    }
}

/// The bytes of an object that an event holds as long as it is queued.
fn held(content: Option<&Object>) -> usize {
    content.map_or(0, |object| object.0.bytes.iter().map(Bytes::len).sum())
}
