//! Watch: events as lines of JSON or frames of protobuf, as many at once as there are.

mod slots;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use machinery::status::ApiError;
use rand::RngExt;
use registry::{FrameEncoding, Registry, Selection, VersionMatch, Watch, WatchEvent, WatchKind, WatchRequest};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Call;
use super::table::{self, Include};
use crate::body::ResponseBody;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::negotiate::{self, Encoding, Shape};
use crate::protobuf;
use crate::respond::{self, Answer};

/// How long a watch lasts whose client does not say: between half an hour and a whole one, by chance, so that not all
/// clients come back at once.
const LIFETIME: std::ops::Range<u64> = 1800..3600;

pub(crate) use slots::Slots;

/// Frames are gathered into pieces of about this size: a frame of HTTP/2, a record of TLS. Of a client that reads nothing, one or
/// two are kept.
const PIECE: usize = 16 * 1024;

/// What watches work with: they are counted, and end with the server.
pub(crate) struct Watches {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) slots: Arc<Slots>,
}

pub(super) async fn watch(call: &Call<'_>, watches: &Watches) -> Result<Answer, ApiError> {
    let output = negotiate::output(&call.parts.headers, call.objects())?;
    let (encoding, content_type) = match output.encoding {
        Encoding::Json => (FrameEncoding::Json, "application/json"),
        Encoding::Protobuf => (FrameEncoding::Protobuf, "application/vnd.kubernetes.protobuf;stream=watch"),
        Encoding::Yaml => return Err(ApiError::not_acceptable(&["application/json", protobuf::MEDIA_TYPE])),
    };
    if watches.lifecycle.is_stopping() {
        // The watch would end at once, and its client come back at once.
        return Err(ApiError::service_unavailable("the server is shutting down"));
    }
    let slot = watches.slots.take(&call.user.name)?;
    let query = call.query;
    let request = WatchRequest {
        selection: Selection::parse(query.text("labelSelector"), query.text("fieldSelector"))?,
        resource_version: query.text("resourceVersion").to_owned(),
        version_match: VersionMatch::parse(query.text("resourceVersionMatch"))?,
        send_initial_events: query.optional_flag("sendInitialEvents"),
        allow_bookmarks: query.flag("allowWatchBookmarks"),
        timeout: Some(lifetime(query.integer("timeoutSeconds")?)),
    };
    let form = match output.shape {
        Shape::Object | Shape::Discovery(_) => Form::Object,
        Shape::Metadata(_) => Form::Metadata,
        Shape::Table => Form::Table { include: Include::of(query)?, begun: false },
    };
    let frames = Frames {
        registry: call.registry.clone(),
        watch: call.registry.watch(&call.target, &request).await?,
        form,
        encoding,
        pending: Vec::new().into_iter(),
        stopping: watches.lifecycle.stopping.clone(),
        failed: false,
        _counted: (watches.metrics.watch(), slot),
    };
    let frames = stream::unfold(frames, |mut frames| async { Some((frames.next().await?, frames)) });
    Ok(respond::with_type(StatusCode::OK, content_type, ResponseBody::stream(frames)))
}

fn lifetime(asked: Option<i64>) -> Duration {
    let seconds = asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    Duration::from_secs(seconds.unwrap_or_else(|| rand::rng().random_range(LIFETIME)))
}

/// What an event's object is shown as.
enum Form {
    Object,
    Metadata,
    /// Only the first Table has columns.
    Table {
        include: Include,
        begun: bool,
    },
}

struct Frames<G> {
    registry: Registry,
    watch: Watch,
    form: Form,
    encoding: FrameEncoding,
    pending: std::vec::IntoIter<WatchEvent>,
    stopping: CancellationToken,
    /// An event could not be shown, which was the last thing said.
    failed: bool,
    _counted: G,
}

impl<G> Frames<G> {
    /// The next frames in one piece; `None` at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.failed {
            return None;
        }
        if self.pending.len() == 0 {
            let batch = tokio::select! {
                biased;
                () = self.stopping.cancelled() => None,
                batch = self.watch.next() => batch,
            };
            self.pending = batch?.into_iter();
        }
        let first = self.pending.next()?;
        let mut piece = self.frame_or_failure(&first);
        if self.pending.len() > 0 {
            let mut frames = Vec::with_capacity(PIECE.max(piece.len()));
            frames.extend_from_slice(&piece);
            while frames.len() < PIECE
                && !self.failed
                && let Some(event) = self.pending.next()
            {
                frames.extend_from_slice(&self.frame_or_failure(&event));
            }
            piece = frames.into();
        }
        Some(Ok(piece))
    }

    /// An event; or, as upstream ends a watch when a webhook cannot convert an object, why there is none.
    fn frame_or_failure(&mut self, event: &WatchEvent) -> Bytes {
        self.frame(event).unwrap_or_else(|error| {
            self.failed = true;
            encode(self.encoding, WatchKind::Error, &error.to_status().to_string().into_bytes()).unwrap_or_default()
        })
    }

    fn frame(&mut self, event: &WatchEvent) -> Result<Bytes, ApiError> {
        let object = match &mut self.form {
            form if event.kind == WatchKind::Error || matches!(form, Form::Object) => {
                let encoding = self.encoding;
                return event.encoded(self.watch.resource(), encoding, |kind, object| encode(encoding, kind, object));
            }
            Form::Object | Form::Metadata => self.registry.partial_metadata(&event.object),
            Form::Table { include, begun } => {
                let metadata = json!({ "resourceVersion": table::resource_version(&event.object) });
                let mut table = table::Writer::new(&self.registry, self.watch.resource(), *include);
                table.begin(&metadata, !std::mem::replace(begun, true))?;
                if event.kind != WatchKind::Bookmark {
                    table.row(&event.object)?;
                }
                table.end()
            }
        };
        encode(self.encoding, event.kind, &object)
    }
}

/// An event as one frame.
fn encode(encoding: FrameEncoding, kind: WatchKind, object: &[u8]) -> Result<Bytes, ApiError> {
    match encoding {
        FrameEncoding::Json => Ok(registry::watch::line(kind, object)),
        FrameEncoding::Protobuf => protobuf::watch_event(kind.as_str(), object).map_err(ApiError::internal),
    }
}
