//! A container's log, read through Docker's API.

use std::future::ready;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use http_body_util::BodyDataStream;
use jiff::Timestamp;
use runtime::Error;
use streaming::{LogChunks, LogOptions, LogStream};
use tokio_util::codec::FramedRead;
use tokio_util::io::StreamReader;

use crate::Docker;
use crate::stdcopy::{Source, StdcopyDecoder};

/// Opens the log.
pub(crate) async fn open(docker: &Docker, id: &str, options: &LogOptions) -> Result<LogChunks, Error> {
    let tty = docker.terminal(id).await?;
    let path = format!("/containers/{id}/logs?{}", query(options, SystemTime::now())?);
    let response = docker.transport().send(Method::GET, &path, Bytes::new(), false).await?;
    let body = BodyDataStream::new(response.into_body()).map_err(io::Error::other);
    let mut note: Box<dyn FnMut(Source, usize) + Send> =
        match docker.attachments().logged(id).filter(|_| is_whole(options)) {
            Some(logged) => Box::new(logged.reader()),
            None => Box::new(|_, _| {}),
        };
    let chunks = if tty {
        body.inspect_ok(move |data| note(Source::Stdout, data.len())).boxed()
    } else {
        let mut lines = Lines::new(options.timestamps);
        FramedRead::new(StreamReader::new(body), StdcopyDecoder)
            .map_ok(move |(source, data)| {
                note(source, data.len());
                lines.clean(source, data)
            })
            .boxed()
    };
    Ok(match options.limit_bytes {
        Some(limit) => limited(chunks, u64::try_from(limit).unwrap_or(0)),
        None => chunks,
    })
}

/// Whether all that the container has said so far is wanted, as it said it.
fn is_whole(options: &LogOptions) -> bool {
    *options == LogOptions { follow: options.follow, ..LogOptions::default() }
}

/// The part of the request that says what is wanted.
fn query(options: &LogOptions, now: SystemTime) -> Result<String, Error> {
    let wants = |stream| u8::from(options.stream == LogStream::All || options.stream == stream);
    let mut query = format!(
        "stdout={}&stderr={}&follow={}&timestamps={}",
        wants(LogStream::Stdout),
        wants(LogStream::Stderr),
        u8::from(options.follow),
        u8::from(options.timestamps),
    );
    let since = match (&options.since_time, options.since_seconds) {
        (Some(text), _) => {
            let time: Timestamp =
                text.parse().map_err(|_| Error::Invalid(format!("{text:?} is not an RFC 3339 time")))?;
            Some(u128::try_from(time.as_nanosecond()).unwrap_or(0))
        }
        (None, Some(seconds)) => {
            let age = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            let time = now.checked_sub(age).unwrap_or(UNIX_EPOCH);
            Some(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos())
        }
        (None, None) => None,
    };
    if let Some(nanos) = since {
        let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        query += &format!("&since={seconds}.{fraction:09}");
    }
    if let Some(tail) = options.tail_lines {
        query += &format!("&tail={}", tail.max(0));
    }
    Ok(query)
}

/// Docker stores long lines in pieces of 16 KB and puts a time before each piece; only the first one of a line belongs there.
struct Lines {
    timestamps: bool,
    /// Whether standard output and standard error are in the middle of a line.
    within: [bool; 2],
}

impl Lines {
    fn new(timestamps: bool) -> Self {
        Self { timestamps, within: [false; 2] }
    }

    fn clean(&mut self, source: Source, data: Bytes) -> Bytes {
        if !self.timestamps || data.is_empty() {
            return data;
        }
        let within = &mut self.within[usize::from(source == Source::Stderr)];
        let was_within = std::mem::replace(within, !data.ends_with(b"\n"));
        match data.iter().position(|byte| *byte == b' ') {
            Some(space) if was_within => data.slice(space + 1..),
            _ => data,
        }
    }
}

/// The stream up to so many bytes.
fn limited(chunks: LogChunks, limit: u64) -> LogChunks {
    stream::unfold((chunks, limit), |(mut chunks, left)| async move {
        if left == 0 {
            return None;
        }
        let chunk = chunks.next().await?;
        let (chunk, left) = match chunk {
            Ok(mut data) => {
                data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                let rest = left - data.len() as u64;
                (Ok(data), rest)
            }
            Err(error) => (Err(error), 0),
        };
        Some((chunk, (chunks, left)))
    })
    .filter(|chunk| ready(!matches!(chunk, Ok(data) if data.is_empty())))
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now = UNIX_EPOCH + Duration::from_millis(10_500);
        let cases = [
            (LogOptions::default(), "stdout=1&stderr=1&follow=0&timestamps=0"),
            (
                LogOptions {
                    follow: true,
                    timestamps: true,
                    stream: LogStream::Stderr,
                    tail_lines: Some(5),
                    ..LogOptions::default()
                },
                "stdout=0&stderr=1&follow=1&timestamps=1&tail=5",
            ),
            (
                LogOptions { since_seconds: Some(10), ..LogOptions::default() },
                "stdout=1&stderr=1&follow=0&timestamps=0&since=0.500000000",
            ),
            (
                LogOptions { since_seconds: Some(i64::MAX), ..LogOptions::default() },
                "stdout=1&stderr=1&follow=0&timestamps=0&since=0.000000000",
            ),
            (
                LogOptions { since_time: Some("1970-01-01T01:00:01.5+01:00".to_owned()), ..LogOptions::default() },
                "stdout=1&stderr=1&follow=0&timestamps=0&since=1.500000000",
            ),
        ];
        for (options, expect) in cases {
            assert_eq!(query(&options, now).unwrap(), expect);
        }
        let wrong = LogOptions { since_time: Some("yesterday".to_owned()), ..LogOptions::default() };
        assert!(query(&wrong, now).is_err());
    }

    #[test]
    fn one_time_per_line() {
        let mut lines = Lines::new(true);
        let mut clean = |source, text: &'static str| lines.clean(source, text.into());
        assert_eq!(clean(Source::Stdout, "T1 begin"), "T1 begin");
        assert_eq!(clean(Source::Stderr, "T2 other\n"), "T2 other\n");
        assert_eq!(clean(Source::Stdout, "T3  and end\n"), " and end\n");
        assert_eq!(clean(Source::Stdout, "T4 next\n"), "T4 next\n");
        assert_eq!(Lines::new(false).clean(Source::Stdout, "a b".into()), "a b");
    }

    #[tokio::test]
    async fn limits() {
        for (limit, expect) in [(0, ""), (3, "abc"), (4, "abcd"), (9, "abcdef")] {
            let chunks = stream::iter([Ok(Bytes::from("abc")), Ok(Bytes::from("def"))]).boxed();
            let got: Vec<Bytes> = limited(chunks, limit).try_collect().await.unwrap();
            assert_eq!(got.concat(), expect.as_bytes(), "{limit}");
        }
    }
}
