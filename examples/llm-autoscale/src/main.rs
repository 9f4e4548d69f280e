//! A server that behaves like one for a language model, without the model: requests wait in a queue for a free slot, and
//! each takes as long as its tokens do. What it knows of its own load it tells at `/metrics`.
//!
//! | path | what it does |
//! |---|---|
//! | `/v1/completions?tokens=N` | waits for a slot, then so long as `N` tokens take (32 if it does not say) |
//! | `/metrics` | `qps`, `queue_length`, `pending_tokens`, `kv_cache_usage`, `requests_total` |
//! | `/healthz` | `ok` |
//!
//! The environment: `PORT` (8080), `SLOTS` (1), `TOKEN_MS` (10), `CACHE_TOKENS` (2048). Standard library only.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// So many requests may wait; more are turned away.
const MOST_WAITING: usize = 512;
/// `qps` is the mean over this time.
const QPS_WINDOW: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const LONGEST_HEAD: u64 = 16 * 1024;

struct Server {
    slots: usize,
    token: Duration,
    cache_tokens: u64,
    load: Mutex<Load>,
    freed: Condvar,
}

/// What goes on.
#[derive(Default)]
struct Load {
    running: usize,
    waiting: usize,
    pending_tokens: u64,
    requests: u64,
    finished: VecDeque<Instant>,
}

impl Load {
    fn metrics(&mut self, cache_tokens: u64, now: Instant) -> String {
        while self.finished.front().is_some_and(|then| now.duration_since(*then) > QPS_WINDOW) {
            self.finished.pop_front();
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (qps, cache) = (
            self.finished.len() as f64 / QPS_WINDOW.as_secs_f64(),
            (self.pending_tokens as f64 / cache_tokens as f64).min(1.0),
        );
        format!(
            "# HELP qps Requests answered per second.\n# TYPE qps gauge\nqps {qps}\n\
             # HELP queue_length Requests that wait for a slot.\n# TYPE queue_length gauge\nqueue_length {}\n\
             # HELP pending_tokens Tokens of all requests that are not answered.\n# TYPE pending_tokens gauge\n\
             pending_tokens {}\n\
             # HELP kv_cache_usage Part of the cache in use, 0 to 1.\n# TYPE kv_cache_usage gauge\n\
             kv_cache_usage {cache}\n\
             # HELP requests_total Requests so far.\n# TYPE requests_total counter\nrequests_total {}\n",
            self.waiting, self.pending_tokens, self.requests
        )
    }
}

impl Server {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a slot and works; false when too many wait already.
    fn complete(&self, tokens: u64) -> bool {
        let mut load = self.load();
        load.requests += 1;
        if load.waiting >= MOST_WAITING {
            return false;
        }
        load.waiting += 1;
        load.pending_tokens += tokens;
        while load.running >= self.slots {
            load = self.freed.wait(load).unwrap_or_else(PoisonError::into_inner);
        }
        load.waiting -= 1;
        load.running += 1;
        drop(load);
        thread::sleep(self.token.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX)));
        let mut load = self.load();
        load.running -= 1;
        load.pending_tokens -= tokens;
        load.finished.push_back(Instant::now());
        self.freed.notify_one();
        true
    }

    fn answer(&self, target: &str) -> (&'static str, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            "/metrics" => ("200 OK", self.load().metrics(self.cache_tokens, Instant::now())),
            "/v1/completions" => {
                let tokens = query.split('&').find_map(|pair| pair.strip_prefix("tokens=")?.parse().ok());
                let tokens = tokens.unwrap_or(32).min(4096);
                match self.complete(tokens) {
                    true => ("200 OK", format!("{{\"tokens\":{tokens}}}\n")),
                    false => ("503 Service Unavailable", "too many wait\n".to_owned()),
                }
            }
            _ => ("404 Not Found", "not found\n".to_owned()),
        }
    }

    /// One request, one answer, and the end of the connection.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut head = BufReader::new(stream.take(LONGEST_HEAD));
        let mut first = String::new();
        head.read_line(&mut first)?;
        let mut line = String::new();
        while head.read_line(&mut line)? > 2 {
            line.clear();
        }
        let target = first.split_whitespace().nth(1).unwrap_or("/");
        let (status, body) = self.answer(target);
        let length = body.len();
        let mut stream = stream;
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default).max(1)
}

fn main() -> io::Result<()> {
    let server = Arc::new(Server {
        slots: usize::try_from(setting("SLOTS", 1)).unwrap_or(1),
        token: Duration::from_millis(setting("TOKEN_MS", 10)),
        cache_tokens: setting("CACHE_TOKENS", 2048),
        load: Mutex::default(),
        freed: Condvar::new(),
    });
    let port = u16::try_from(setting("PORT", 8080)).map_err(io::Error::other)?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    for stream in listener.incoming().flatten() {
        let server = Arc::clone(&server);
        let spawned = thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            // A client that left needs no answer.
            let _ = server.serve(&stream);
        });
        // Without a thread the client sees its connection closed, and comes again.
        drop(spawned);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_told() {
        let mut load = Load { running: 1, waiting: 3, pending_tokens: 128, requests: 9, finished: VecDeque::new() };
        load.finished.extend([Instant::now(); 5]);
        let text = load.metrics(256, Instant::now());
        for line in ["qps 0.5", "queue_length 3", "pending_tokens 128", "kv_cache_usage 0.5", "requests_total 9"] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
