//! What the cluster answers to a question. Pure.

use std::net::IpAddr;

use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record, RecordType};
use ipnet::IpNet;

use crate::Error;
use crate::question::Question;
use crate::zone::{Endpoint, Port, Published, Zone};

/// How long an answer may be kept, in seconds. Upstream's default: pods come and go.
const TTL: u32 = 5;
/// The version of the specification that is answered by.
const VERSION: &str = "1.1.0";
/// Refresh, retry and expiry of the zone, in seconds, for whoever asks; nobody transfers it.
const TIMES: (i32, i32, i32) = (7200, 1800, 86400);
/// What the weights of SRV records add up to.
const WEIGHT: usize = 100;

/// The answer to one question.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// These records; the second are sent along because they will be asked for next.
    Records(Vec<Record>, Vec<Record>),
    /// The name exists, and has nothing of this type.
    Nothing,
    /// There is no such name.
    NoSuchName,
    /// The name stands for another one, which is to be answered too. The record says so.
    Alias(Box<Record>, Name),
    /// Not the cluster's to answer.
    Elsewhere,
}

/// What the server speaks for.
#[derive(Debug)]
pub(crate) struct Authority {
    domain: Name,
    server: Name,
    contact: Name,
    address: Option<IpAddr>,
    subnets: Vec<IpNet>,
}

impl Authority {
    pub(crate) fn new(domain: &str, address: Option<IpAddr>, subnets: &[String]) -> Result<Self, Error> {
        let invalid = || Error::Invalid(domain.to_owned(), "a domain");
        let mut name = Name::from_ascii(domain).map_err(|_| invalid())?;
        name.set_fqdn(true);
        let below = |labels: &str| {
            let front = Name::from_ascii(labels).map_err(|_| invalid())?;
            front.append_domain(&name).map_err(|_| invalid())
        };
        let parse = |subnet: &String| subnet.parse().map_err(|_| Error::Invalid(subnet.clone(), "a subnet"));
        let subnets = subnets.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { server: below("ns.dns")?, contact: below("hostmaster")?, domain: name, address, subnets })
    }

    /// The record that negative answers carry: how long they may be kept.
    pub(crate) fn start_of_authority(&self, serial: u32) -> Record {
        let (refresh, retry, expire) = TIMES;
        let soa = SOA::new(self.server.clone(), self.contact.clone(), serial, refresh, retry, expire, TTL);
        record(&self.domain, RData::SOA(soa))
    }

    /// Answers from the zone.
    pub(crate) fn answer(&self, zone: &Zone, name: &LowerName, query_type: RecordType) -> Answer {
        if self.domain.zone_of(name) {
            return self.forward(zone, name, query_type);
        }
        match name.parse_arpa_name() {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => self.reverse(zone, name, net.addr(), query_type),
            _ => Answer::Elsewhere,
        }
    }

    /// Names below the cluster's domain.
    fn forward(&self, zone: &Zone, name: &Name, query_type: RecordType) -> Answer {
        let count = name.num_labels().saturating_sub(self.domain.num_labels());
        let labels: Result<Vec<&str>, _> = name.iter().take(count.into()).map(str::from_utf8).collect();
        let Ok(labels) = labels else {
            return Answer::NoSuchName;
        };
        let question = Question::parse(&labels);
        match question {
            Question::Apex => match query_type {
                RecordType::SOA => Answer::Records(vec![self.start_of_authority(zone.serial())], Vec::new()),
                RecordType::NS => {
                    let record = record(name, RData::NS(NS(self.server.clone())));
                    Answer::Records(vec![record], addresses(&self.server, self.address))
                }
                _ => Answer::Nothing,
            },
            Question::Version => match query_type {
                RecordType::TXT => {
                    let text = RData::TXT(TXT::new(vec![VERSION.to_owned()]));
                    Answer::Records(vec![record(name, text)], Vec::new())
                }
                _ => Answer::Nothing,
            },
            Question::NameServer => of_type(name, query_type, self.address),
            Question::Between => Answer::Nothing,
            Question::Namespace(namespace) => exists(zone.has_namespace(namespace)),
            Question::Pod { namespace, address } if zone.has_namespace(namespace) => {
                of_type(name, query_type, [address])
            }
            Question::Service { namespace, service } => match zone.service(namespace, service).map(AsRef::as_ref) {
                Some(published) => self.records(name, name, published, query_type, |_| true),
                None => Answer::NoSuchName,
            },
            Question::Port { namespace, service, port, protocol } => {
                let matches = |candidate: &Port| candidate.name == port && candidate.protocol == protocol;
                match zone.service(namespace, service).map(AsRef::as_ref) {
                    Some(published) if has_port(published, matches) => {
                        // The targets of the records are below the service, not below the port.
                        let service = name.trim_to((self.domain.num_labels() + 3).into());
                        self.records(name, &service, published, query_type, matches)
                    }
                    _ => Answer::NoSuchName,
                }
            }
            Question::Endpoint { namespace, service, endpoint } => {
                let endpoints = zone.service(namespace, service).map_or(&[][..], |published| published.endpoints());
                let mut found = endpoints.iter().filter(|candidate| candidate.name == endpoint).peekable();
                if found.peek().is_none() {
                    return Answer::NoSuchName;
                }
                if query_type == RecordType::SRV {
                    let targets = found.flat_map(|endpoint| {
                        endpoint.ports.iter().map(|port| (name.clone(), port.number, endpoint.address))
                    });
                    return service_records(name, targets.collect());
                }
                of_type(name, query_type, found.map(|endpoint| endpoint.address))
            }
            Question::Pod { .. } | Question::Unknown => Answer::NoSuchName,
        }
    }

    /// The records of a service, all of them or those of some ports. `service` is the service's own name.
    fn records(
        &self,
        name: &Name,
        service: &Name,
        published: &Published,
        query_type: RecordType,
        matches: impl Fn(&Port) -> bool + Copy,
    ) -> Answer {
        match published {
            Published::Alias(target) => {
                let Ok(mut target) = Name::from_ascii(target) else {
                    return Answer::Nothing;
                };
                target.set_fqdn(true);
                Answer::Alias(Box::new(record(name, RData::CNAME(CNAME(target.clone())))), target)
            }
            Published::Cluster { addresses, ports, .. } if query_type == RecordType::SRV => {
                let Some(address) = addresses.first() else {
                    return Answer::Nothing;
                };
                let ports = ports.iter().filter(|port| matches(port));
                service_records(name, ports.map(|port| (service.clone(), port.number, *address)).collect())
            }
            Published::Cluster { addresses, .. } => of_type(name, query_type, addresses.iter().copied()),
            Published::Headless { endpoints } if query_type == RecordType::SRV => {
                let target = |endpoint: &Endpoint| service.prepend_label(endpoint.name.as_bytes()).ok();
                let targets = endpoints.iter().filter_map(|endpoint| Some((endpoint, target(endpoint)?)));
                let targets = targets.flat_map(|(endpoint, target)| {
                    let ports = endpoint.ports.iter().filter(|port| matches(port));
                    ports.map(move |port| (target.clone(), port.number, endpoint.address))
                });
                service_records(name, targets.collect())
            }
            Published::Headless { endpoints } => {
                let endpoints =
                    endpoints.iter().filter(|endpoint| endpoint.ports.is_empty() || endpoint.ports.iter().any(matches));
                of_type(name, query_type, endpoints.map(|endpoint| endpoint.address))
            }
        }
    }

    /// Names of addresses. Those of the cluster's own subnets are asked of nobody else.
    fn reverse(&self, zone: &Zone, name: &Name, address: IpAddr, query_type: RecordType) -> Answer {
        let owners = zone.owners(address);
        if owners.is_empty() {
            let ours = self.subnets.iter().any(|subnet| subnet.contains(&address));
            return if ours { Answer::NoSuchName } else { Answer::Elsewhere };
        }
        if !matches!(query_type, RecordType::PTR | RecordType::ANY) {
            return Answer::Nothing;
        }
        let names = owners.iter().filter_map(|owner| {
            let endpoint = owner.endpoint.as_deref();
            let labels = endpoint.into_iter().chain([owner.service.name.as_str(), &owner.service.namespace, "svc"]);
            Name::from_labels(labels.map(str::as_bytes)).ok()?.append_domain(&self.domain).ok()
        });
        Answer::Records(names.map(|owner| record(name, RData::PTR(PTR(owner)))).collect(), Vec::new())
    }
}

