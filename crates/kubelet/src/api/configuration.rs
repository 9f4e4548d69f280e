//! How the kubelet is configured, in upstream's words: `/configz`.

use serde_json::{Value, json};

use crate::config::Config;
use crate::image_gc::THRESHOLDS;
use crate::node::LEASE_SECONDS;
use crate::time::go_duration;

/// The `KubeletConfiguration` that says what `config` does. What has no field there is left out, and so is what upstream can
/// be told and a kubelet here cannot.
pub(super) fn configuration(config: &Config) -> Value {
    let eviction = &config.eviction_hard;
    let mut configuration = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": config.port != 0,
        "address": config.node_ip,
        "port": config.port,
        "readOnlyPort": 0,
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true } },
        "authorization": { "mode": "Webhook" },
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit.unwrap_or(-1),
        "registerNode": config.register,
        "resolvConf": config.resolv_conf,
        "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        "syncFrequency": go_duration(config.sync_period),
        "nodeStatusUpdateFrequency": go_duration(config.status_check_period),
        "nodeStatusReportFrequency": go_duration(config.status_period),
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "volumeStatsAggPeriod": go_duration(config.volume_stats_period),
        "evictionHard": {
            "memory.available": eviction.memory_available.to_string(),
            "nodefs.available": eviction.disk_available.to_string(),
            "nodefs.inodesFree": eviction.inodes_free.to_string(),
            "pid.available": eviction.pids_available.to_string(),
        },
        "evictionPressureTransitionPeriod": go_duration(config.eviction_pressure_transition_period),
        "imageGCHighThresholdPercent": THRESHOLDS.0,
        "imageGCLowThresholdPercent": THRESHOLDS.1,
    });
    if let Some(range) = &config.pod_cidr {
        configuration["podCIDR"] = json!(range);
    }
    configuration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_upstreams_words() {
        let mut config = Config::new("n", "10.0.0.1".parse().unwrap(), std::env::temp_dir());
        config.port = 10250;
        let said = configuration(&config);
        assert_eq!(
            (&said["enableServer"], &said["port"], &said["address"]),
            (&json!(true), &json!(10250), &json!("10.0.0.1"))
        );
        assert_eq!((&said["maxPods"], &said["syncFrequency"]), (&json!(110), &json!("1m0s")));
        assert_eq!(said["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(said["evictionHard"]["memory.available"], "104857600");
        assert_eq!(said.get("podCIDR"), None);
        (config.port, config.pod_pids_limit) = (0, None);
        let said = configuration(&config);
        assert_eq!((&said["enableServer"], &said["podPidsLimit"]), (&json!(false), &json!(-1)));
    }
}
