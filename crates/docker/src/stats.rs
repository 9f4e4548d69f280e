//! What a container has used: from its control group where that is on this machine ([`cgroup`]), else from Docker's
//! statistics, on either version of control groups.

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptionsBuilder;
use futures::StreamExt;
use jiff::Timestamp;
use runtime::{Error, Stats};

use crate::{CALL_TIMEOUT, Docker, cgroup, inspect};

/// One reading.
pub(crate) async fn read(docker: &Docker, id: &str) -> Result<Stats, Error> {
    let local = {
        let id = id.to_owned();
        tokio::task::spawn_blocking(move || cgroup::read(cgroup::ROOT.as_ref(), &id))
    };
    match local.await {
        Ok(Ok(stats)) => Ok(stats),
        _ => ask(docker, id).await,
    }
}

async fn ask(docker: &Docker, id: &str) -> Result<Stats, Error> {
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let mut readings = docker.client().stats(id, Some(options));
    match tokio::time::timeout(CALL_TIMEOUT, readings.next()).await {
        Ok(Some(Ok(reading))) => Ok(stats(&reading)),
        Ok(Some(Err(error))) => Err(docker.error(&error)),
        Ok(None) => Err(Error::NotFound(format!("no statistics of container {id}"))),
        Err(_) => Err(Error::Timeout(format!("no statistics of container {id} in time"))),
    }
}

fn stats(reading: &ContainerStatsResponse) -> Stats {
    let memory = reading.memory_stats.clone().unwrap_or_default();
    let detail = memory.stats.unwrap_or_default();
    // Version 1 has totals over the group's children, version 2 has nothing else.
    let value = |v1: &str, v2: &str| detail.get(v1).or_else(|| detail.get(v2)).copied().unwrap_or_default();
    let usage = memory.usage.unwrap_or_default();
    let networks = reading.networks.as_ref();
    let sum = |of: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
        networks.into_iter().flatten().filter_map(|(_, n)| of(n)).sum()
    };
    Stats {
        time: reading.read.as_deref().and_then(inspect::time).unwrap_or_else(Timestamp::now),
        cpu_usage_ns: reading
            .cpu_stats
            .as_ref()
            .and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage)
            .unwrap_or_default(),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(value("total_inactive_file", "inactive_file")),
        memory_rss_bytes: value("total_rss", "anon"),
        memory_limit_bytes: memory.limit.filter(|limit| *limit > 0),
        pids: reading.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or_default(),
        network_rx_bytes: sum(|network| network.rx_bytes),
        network_tx_bytes: sum(|network| network.tx_bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_versions_of_control_groups() {
        let cases = [
            json!({ "total_inactive_file": 30, "inactive_file": 1, "total_rss": 50, "rss": 1 }),
            json!({ "inactive_file": 30, "anon": 50 }),
        ];
        for detail in cases {
            let reading: ContainerStatsResponse = serde_json::from_value(json!({
                "read": "2026-11-23T06:36:43.5Z",
                "cpu_stats": { "cpu_usage": { "total_usage": 7 } },
                "memory_stats": { "usage": 100, "limit": 1000, "stats": detail },
                "pids_stats": { "current": 3 },
                "networks": { "eth0": { "rx_bytes": 5, "tx_bytes": 6 } },
            }))
            .unwrap();
            let stats = stats(&reading);
            assert_eq!(stats.cpu_usage_ns, 7);
            assert_eq!(stats.memory_working_set_bytes, 70);
            assert_eq!(stats.memory_rss_bytes, 50);
            assert_eq!(stats.memory_limit_bytes, Some(1000));
            assert_eq!((stats.pids, stats.network_rx_bytes, stats.network_tx_bytes), (3, 5, 6));
            assert_eq!(stats.time.subsec_millisecond(), 500);
        }
        assert_eq!(super::stats(&ContainerStatsResponse::default()).memory_usage_bytes, 0);
    }
}
