//! Answers of the machine's resolvers, kept for as long as they may be, within a bound of memory.
//!
//! Bounded by bytes rather than by number: who owns a domain can make each answer of it 64 KiB long.

use std::time::{Duration, Instant};

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, Record, RecordType};
use moka::Expiry;
use moka::sync::Cache;

/// Memory for all answers that are kept, in bytes.
const BYTES: u64 = 8 << 20;
/// What an entry takes beside its records.
const ENTRY: usize = 256;

/// The key: a name, which compares without regard to case, and a type.
type Key = (Name, RecordType);

/// The cache. What is asked for once only does not drive out what is asked for often (TinyLFU).
pub(crate) struct AnswerCache(Cache<Key, Entry>);

#[derive(Clone)]
struct Entry {
    answer: Forwarded,
    received: Instant,
    lifetime: Duration,
}

struct Lifetime;

impl Expiry<Key, Entry> for Lifetime {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(&self, _: &Key, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

impl AnswerCache {
    pub(crate) fn new() -> Self {
        Self::with_capacity(BYTES)
    }

    fn with_capacity(bytes: u64) -> Self {
        let weigh = |_: &Key, entry: &Entry| entry.answer.size().saturating_add(ENTRY).try_into().unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(bytes).weigher(weigh).expire_after(Lifetime).build())
    }

    /// The answer, its times to live reduced by the time that it lay here.
    pub(crate) fn get(&self, name: &Name, record_type: RecordType) -> Option<Forwarded> {
        let Entry { mut answer, received, lifetime } = self.0.get(&(name.clone(), record_type))?;
        let age = received.elapsed();
        if age >= lifetime {
            return None;
        }
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for record in answer.answers.iter_mut().chain(&mut answer.authority) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        Some(answer)
    }

    /// Keeps an answer for so long.
    pub(crate) fn insert(&self, name: Name, record_type: RecordType, answer: Forwarded, lifetime: Duration) {
        if !lifetime.is_zero() {
            self.0.insert((name, record_type), Entry { answer, received: Instant::now(), lifetime });
        }
    }
}

/// What the machine's resolvers said.
#[derive(Debug, Clone)]
pub(crate) struct Forwarded {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    /// In a negative answer: how long it may be kept.
    pub(crate) authority: Option<Record>,
}

impl Forwarded {
    /// The memory that it takes, roughly: long names and texts lie beside the record itself.
    fn size(&self) -> usize {
        let record = |record: &Record| size_of::<Record>() + record.name.len() + record.data.to_string().len();
        self.answers.iter().chain(&self.authority).map(record).sum()
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::rr::RData;
    use hickory_server::proto::rr::rdata::TXT;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn answer(name: &Name, bytes: usize) -> Forwarded {
        let text = TXT::new(vec!["x".repeat(200); bytes / 200]);
        let answers = vec![Record::from_rdata(name.clone(), 60, RData::TXT(text))];
        Forwarded { code: ResponseCode::NoError, answers, authority: None }
    }

    #[test]
    fn its_memory_is_bounded() {
        let cache = AnswerCache::with_capacity(1 << 20);
        for number in 0..1000 {
            let name = name(&format!("n{number}.example.org."));
            cache.insert(name.clone(), RecordType::TXT, answer(&name, 60_000), Duration::from_secs(60));
        }
        cache.0.run_pending_tasks();
        assert!(cache.0.weighted_size() <= 1 << 20, "{}", cache.0.weighted_size());
        assert!((1..=17).contains(&cache.0.entry_count()), "{}", cache.0.entry_count());
    }

    #[test]
    fn names_compare_without_regard_to_case() {
        let cache = AnswerCache::new();
        let (lower, mixed) = (name("a.example.org."), name("A.Example.ORG."));
        cache.insert(mixed, RecordType::TXT, answer(&lower, 200), Duration::from_secs(60));
        assert!(cache.get(&lower, RecordType::TXT).is_some());
        assert!(cache.get(&lower, RecordType::A).is_none());
        cache.insert(name("b.example.org."), RecordType::TXT, answer(&lower, 200), Duration::ZERO);
        assert!(cache.get(&name("b.example.org."), RecordType::TXT).is_none());
    }
}
