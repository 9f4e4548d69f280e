//! The helper on a real daemon: the machine's network is changed by a container. Needs Docker, nftables and iproute2.

mod support;

use runtime::{Error, Runtime};
use support::{Fixture, with};

#[tokio::test]
async fn a_container_changes_the_machines_network() {
    with(async |fixture: Fixture| {
        let Fixture { docker, network, .. } = &fixture;
        let table = format!("helper-{}", docker.profile());
        let nft = async |script: &str| docker.run_in_helper("nft", &["-f", "-"], script).await.unwrap();
        let exists = async || {
            let listed = docker.run_in_helper("nft", &["list", "table", "ip", &table], "").await.unwrap();
            listed.exit_code == 0
        };
        let added = nft(&format!("add table ip {table}\n")).await;
        assert_eq!((added.exit_code, added.stderr.as_str()), (0, ""));
        assert!(exists().await);
        let refused = nft("nonsense\n").await;
        assert!(refused.exit_code != 0 && refused.stderr.contains("nonsense"), "{refused:?}");

        // More than a pipe holds at once.
        let sets: String =
            (0..5000).map(|number| format!("add set ip {table} s{number} {{ type ipv4_addr; }}\n")).collect();
        assert_eq!(nft(&sets).await.exit_code, 0);

        let arguments = ["link", "set", "dev", &network.bridge, "type", "bridge", "nf_call_iptables", "1"];
        let set = docker.run_in_helper("ip", &arguments, "").await.unwrap();
        assert_eq!((set.exit_code, set.stderr.as_str()), (0, ""));
        let hooks = format!("/sys/class/net/{}/bridge/nf_call_iptables", network.bridge);
        assert_eq!(std::fs::read_to_string(hooks).unwrap().trim(), "1");

        // Somebody removes it: it is made again, and what it did is still there.
        docker.remove_container(&format!("coracle-{}-helper", docker.profile())).await.unwrap();
        assert!(exists().await);
        assert_eq!(nft(&format!("delete table ip {table}\n")).await.exit_code, 0);
        assert!(!exists().await);

        let missing = docker.run_in_helper("no-such-program", &[], "").await.unwrap_err();
        assert!(matches!(missing, Error::NotFound(_)), "{missing}");
        // It is no pod, whatever looks for pods.
        assert!(docker.pods().await.unwrap().is_empty());
    })
    .await;
}