fn has_port(published: &Published, matches: impl Fn(&Port) -> bool) -> bool {
    match published {
        Published::Cluster { ports, .. } => ports.iter().any(matches),
        Published::Headless { endpoints } => endpoints.iter().flat_map(|endpoint| endpoint.ports.iter()).any(matches),
        Published::Alias(_) => true,
    }
}

fn exists(exists: bool) -> Answer {
    if exists { Answer::Nothing } else { Answer::NoSuchName }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn addresses(name: &Name, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
    let data = |address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    addresses.into_iter().map(|address| record(name, data(address))).collect()
}

/// Those of the addresses that are of the type that was asked for.
fn of_type(name: &Name, query_type: RecordType, all: impl IntoIterator<Item = IpAddr>) -> Answer {
    let fits = |address: &IpAddr| match query_type {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let records = addresses(name, all.into_iter().filter(fits));
    if records.is_empty() { Answer::Nothing } else { Answer::Records(records, Vec::new()) }
}

/// SRV records for targets with port and address; the addresses go along.
fn service_records(name: &Name, targets: Vec<(Name, u16, IpAddr)>) -> Answer {
    if targets.is_empty() {
        return Answer::Nothing;
    }
    let weight = u16::try_from((WEIGHT / targets.len()).max(1)).unwrap_or(1);
    let mut along: Vec<Record> = Vec::new();
    for (target, _, address) in &targets {
        if !along.iter().any(|known| known.name == *target) {
            along.extend(addresses(target, [*address]));
        }
    }
    let service = |(target, port, _)| record(name, RData::SRV(SRV::new(0, weight, port, target)));
    Answer::Records(targets.into_iter().map(service).collect(), along)
}
