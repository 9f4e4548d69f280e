//! Addresses and ports: each is had once, and comes back when the write does not happen.

use super::*;

fn pools(range: &str) -> Allocators {
    let config = AllocatorConfig { services: range.parse().expect("a range"), ..AllocatorConfig::default() };
    Allocators::new(&config)
}

#[test]
fn ranges() {
    let range: ServiceRange = "10.96.3.7/16".parse().expect("a range");
    assert_eq!(range.to_string(), "10.96.0.0/16");
    assert_eq!((range.kubernetes().to_string(), range.dns().to_string()), ("10.96.0.1".into(), "10.96.0.10".into()));
    for (address, inside) in [
        ("10.96.0.0", false),
        ("10.96.0.1", true),
        ("10.96.255.254", true),
        ("10.96.255.255", false),
        ("10.97.0.1", false),
        ("10.95.255.255", false),
    ] {
        assert_eq!(range.contains(address.parse().expect("an address")), inside, "{address}");
    }
    for text in ["", "10.96.0.0", "10.96.0.0/", "10.96.0.0/29", "10.0.0.0/8", "fd00::/64", "x/16"] {
        assert!(text.parse::<ServiceRange>().is_err(), "{text}");
    }
}

#[test]
fn every_address_is_handed_out_once() {
    let allocators = pools("10.0.0.0/28");
    let mut taking = allocators.begin();
    let found: BTreeSet<Ipv4Addr> = (0..12).map(|_| taking.any_address().expect("free")).collect();
    assert_eq!(found.len(), 12, "14 addresses, two of them reserved");
    assert!(!found.contains(&allocators.services().kubernetes()) && !found.contains(&allocators.services().dns()));
    assert_eq!(taking.any_address(), Err(AllocationError::Full));
    assert_eq!(taking.address(allocators.services().kubernetes()), Ok(()), "reserved for whoever asks by name");
    drop(taking);
    assert!(allocators.lock().addresses.is_empty());
}

#[test]
fn the_fate_of_the_write_decides() {
    let allocators = pools("10.0.0.0/24");
    let address: Ipv4Addr = "10.0.0.9".parse().expect("an address");
    let old = Holdings { addresses: BTreeSet::new(), ports: BTreeSet::from([30_000]) };
    allocators.occupy(&old);

    let mut taking = allocators.begin();
    taking.address(address).expect("free");
    drop(taking.keep(old.clone()));
    assert_eq!(*allocators.lock(), old, "an abandoned write changes nothing");

    let mut taking = allocators.begin();
    taking.address(address).expect("free");
    taking.keep(old).committed();
    let expect = Holdings { addresses: BTreeSet::from([address]), ports: BTreeSet::new() };
    assert_eq!(*allocators.lock(), expect);
}

#[test]
fn concurrent_writes_never_get_the_same() {
    let allocators = pools("10.0.0.0/24");
    let found: Vec<u16> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut taking = allocators.begin();
                    let ports: Vec<u16> = (0..100).map(|_| taking.any_port().expect("free")).collect();
                    taking.keep(Holdings::default()).committed();
                    ports
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 800);
}

#[test]
fn ports_out_of_range() {
    let allocators = pools("10.0.0.0/24");
    let mut taking = allocators.begin();
    for port in [0, 29_999, 32_768] {
        assert_eq!(
            taking.port(port).expect_err("out of range").to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }
    taking.port(32_767).expect("free");
    assert_eq!(taking.port(32_767), Err(AllocationError::PortTaken));
}
