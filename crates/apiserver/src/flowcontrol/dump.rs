//! What priority and fairness are at, for people: `/debug/api_priority_and_fairness/dump_*` (upstream: apiserver
//! `pkg/util/flowcontrol/apf_controller_debug.go`).
//!
//! Nothing is noted of a request that need not wait, so that the requests shown are those that wait, and no queue says what of it
//! is executing (`<none>`).

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;

use super::FlowControl;
use super::flow_schema::{FlowSchema, Table};
use super::metrics::Counts;
use super::priority_level::PriorityLevel;
use crate::authz::{Attributes, Target};

/// What cannot be told.
const NONE: &str = "<none>";
/// The least width of a column; one space follows the widest cell.
const WIDTH_MIN: usize = 8;
/// Go's zero time: a request that waits has not started.
const NOT_STARTED: &str = "0001-01-01T00:00:00Z";

/// What is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dump {
    /// A row for each priority level.
    PriorityLevels,
    /// A row for each queue.
    Queues,
    /// A row for each request that waits.
    Requests,
}

impl Dump {
    /// The dump at what follows `/debug/api_priority_and_fairness/`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Some(match name {
            "dump_priority_levels" => Self::PriorityLevels,
            "dump_queues" => Self::Queues,
            "dump_requests" => Self::Requests,
            _ => return None,
        })
    }
}

/// A request that waits, as it is shown.
#[derive(Debug, Default)]
pub(super) struct RequestInfo {
    flow_schema: String,
    distinguisher: String,
    arrived: Timestamp,
    user: String,
    verb: String,
    path: String,
    namespace: String,
    name: String,
    api_version: String,
    resource: String,
    subresource: String,
}

impl RequestInfo {
    pub(super) fn new(schema: &FlowSchema, attributes: &Attributes<'_>) -> Self {
        let who = Self {
            flow_schema: schema.name().to_owned(),
            distinguisher: schema.distinguisher(attributes).to_owned(),
            arrived: Timestamp::now(),
            user: attributes.user.name.clone(),
            verb: attributes.verb.to_string(),
            ..Self::default()
        };
        match attributes.target {
            Target::Path(path) => Self { path: path.to_owned(), ..who },
            Target::Resource { group, version, resource, subresource, namespace, name } => {
                let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                let mut path = format!("/{}/{api_version}", if group.is_empty() { "api" } else { "apis" });
                let place = if namespace.is_empty() { ["", ""] } else { ["namespaces", namespace] };
                for part in place.into_iter().chain([resource, name, subresource]).filter(|part| !part.is_empty()) {
                    path.push('/');
                    path.push_str(part);
                }
                Self {
                    path,
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    api_version,
                    resource: resource.to_owned(),
                    subresource: subresource.to_owned(),
                    ..who
                }
            }
        }
    }
}

/// A request in its queue.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    pub(super) queue: u32,
    pub(super) index: usize,
    pub(super) width: u32,
    /// What the queue has been given so far, in seats.
    pub(super) virtual_start: u64,
    pub(super) request: Arc<RequestInfo>,
}

impl FlowControl {
    /// The text of a dump; `details` are for that of requests.
    pub(crate) fn dump(&self, dump: Dump, details: bool) -> String {
        let table = self.table.load();
        match dump {
            Dump::PriorityLevels => priority_levels(&table),
            Dump::Queues => queues(&table),
            Dump::Requests => requests(&table, details),
        }
    }
}

fn priority_levels(table: &Table) -> String {
    let head = "PriorityLevelName ActiveQueues IsIdle IsQuiescing WaitingRequests ExecutingRequests DispatchedRequests \
                RejectedRequests TimedoutRequests CancelledRequests";
    let row = |level: &PriorityLevel| {
        let Counts { executing, dispatched, rejected, timed_out, cancelled } = table.counts(level);
        let waiting = level.queued();
        let mut active: Vec<u32> = waiting.iter().map(|waiting| waiting.queue).collect();
        // The requests of a queue are one after the other.
        active.dedup();
        let is_idle = waiting.is_empty() && executing == 0;
        let numbers = [executing, dispatched, rejected, timed_out, cancelled].map(|number| number.to_string());
        let state = [level.name.clone(), active.len().to_string(), is_idle.to_string(), false.to_string()];
        state.into_iter().chain([waiting.len().to_string()]).chain(numbers).collect()
    };
    table_of(head, table.levels().iter().map(row).collect())
}

fn queues(table: &Table) -> String {
    let head = "PriorityLevelName Index PendingRequests ExecutingRequests SeatsInUse NextDispatchR InitialSeatsSum \
                MaxSeatsSum TotalWorkSum";
    let mut rows = Vec::new();
    for level in table.levels().iter() {
        let waiting = level.queued();
        for queue in 0..level.queue_count() {
            let queued = waiting.iter().filter(|waiting| waiting.queue == queue);
            let seats: u32 = queued.clone().map(|waiting| waiting.width).sum();
            let start = queued.clone().next().map_or(0, |waiting| waiting.virtual_start);
            let own = |text: &str| text.to_owned();
            rows.push(vec![
                level.name.clone(),
                queue.to_string(),
                queued.count().to_string(),
                own(NONE),
                own(NONE),
                format!("{start}.00000000ss"),
                seats.to_string(),
                seats.to_string(),
                own(NONE),
            ]);
        }
    }
    table_of(head, rows)
}

fn requests(table: &Table, details: bool) -> String {
    let head = "PriorityLevelName FlowSchemaName QueueIndex RequestIndexInQueue FlowDistingsher ArriveTime InitialSeats \
                FinalSeats AdditionalLatency StartTime";
    let more = " UserName Verb APIPath Namespace Name APIVersion Resource SubResource";
    let head = if details { format!("{head}{more}") } else { head.to_owned() };
    let mut rows = Vec::new();
    for level in table.levels().iter() {
        for QueuedRequest { queue, index, width, request, .. } in level.queued() {
            let request = &*request;
            let mut row = vec![
                level.name.clone(),
                request.flow_schema.clone(),
                queue.to_string(),
                index.to_string(),
                request.distinguisher.clone(),
                request.arrived.to_string(),
                width.to_string(),
                "0".to_owned(),
                "0s".to_owned(),
                NOT_STARTED.to_owned(),
            ];
            if details {
                let RequestInfo { user, verb, path, namespace, name, api_version, resource, subresource, .. } = request;
                row.extend([user, verb, path, namespace, name, api_version, resource, subresource].map(String::clone));
            }
            rows.push(row);
        }
    }
    table_of(&head, rows)
}

/// Columns that end in commas, as Go's `tabwriter` aligns them.
fn table_of(head: &str, rows: Vec<Vec<String>>) -> String {
    let head = head.split(' ').map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        // The comma and a space come after what is widest.
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count() + 2).max();
        widest.unwrap_or(0).max(WIDTH_MIN)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Nothing fails that writes to a string.
            let _ = match column + 1 == columns {
                true => writeln!(text, "{cell}"),
                false => write!(text, "{:<width$}", format!("{cell},")),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_as_upstream_does() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = vec![row(["catch-all", "0", "true"]), row(["exempt", "12", "false"])];
        let expect = "\
PriorityLevelName, Active, IsIdle
catch-all,         0,      true
exempt,            12,     false
";
        assert_eq!(table_of("PriorityLevelName Active IsIdle", rows), expect);
    }
}
