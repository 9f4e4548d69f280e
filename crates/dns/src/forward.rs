//! Everything that is not the cluster's: asked of the machine's own resolvers, and cached.
//!
//! A machine may itself be told to ask this server (so that a person's programs find the cluster's names too). It is left out
//! where the machine's configuration names it: a question that it asked itself would go round for ever. One that comes back
//! by way of another resolver is still being asked, and waits for the answer to itself until that is given up.
//!
//! How many questions wait for an answer is bounded, and shared fairly among those who ask: a question takes descriptors,
//! and one pod must not use up those of the whole process. Beyond the bound a question is refused, as CoreDNS does
//! (`plugin/forward`, `max_concurrent`). The resolver asks a question that is in flight already only once.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::net::{DnsError, NetError};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, RecordType};
use tracing::debug;

use crate::cache::{AnswerCache, Forwarded};
use crate::slots::Slots;

/// Longest time to wait for one answer. CoreDNS: `plugin/pkg/proxy/proxy.go`, `readTimeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time that an answer is kept, whatever it says of itself.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The machine's resolvers. Their configuration is read anew when it changes: a laptop moves between networks.
pub(crate) struct Forwarder {
    path: PathBuf,
    /// Where the resolvers listen.
    port: u16,
    /// Where this server listens.
    own: Vec<SocketAddr>,
    current: ArcSwap<Current>,
    /// For the questions that wait for an answer.
    questions: Slots,
}

/// One configuration: the resolvers, and what they answered. Both go together, so that an answer of earlier resolvers is
/// never given for one of the present ones, however late it comes.
struct Current {
    written: Option<SystemTime>,
    resolver: Option<TokioResolver>,
    cache: AnswerCache,
}

impl Forwarder {
    /// Asks the resolvers that the file at `path` names, at `port`, without those that are this server; `limit` questions
    /// at a time.
    pub(crate) fn new(path: PathBuf, port: u16, own: Vec<SocketAddr>, limit: usize) -> Self {
        let none = Current { written: None, resolver: None, cache: AnswerCache::new() };
        Self { path, port, own, current: ArcSwap::from_pointee(none), questions: Slots::new(limit) }
    }

    /// Asks for records of one type on behalf of a client; `SERVFAIL` when nobody can be asked, `REFUSED` when too many
    /// questions of this client wait for an answer already.
    pub(crate) async fn ask(&self, name: Name, query_type: RecordType, client: IpAddr) -> Forwarded {
        let failed = |code| Forwarded { code, answers: Vec::new(), authority: None };
        let current = self.current();
        let Some(resolver) = &current.resolver else {
            return failed(ResponseCode::ServFail);
        };
        if let Some(known) = current.cache.get(&name, query_type) {
            return known;
        }
        let Some(_slot) = self.questions.take(client) else {
            return failed(ResponseCode::Refused);
        };
        match resolver.lookup(name.clone(), query_type).await {
            Ok(lookup) => {
                let answers = lookup.answers().to_vec();
                let lifetime = answers.iter().map(|record| record.ttl).min().unwrap_or_default();
                let answer = Forwarded { code: ResponseCode::NoError, answers, authority: None };
                current.keep(name, query_type, &answer, lifetime);
                answer
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                let lifetime = nothing.negative_ttl.unwrap_or_default();
                let authority = nothing.soa.map(|soa| soa.into_record_of_rdata());
                let answer = Forwarded { code: nothing.response_code, answers: Vec::new(), authority };
                current.keep(name, query_type, &answer, lifetime);
                answer
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => failed(code),
            Err(error) => {
                debug!(%error, "the machine's resolvers do not answer");
                failed(ResponseCode::ServFail)
            }
        }
    }

    /// What the file says now.
    fn current(&self) -> Arc<Current> {
        let written = std::fs::metadata(&self.path).and_then(|file| file.modified()).ok();
        let current = self.current.load_full();
        if current.written == written && current.resolver.is_some() {
            return current;
        }
        let resolver = self.read();
        if resolver.is_none() && current.resolver.is_none() {
            // There was none, and nothing in the cache.
            return current;
        }
        let new = Arc::new(Current { written, resolver, cache: AnswerCache::new() });
        self.current.store(Arc::clone(&new));
        new
    }

    fn read(&self) -> Option<TokioResolver> {
        let text = std::fs::read(&self.path).ok()?;
        let (config, mut options) = parse_resolv_conf(text).ok()?;
        let mut servers = config.name_servers().to_vec();
        servers.retain_mut(|server| self.is_other(server));
        if servers.is_empty() {
            return None;
        }
        // Search lists are the asker's business, and so is what stands in the machine's own /etc/hosts.
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        options.use_hosts_file = ResolveHosts::Never;
        // A CNAME on the way is part of the answer.
        options.preserve_intermediates = true;
        // They are kept here, where the bound is one of memory.
        options.cache_size = 0;
        options.edns0 = true;
        options.timeout = options.timeout.min(ANSWER_TIMEOUT);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        builder.build().inspect_err(|error| debug!(%error, "no resolver")).ok()
    }

    /// Sets the port of a resolver; false if it is this server.
    fn is_other(&self, server: &mut NameServerConfig) -> bool {
        server.connections.iter_mut().for_each(|connection| connection.port = self.port);
        let itself = |own: &SocketAddr| {
            let everywhere = own.ip().is_unspecified() && server.ip.is_loopback();
            own.port() == self.port && (own.ip() == server.ip || everywhere)
        };
        !self.own.iter().any(itself)
    }
}

impl Current {
    /// Keeps an answer for so many seconds.
    fn keep(&self, name: Name, query_type: RecordType, answer: &Forwarded, seconds: u32) {
        let lifetime = Duration::from_secs(seconds.into()).min(MAX_LIFETIME);
        self.cache.insert(name, query_type, answer.clone(), lifetime);
    }
}
