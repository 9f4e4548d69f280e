//! Priority and fairness: how many requests the server works on at once, and whose turn it is (KEP-1040).
//!
//! | module | what it is |
//! |---|---|
//! | [`flow_schema`] | which FlowSchema a request matches |
//! | [`priority_level`] | the seats of each PriorityLevelConfiguration, those of its own and those it borrows |
//! | [`queue_set`] | requests that wait for a seat, in queues that get their turns fairly |
//! | [`shuffle_sharding`] | which queues a flow may wait in |
//! | [`work_estimator`] | how many seats a request takes |
//! | [`dump`] | what they are at, for people |
//! | [`controller`] | follows the objects, keeps those that every cluster has, and says in their status which level is missing |
//!
//! Requests over the network pass it. Components in this process do not: what they do at once is bounded by themselves, and one
//! that waited behind a client's requests would hold up what makes room for these. As upstream, what lasts (`exec`, `attach`,
//! `portforward`, `proxy`, `log`) passes beside it, and a watch has its seat only until it has begun.
//!
//! A seat is for work, not for waiting for a client. Other than upstream, who may not is refused and a body is read before a
//! request takes its seats, and it gives them back with the head of its response where the rest costs nothing: a client that sends
//! or reads slowly would take them from all others of its level.
//!
//! Further deviations: a level borrows at once what others lend and do not use (upstream computes the limits anew every ten seconds), and
//! queues are served by the number of seats that were given, not by the time that these were taken.

mod controller;
mod dump;
mod flow_schema;
mod metrics;
mod priority_level;
mod queue_set;
mod shuffle_sharding;
mod work_estimator;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use machinery::status::ApiError;
use prometheus_client::collector::Collector;
use registry::Registry;
use store::Store;

use crate::authz::Attributes;
pub(crate) use dump::Dump;
use dump::RequestInfo;
use flow_schema::{FlowSchema, Table};
use metrics::Metrics;
pub(crate) use priority_level::Seat;

const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// After how many seconds somebody who was rejected may try again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// How a list or a watch was asked for, as far as it says what it costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ListOptions {
    /// At most so many objects; 0 is all.
    pub(crate) limit: u64,
    /// Whether a watch begins with what is there.
    pub(crate) send_initial_events: bool,
}

/// Priority and fairness of a server.
pub(crate) struct FlowControl {
    store: Store,
    /// How many seats there are.
    seats: u32,
    table: Arc<ArcSwap<Table>>,
    metrics: Metrics,
}

impl FlowControl {
    /// With what is stored of the objects now, and `seats` for requests that are not exempt.
    pub(crate) fn new(store: &Store, seats: u32) -> Self {
        let metrics = Metrics::default();
        let table = Table::new(store, seats, None, &metrics);
        Self { store: store.clone(), seats, table: Arc::new(ArcSwap::from_pointee(table)), metrics }
    }

    /// Takes in what has become of the objects.
    pub(crate) fn reload(&self) {
        let before = self.table.load_full();
        let table = Arc::new(Table::new(&self.store, self.seats, Some(&before), &self.metrics));
        self.table.store(Arc::clone(&table));
        for gone in before.metrics().filter(|gone| !table.metrics().any(|there| there.is_same(gone))) {
            self.metrics.forget(gone);
        }
    }

    /// Follows the objects; ends with the task.
    pub(crate) async fn run(&self, registry: &Registry) {
        controller::run(self, registry).await;
    }

    /// What `/metrics` says of it.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        self.metrics.collector(Arc::clone(&self.table))
    }

    /// The flow that a request belongs to.
    ///
    /// # Errors
    /// 429 when it belongs to none: the mandatory schemas are always there, and without them nothing would be let in.
    pub(crate) fn classify(&self, attributes: &Attributes<'_>) -> Result<Flow, ApiError> {
        let table = self.table.load();
        let schema = table.classify(attributes).cloned().ok_or_else(too_many_requests)?;
        Ok(Flow { hash: table.flow(&schema, attributes), schema })
    }

    /// Waits for the seats that a request of a flow takes, at most for `patience`.
    ///
    /// # Errors
    /// 429 when it has waited long enough, or may not wait.
    pub(crate) async fn acquire(
        &self,
        flow: &Flow,
        attributes: &Attributes<'_>,
        options: &ListOptions,
        patience: Duration,
    ) -> Result<Seat, ApiError> {
        let Flow { schema, hash } = flow;
        let width = work_estimator::width(&self.store, attributes, options, schema.level().max_width());
        let started = Instant::now();
        let request = || RequestInfo::new(schema, attributes);
        Seat::acquire(schema, *hash, width, patience, request).await.map_err(|rejection| {
            schema.metrics.rejected(rejection.reason(), started.elapsed());
            too_many_requests()
        })
    }
}

fn too_many_requests() -> ApiError {
    ApiError::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS)
}

/// A flow: the requests of a schema that its distinguisher does not tell apart.
#[derive(Debug)]
pub(crate) struct Flow {
    schema: Arc<FlowSchema>,
    hash: u64,
}

impl Flow {
    /// Whether its requests are let in whatever others do.
    pub(crate) fn is_exempt(&self) -> bool {
        self.schema.level().is_exempt()
    }

    /// Says in a response how its request was classified. The names stay the administrator's secret, as upstream has it.
    pub(crate) fn set_headers(&self, headers: &mut HeaderMap<HeaderValue>) {
        headers.insert(FLOW_SCHEMA_UID, self.schema.uid.clone());
        headers.insert(PRIORITY_LEVEL_UID, self.schema.level().uid.clone());
    }
}
