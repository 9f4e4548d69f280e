//! Seats and queues without a server; what requests make of them is in the tests of the whole.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema as SchemaObject, PriorityLevelConfiguration};
use serde_json::{Value, json};

use super::dump::RequestInfo;
use super::flow_schema::FlowSchema;
use super::metrics::Metrics;
use super::priority_level::{PriorityLevels, Rejection, Seat};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);
/// How often threads fight for a seat.
const ROUNDS: u32 = 20_000;

/// A limited level; `queues` of none reject at once.
fn level(name: &str, shares: i32, lendable: i32, queues: Option<[i32; 3]>) -> PriorityLevelConfiguration {
    let response = match queues {
        Some([queues, hand, length]) => {
            json!({ "type": "Queue", "queuing": { "queues": queues, "handSize": hand, "queueLengthLimit": length } })
        }
        None => json!({ "type": "Reject" }),
    };
    let limited = json!({
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
    });
    object(name, &json!({ "type": "Limited", "limited": limited }))
}

fn object<T: serde::de::DeserializeOwned>(name: &str, spec: &Value) -> T {
    let kind = if spec["type"].is_null() { "FlowSchema" } else { "PriorityLevelConfiguration" };
    let object = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A schema for each level, of the same name.
fn schemas(levels: &[PriorityLevelConfiguration], seats: u32) -> Vec<Arc<FlowSchema>> {
    let (made, metrics) = (PriorityLevels::new(levels, seats, None), Metrics::default());
    let of = |level: &PriorityLevelConfiguration| {
        let name = level.metadata.name.as_deref().unwrap();
        let schema: SchemaObject = object(name, &json!({ "priorityLevelConfiguration": { "name": name } }));
        Arc::new(FlowSchema::new(&schema, &made, &metrics).unwrap())
    };
    levels.iter().map(of).collect()
}

async fn take(schema: &Arc<FlowSchema>, count: u32) -> Vec<Seat> {
    let mut seats = Vec::new();
    for _ in 0..count {
        seats.push(Seat::acquire(schema, 0, 1, SHORT, RequestInfo::default).await.unwrap());
    }
    seats
}

async fn is_full(schema: &Arc<FlowSchema>) -> bool {
    Seat::acquire(schema, 0, 1, SHORT, RequestInfo::default).await.is_err()
}

/// Waits in the background until a seat is free.
fn wait(schema: &Arc<FlowSchema>, flow: u64, width: u32) -> tokio::task::JoinHandle<Result<Seat, Rejection>> {
    let schema = Arc::clone(schema);
    tokio::spawn(async move { Seat::acquire(&schema, flow, width, LONG, RequestInfo::default).await })
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_level_has_its_part_and_borrows_what_is_lent() {
    // Five seats each; a lends four of its own.
    let levels = [level("a", 1, 80, None), level("b", 1, 0, None)];
    let schemas = schemas(&levels, 10);
    let (a, b) = (&schemas[0], &schemas[1]);
    let mut of_b = take(b, 9).await;
    assert!(is_full(b).await, "one seat is left, and it is a's alone");
    let of_a = take(a, 1).await;
    assert!(is_full(a).await, "the others are lent out");
    of_b.truncate(7);
    let more = take(a, 2).await;
    assert!(is_full(a).await && is_full(b).await);
    drop((of_a, of_b, more));
    let all_of_b = take(b, 9).await;
    drop(all_of_b);
    let all_of_a = take(a, 5).await;
    assert!(is_full(a).await, "b lends nothing");
    take(b, 5).await;
    drop(all_of_a);
}

#[tokio::test]
async fn who_waits_for_their_own_comes_before_who_borrows() {
    let queues = Some([4, 2, 10]);
    let schemas = schemas(&[level("a", 1, 100, queues), level("b", 1, 0, queues)], 4);
    let (a, b) = (&schemas[0], &schemas[1]);
    let mut of_b = take(b, 4).await;
    let (borrows, owns) = (wait(b, 1, 1), wait(a, 2, 1));
    settle().await;
    // What b gives back is a's, though b has waited longer.
    drop(of_b.pop());
    let seat = owns.await.unwrap().unwrap();
    settle().await;
    assert!(!borrows.is_finished());
    drop(seat);
    borrows.await.unwrap().unwrap();
}

#[tokio::test]
async fn queues_fill_and_waiting_ends() {
    let schemas = schemas(&[level("a", 1, 0, Some([1, 1, 2])), level("none", 0, 0, None)], 1);
    let a = &schemas[0];
    let seat = Seat::acquire(a, 0, 1, SHORT, RequestInfo::default).await.unwrap();
    assert_eq!(Seat::acquire(a, 0, 1, SHORT, RequestInfo::default).await.err(), Some(Rejection::TimeOut));
    let (first, second) = (wait(a, 1, 1), wait(a, 2, 1));
    settle().await;
    assert_eq!(Seat::acquire(a, 3, 1, LONG, RequestInfo::default).await.err(), Some(Rejection::QueueFull));
    assert_eq!(
        Seat::acquire(&schemas[1], 3, 1, LONG, RequestInfo::default).await.err(),
        Some(Rejection::ConcurrencyLimit)
    );
    // One that leaves makes room, and is not waited for.
    first.abort();
    assert!(first.await.is_err());
    let third = wait(a, 3, 1);
    settle().await;
    drop(seat);
    drop(second.await.unwrap().unwrap());
    drop(third.await.unwrap().unwrap());
    take(a, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn seats_never_get_lost() {
    let queues = Some([8, 3, 100]);
    let schemas = schemas(&[level("a", 3, 50, queues), level("b", 2, 90, queues), level("c", 1, 0, queues)], 12);
    let mut waiting = Vec::new();
    for round in 0..3_000_u64 {
        let schema = Arc::clone(&schemas[(round % 3) as usize]);
        waiting.push(tokio::spawn(async move {
            // Some give up while they wait, some just when their turn comes.
            let patience = Duration::from_micros(round * 7 % 900);
            let width = 1 + (round % 2) as u32;
            if let Ok(seat) = Seat::acquire(&schema, round, width, patience, RequestInfo::default).await {
                tokio::task::yield_now().await;
                drop(seat);
            }
        }));
        if round % 5 == 0 {
            waiting.swap_remove((round as usize * 31) % waiting.len()).abort();
        }
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for task in waiting {
        let _ = task.await;
    }
    for schema in &schemas {
        assert_eq!(schema.level().executing(), 0, "{schema:?}");
    }
    // All that may be had can be had again: a's six, and of b's four and their lent ones.
    let of_a = take(&schemas[0], 6).await;
    let of_b = take(&schemas[1], 4).await;
    let of_c = take(&schemas[2], 2).await;
    assert!(is_full(&schemas[0]).await && is_full(&schemas[1]).await && is_full(&schemas[2]).await);
    drop((of_a, of_b, of_c));
}

/// A seat of the pool that two requests of a level fight for is not lost to another level meanwhile.
#[test]
fn a_seat_that_was_given_back_at_once_is_passed_on() {
    let mut narrow = level("a", 1, 100, None);
    narrow.spec.as_mut().unwrap().limited.as_mut().unwrap().borrowing_limit_percent = Some(0);
    // One seat each, all of them lent: a may have one, so one of its two requests is rejected, and b's need not wait for them.
    let schemas = schemas(&[narrow, level("b", 1, 100, Some([1, 1, 10]))], 2);
    let (a, b) = (&schemas[0], &schemas[1]);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let barrier = std::sync::Barrier::new(3);
    let mut lost = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                for _ in 0..ROUNDS {
                    barrier.wait();
                    let seat = runtime.block_on(Seat::acquire(a, 0, 1, Duration::ZERO, RequestInfo::default));
                    barrier.wait();
                    drop(seat);
                    barrier.wait();
                }
            });
        }
        let runtime = runtime();
        for _ in 0..ROUNDS {
            barrier.wait();
            let seat = runtime.block_on(Seat::acquire(b, 0, 1, 10 * SHORT, RequestInfo::default));
            barrier.wait();
            lost += u32::from(seat.is_err());
            drop(seat);
            barrier.wait();
        }
    });
    assert_eq!(lost, 0, "it waited in so many of {ROUNDS} rounds while a seat was free");
}

#[tokio::test]
async fn a_flow_that_asks_for_much_does_not_hold_up_others() {
    let schemas = schemas(&[level("a", 1, 0, Some([64, 1, 100]))], 1);
    let a = &schemas[0];
    let seat = Seat::acquire(a, 0, 1, SHORT, RequestInfo::default).await.unwrap();
    let turns = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let short = |flow: u64| {
        let (schema, turns) = (Arc::clone(a), Arc::clone(&turns));
        tokio::spawn(async move {
            let seat = Seat::acquire(&schema, flow, 1, LONG, RequestInfo::default).await;
            turns.lock().push(flow);
            seat.map(drop)
        })
    };
    let many: Vec<_> = (0..50).map(|_| short(7)).collect();
    settle().await;
    let other = short(8);
    settle().await;
    drop(seat);
    other.await.unwrap().unwrap();
    for task in many {
        task.await.unwrap().unwrap();
    }
    let turn = turns.lock().iter().position(|flow| *flow == 8).unwrap();
    assert!(turn <= 2, "{turn} came before it");
}
