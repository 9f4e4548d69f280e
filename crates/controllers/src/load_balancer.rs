//! Services of type LoadBalancer get an address at once, as from a cloud's load balancer
//! (`staging/src/k8s.io/cloud-provider/controllers/service/controller.go`): one of the cluster's own range of Services, which
//! this machine and its pods reach without a tunnel.
//!
//! Watches Services; owns the addresses of that range in their status. What the status names is reserved by the API server, so no
//! other Service gets it. A Service with a `loadBalancerClass`, or with an address that somebody else gave it, is left alone.
//! There is nothing outside of the cluster to clean up, hence no finalizer.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use informer::{Action, EventType, Informer, ObjectKey, Recorder, WorkQueue};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};
use kube::Client;
use machinery::hash::fnv32a;

use crate::client::Error;
use crate::controller::{Context, Controller};
use crate::meta;
use crate::owner::Owner;

/// How often an address that somebody took meanwhile is replaced by the next one before there is a pause.
const ATTEMPTS: usize = 8;
/// When it is looked again whether an address has become free.
const FULL: Duration = Duration::from_secs(60);

/// What is to be done for a Service.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    /// It waits for an address.
    Give,
    /// It is no load balancer any more, and still has an address.
    TakeBack,
}

fn task(service: &Service) -> Option<Task> {
    let spec = service.spec.as_ref().filter(|_| !meta::is_deleting(service))?;
    let has_address = !ingress(service).is_empty();
    match spec.type_.as_deref() {
        Some("LoadBalancer") if spec.load_balancer_class.is_none() && !has_address => Some(Task::Give),
        Some("LoadBalancer") => None,
        _ => has_address.then_some(Task::TakeBack),
    }
}

fn ingress(service: &Service) -> &[LoadBalancerIngress] {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default()
}

/// The addresses that Services have.
fn taken<'a>(services: impl Iterator<Item = &'a Service>) -> HashSet<Ipv4Addr> {
    let mut taken = HashSet::new();
    for service in services {
        let own = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
        let given = ingress(service).iter().filter_map(|ingress| ingress.ip.as_ref());
        taken.extend(own.chain(given).filter_map(|address| address.parse::<Ipv4Addr>().ok()));
    }
    taken
}

/// What a Service asks for in the old field `loadBalancerIP`, and whether that can be had.
fn desired_address<'a>(
    service: &'a Service,
    range: Ipv4Net,
    taken: &HashSet<Ipv4Addr>,
) -> Option<Result<Ipv4Addr, &'a str>> {
    let text = service.spec.as_ref()?.load_balancer_ip.as_deref().filter(|text| !text.is_empty())?;
    let address = text.parse().ok().filter(|address| range.contains(address) && !taken.contains(address));
    Some(address.ok_or(text))
}

/// A free address from the upper half of the range; the lower half is left to cluster IPs as long as that can be. Where the
/// search begins depends on the Service's name, so one that is made anew has mostly the address that it had.
fn free(key: &ObjectKey, range: Ipv4Net, taken: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = 1_u32 << (32 - u32::from(range.prefix_len()));
    let half = (size / 2).max(1);
    let begin = fnv32a(format!("{}/{}", key.namespace, key.name).as_bytes()) % half;
    let upper = (0..half).map(|step| half + (begin + step) % half);
    upper
        .chain(1..half)
        .map(|offset| Ipv4Addr::from_bits(range.network().to_bits() + offset))
        .find(|address| *address != range.broadcast() && !taken.contains(address))
}

/// The controller of Services of type LoadBalancer.
pub(crate) struct LoadBalancers {
    client: Client,
    services: Informer<Service>,
    recorder: Recorder,
    /// What it gives addresses from. None: somebody else does.
    range: Option<Ipv4Net>,
    queue: WorkQueue<ObjectKey>,
}

impl Controller for LoadBalancers {
    const NAME: &'static str = "service";
    const WORKERS: fn(usize) -> usize = |_| 1;
    type Key = ObjectKey;

    fn new(context: &Context, queue: WorkQueue<ObjectKey>) -> Self {
        Self {
            client: context.client.clone(),
            services: context.informer(),
            recorder: context.recorder("service-controller"),
            range: context.config.load_balancer_range,
            queue,
        }
    }

    fn watch(self: &Arc<Self>) {
        if self.range.is_none() {
            return;
        }
        let queue = self.queue.clone();
        self.services.on_change(move |change| {
            if change.new.as_deref().and_then(task).is_some() {
                queue.add_changed(change);
            }
        });
    }

    async fn synced(&self) {
        self.services.synced().await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let (Some(service), Some(range)) = (self.services.get(key), self.range) else {
            return Ok(Action::AwaitChange.because("the service is gone"));
        };
        match task(&service) {
            None => Ok(Action::AwaitChange.because("it has what it asks for")),
            Some(Task::TakeBack) => {
                self.write(&Owner::of(&*service), &service, None).await?;
                Ok(Action::AwaitChange)
            }
            Some(Task::Give) => self.give(key, &service, range).await,
        }
    }
}

