//! Watch: events as lines of JSON, as many at once as there are.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use machinery::status::ApiError;
use rand::RngExt;
use registry::{Registry, Selection, VersionMatch, Watch, WatchEvent, WatchKind, WatchRequest};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Call;
use super::table::{self, Include};
use crate::body::ResponseBody;
use crate::negotiate::{self, Encoding, Offer, Shape};
use crate::respond::{self, Answer};

/// How long a watch lasts whose client does not say: between half an hour and a whole one, by chance, so that not all
/// clients come back at once.
const LIFETIME: std::ops::Range<u64> = 1800..3600;

/// Events are gathered into frames of about this size.
const FRAME: usize = 64 * 1024;

pub(super) async fn watch(call: &Call<'_>) -> Result<Answer, ApiError> {
    let output = negotiate::output(&call.parts.headers, Offer::Objects)?;
    if output.encoding != Encoding::Json {
        return Err(ApiError::not_acceptable(&[Encoding::Json.content_type()]));
    }
    if call.server.is_stopping() {
        // The watch would end at once, and its client come back at once.
        return Err(ApiError::service_unavailable("the server is shutting down"));
    }
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
        Shape::Metadata => Form::Metadata,
        Shape::Table => Form::Table { include: Include::of(query)?, begun: false },
    };
    let frames = Frames {
        registry: call.registry().clone(),
        watch: call.registry().watch(&call.target, &request).await?,
        form,
        pending: Vec::new().into_iter(),
        stopping: call.server.0.stopping.clone(),
        failed: false,
        _counted: call.server.0.metrics.watch(),
    };
    let frames = stream::unfold(frames, |mut frames| async { Some((frames.next().await?, frames)) });
    Ok(respond::with_type(StatusCode::OK, Encoding::Json.content_type(), ResponseBody::stream(frames)))
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
    pending: std::vec::IntoIter<WatchEvent>,
    stopping: CancellationToken,
    /// An event could not be shown, which was the last thing said.
    failed: bool,
    _counted: G,
}

impl<G> Frames<G> {
    /// The next lines; `None` at the end.
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
        let mut frame = self.line_or_failure(&first);
        if self.pending.len() > 0 {
            let mut lines = Vec::with_capacity(FRAME.max(frame.len()));
            lines.extend_from_slice(&frame);
            while lines.len() < FRAME
                && !self.failed
                && let Some(event) = self.pending.next()
            {
                lines.extend_from_slice(&self.line_or_failure(&event));
            }
            frame = lines.into();
        }
        Some(Ok(frame))
    }

    /// An event; or, as upstream ends a watch when a webhook cannot convert an object, why there is none.
    fn line_or_failure(&mut self, event: &WatchEvent) -> Bytes {
        self.line(event).unwrap_or_else(|error| {
            self.failed = true;
            Bytes::from(json!({ "type": "ERROR", "object": error.to_status() }).to_string() + "\n")
        })
    }

    fn line(&mut self, event: &WatchEvent) -> Result<Bytes, ApiError> {
        let object = match &mut self.form {
            _ if event.kind == WatchKind::Error => return event.frame(self.watch.resource()),
            Form::Object => return event.frame(self.watch.resource()),
            Form::Metadata => self.registry.partial_metadata(&event.object),
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
        let mut line = Vec::with_capacity(object.len() + 40);
        line.extend_from_slice(br#"{"type":""#);
        line.extend_from_slice(event.kind.as_str().as_bytes());
        line.extend_from_slice(br#"","object":"#);
        line.extend_from_slice(&object);
        line.extend_from_slice(b"}\n");
        Ok(line.into())
    }
}