impl LoadBalancers {
    async fn give(&self, key: &ObjectKey, service: &Service, range: Ipv4Net) -> Result<Action, Error> {
        let owner = Owner::of(service);
        let failed = |message: String| {
            self.recorder.event(&owner.reference, EventType::Warning, "SyncLoadBalancerFailed", message);
        };
        let mut taken = taken(self.services.list().iter().map(AsRef::as_ref));
        let mut desired = desired_address(service, range, &taken);
        if let Some(Err(text)) = desired {
            failed(format!(
                "Error syncing load balancer: spec.loadBalancerIP {text} is not a free address of {range}; another one is given"
            ));
        }
        for _ in 0..ATTEMPTS {
            let wanted = desired.take().and_then(Result::ok);
            let Some(address) = wanted.or_else(|| free(key, range, &taken)) else {
                failed(format!("Error syncing load balancer: no address of {range} is free"));
                return Ok(Action::RequeueAfter(FULL).because("no address is free"));
            };
            match self.write(&owner, service, Some(address)).await {
                // A Service that is not shown yet has it.
                Err(error) if error.status().is_some_and(|status| status.code == 422) => drop(taken.insert(address)),
                Err(error) => return Err(error),
                Ok(()) => {
                    self.recorder.event(
                        &owner.reference,
                        EventType::Normal,
                        "EnsuredLoadBalancer",
                        format!("Ensured load balancer: {address}"),
                    );
                    return Ok(Action::AwaitChange);
                }
            }
        }
        Ok(Action::RequeueAfter(Duration::from_secs(1)).because("other services took the addresses that seemed free"))
    }

    /// Writes the status at the version that was read.
    async fn write(&self, owner: &Owner, service: &Service, address: Option<Ipv4Addr>) -> Result<(), Error> {
        let old = service.status.clone().unwrap_or_default();
        let ingress = address.map(|address| {
            let (ip, ip_mode) = (Some(address.to_string()), Some("VIP".to_owned()));
            vec![LoadBalancerIngress { ip, ip_mode, ..LoadBalancerIngress::default() }]
        });
        let new = ServiceStatus { load_balancer: Some(LoadBalancerStatus { ingress }), ..old.clone() };
        owner.patch_status(&self.client, (&old, &new), None).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn service(spec: Value, address: Option<&str>) -> Service {
        let ingress: Vec<Value> = address.map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).into_iter().collect();
        from_value(json!({
            "metadata": { "namespace": "default", "name": "web" },
            "spec": spec, "status": { "loadBalancer": { "ingress": ingress } },
        }))
        .expect("a service")
    }

    #[test]
    fn what_is_done_for_whom() {
        let given = Some("10.96.200.1");
        let class = json!({ "type": "LoadBalancer", "loadBalancerClass": "example.com/theirs" });
        for (spec, address, expect) in [
            (json!({ "type": "LoadBalancer" }), None, Some(Task::Give)),
            (json!({ "type": "LoadBalancer" }), given, None),
            // Somebody else's.
            (json!({ "type": "LoadBalancer" }), Some("192.0.2.1"), None),
            (class.clone(), None, None),
            (class, given, None),
            (json!({ "type": "ClusterIP" }), None, None),
            (json!({ "type": "NodePort" }), given, Some(Task::TakeBack)),
        ] {
            assert_eq!(task(&service(spec.clone(), address)), expect, "{spec} {address:?}");
        }
        let mut going = service(json!({ "type": "LoadBalancer" }), None);
        going.metadata.deletion_timestamp = from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        assert_eq!(task(&going), None);
    }

    #[test]
    fn which_address() {
        let range: Ipv4Net = "10.96.0.0/28".parse().expect("a range");
        let key = ObjectKey::new("default", "web");
        let mut taken = taken(
            [
                service(json!({ "clusterIPs": ["10.96.0.1", "fd00::1"] }), None),
                service(json!({ "clusterIPs": ["None"] }), Some("10.96.0.2")),
            ]
            .iter(),
        );
        assert_eq!(taken.len(), 2);
        let first = free(&key, range, &taken).expect("one");
        assert_eq!(Some(first), free(&key, range, &taken));
        // All of the upper half but the broadcast address, then what is left of the lower one.
        let mut found = Vec::new();
        while let Some(address) = free(&key, range, &taken) {
            taken.insert(address);
            found.push(address.octets()[3]);
        }
        assert_eq!(found[0], first.octets()[3]);
        let (upper, lower) = found.split_at(7);
        assert!(upper.iter().all(|last| (8..15).contains(last)), "{found:?}");
        assert_eq!(lower, [3, 4, 5, 6, 7]);
    }

    #[test]
    fn desired_addresses() {
        let range: Ipv4Net = "10.96.0.0/16".parse().expect("a range");
        let taken = HashSet::from([Ipv4Addr::new(10, 96, 0, 9)]);
        for (text, expect) in [
            ("", None),
            ("10.96.0.8", Some(Ok(Ipv4Addr::new(10, 96, 0, 8)))),
            ("10.96.0.9", Some(Err("10.96.0.9"))),
            ("192.0.2.1", Some(Err("192.0.2.1"))),
            ("fd00::1", Some(Err("fd00::1"))),
        ] {
            let service = service(json!({ "type": "LoadBalancer", "loadBalancerIP": text }), None);
            assert_eq!(desired_address(&service, range, &taken), expect);
        }
    }
}
