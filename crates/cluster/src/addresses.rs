//! The addresses of a cluster that a person chooses; what is not chosen is what is free.

use std::net::IpAddr;

use docker::Subnet;
use machinery::validate::dns_subdomain;

use crate::Error;
use crate::profile::Profile;
use crate::settings::Settings;

/// What a person asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Where pods get their addresses. A cluster keeps it for life.
    pub subnet: Option<Subnet>,
    /// Where Services get theirs. A cluster keeps it for life.
    pub service_subnet: Option<Subnet>,
    /// The port of the API; kept for later starts.
    pub api_port: Option<u16>,
    /// The domain of the cluster's names. A cluster keeps it for life.
    pub dns_domain: Option<String>,
    /// Where the API listens beside loopback and the pods' bridge.
    pub listen: Vec<IpAddr>,
}

/// Whether a subnet can be the pods': big enough for some, and of addresses that a machine may have.
///
/// # Errors
/// In words, what is expected.
pub fn check_subnet(text: &str) -> Result<Subnet, String> {
    check(text, 12..=24)
}

/// Whether a subnet can be the Services'; the range of prefixes is upstream's
/// (`pkg/controlplane/apiserver/options/validation.go`).
///
/// # Errors
/// In words, what is expected.
pub fn check_service_subnet(text: &str) -> Result<Subnet, String> {
    check(text, 12..=28)
}

fn check(text: &str, prefixes: std::ops::RangeInclusive<u8>) -> Result<Subnet, String> {
    let (least, most) = (prefixes.start(), prefixes.end());
    let expected = || format!("expected an IPv4 subnet with a prefix of /{least} to /{most}, such as 10.100.0.0/16");
    let subnet: Subnet = text.parse().map_err(|_| expected())?;
    if !prefixes.contains(&subnet.prefix()) {
        return Err(expected());
    }
    let first = subnet.address();
    if first.octets()[0] == 0 || first.is_loopback() || first.is_link_local() || first.octets()[0] >= 224 {
        return Err(format!("{subnet} is not one of addresses that a machine can have"));
    }
    Ok(subnet)
}

/// Whether names of the cluster can end like that; a name of a Service before it must not be too long.
///
/// # Errors
/// In words, what is expected.
pub fn check_dns_domain(text: &str) -> Result<String, String> {
    if text.len() > 120 {
        return Err("must be no more than 120 characters".to_owned());
    }
    match dns_subdomain(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(problem) => Err(problem),
    }
}

/// Whether the API can listen there: on an address, to which its certificate is made out.
///
/// # Errors
/// In words, what is expected.
pub fn check_listen(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "expected an IP address of this machine".to_owned())?;
    match address {
        _ if address.is_unspecified() => {
            Err("give the addresses of this machine one by one: the API's certificate is made out to them".to_owned())
        }
        _ if address.is_loopback() => Err("the API listens on loopback in any case".to_owned()),
        _ => Ok(address),
    }
}

impl Addresses {
    /// Whether a cluster that runs has them already, as far as it is known: it forgets further addresses of its API.
    ///
    /// # Errors
    /// When it has others for life.
    pub fn are_those_of(&self, profile: &Profile) -> Result<bool, Error> {
        let Some(settings) = Settings::load(profile)? else { return Ok(*self == Self::default()) };
        self.check_kept(profile, &settings)?;
        Ok(self.listen.is_empty() && self.api_port.is_none_or(|port| port == settings.api_port))
    }

    /// A cluster that is there has its subnets and its domain.
    pub(crate) fn check_kept(&self, profile: &Profile, settings: &Settings) -> Result<(), Error> {
        let text = |subnet: Option<Subnet>| subnet.map(|subnet| subnet.to_string());
        let wanted = [
            ("subnet", text(self.subnet), &settings.pod_subnet),
            ("service subnet", text(self.service_subnet), &settings.service_subnet),
            ("DNS domain", self.dns_domain.clone(), &settings.dns_domain),
        ];
        let differs = |wanted: &Option<String>, kept: &String| wanted.as_ref().is_some_and(|wanted| wanted != kept);
        match wanted.into_iter().find(|(_, wanted, kept)| differs(wanted, kept)) {
            None => Ok(()),
            Some((what, _, kept)) => {
                Err(Error::AddressKept { name: profile.name().to_owned(), what, kept: kept.clone() })
            }
        }
    }

    /// Pairs of pod and service subnets that overlap nothing taken, in order of preference.
    ///
    /// Docker sees to it that no two networks share a subnet. Unless they are chosen, each pod subnet comes with a service subnet of
    /// its own, so that holds for those too, of clusters that run and that do not, in this home and in others.
    pub(crate) fn candidates(&self, taken: &[Subnet]) -> Result<Vec<(Subnet, Subnet)>, Error> {
        let overlapped = |subnet: Subnet| taken.iter().copied().find(|other| other.overlaps(subnet));
        for (option, wanted) in [("--subnet", self.subnet), ("--service-subnet", self.service_subnet)] {
            if let Some((subnet, other)) = wanted.and_then(|subnet| Some((subnet, overlapped(subnet)?))) {
                return Err(Error::SubnetTaken { subnet, other, option });
            }
        }
        if let (Some(other), Some(subnet)) = (self.subnet, self.service_subnet)
            && subnet.overlaps(other)
        {
            return Err(Error::SubnetTaken { subnet, other, option: "--service-subnet" });
        }
        let (pods, services) = (docker::subnet::pod_candidates(), docker::subnet::service_candidates());
        let pairs: Vec<(Subnet, Subnet)> = match (self.subnet, self.service_subnet) {
            (None, None) => pods.zip(services).collect(),
            (Some(pods), None) => services.map(|services| (pods, services)).collect(),
            (None, Some(services)) => pods.map(|pods| (pods, services)).collect(),
            (Some(pods), Some(services)) => vec![(pods, services)],
        };
        let fits = |(pods, services): &(Subnet, Subnet)| {
            overlapped(*pods).is_none() && overlapped(*services).is_none() && !pods.overlaps(*services)
        };
        Ok(pairs.into_iter().filter(fits).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Home;

    fn subnets(texts: &[&str]) -> Vec<Subnet> {
        texts.iter().map(|text| text.parse().expect("a subnet")).collect()
    }

    fn asked(pods: Option<&str>, services: Option<&str>) -> Addresses {
        let parse = |text: &str| text.parse().expect("a subnet");
        Addresses { subnet: pods.map(parse), service_subnet: services.map(parse), ..Addresses::default() }
    }

    #[test]
    fn pairs_that_overlap_anything_are_left_out() {
        let check = |pods: Option<&str>, services: Option<&str>, taken: &[&str], expected: (&str, &str)| {
            let pairs = asked(pods, services).candidates(&subnets(taken)).expect("some");
            let (pods, services) = pairs[0];
            assert_eq!((&*pods.to_string(), &*services.to_string()), expected, "{taken:?}");
        };
        check(None, None, &[], ("10.244.0.0/16", "10.96.0.0/16"));
        check(None, None, &["10.244.0.0/16"], ("10.245.0.0/16", "10.97.0.0/16"));
        check(None, None, &["10.96.7.0/24"], ("10.245.0.0/16", "10.97.0.0/16"));
        check(None, None, &["10.244.0.0/15", "172.17.0.0/16"], ("10.246.0.0/16", "10.98.0.0/16"));
        check(Some("10.96.0.0/16"), None, &[], ("10.96.0.0/16", "10.97.0.0/16"));
        check(None, Some("10.244.0.0/15"), &["10.246.0.0/16"], ("10.247.0.0/16", "10.244.0.0/15"));
        check(Some("192.168.7.0/24"), Some("192.168.8.0/28"), &[], ("192.168.7.0/24", "192.168.8.0/28"));
    }

    #[test]
    fn no_two_pairs_overlap() {
        let pairs = Addresses::default().candidates(&[]).expect("some");
        let all: Vec<Subnet> = pairs.into_iter().flat_map(|(pods, services)| [pods, services]).collect();
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].iter().any(|other| other.overlaps(*one)), "{one}");
        }
    }

    #[test]
    fn what_is_chosen_and_taken_is_refused() {
        let why = |pods, services, taken: &[&str]| {
            asked(pods, services).candidates(&subnets(taken)).expect_err("taken").to_string()
        };
        assert_eq!(
            why(Some("10.100.0.0/16"), None, &["10.100.7.0/24"]),
            "10.100.0.0/16 overlaps 10.100.7.0/24, which is in use on this machine; choose another one with --subnet"
        );
        assert!(why(None, Some("10.8.0.0/16"), &["10.8.0.0/24"]).ends_with("with --service-subnet"));
        assert!(why(Some("10.100.0.0/16"), Some("10.100.8.0/24"), &[]).ends_with("with --service-subnet"));
    }

    #[test]
    fn what_can_be_chosen() {
        for good in ["10.100.0.0/16", "172.16.0.0/12", "192.168.1.0/24", "10.1.2.3/16"] {
            assert!(check_subnet(good).is_ok(), "{good}");
        }
        for bad in
            ["", "10.0.0.0", "10.0.0.0/8", "10.0.0.0/25", "fd00::/64", "127.0.0.0/16", "224.0.0.0/16", "0.0.0.0/12"]
        {
            assert!(check_subnet(bad).is_err(), "{bad}");
        }
        assert!(check_service_subnet("10.0.0.0/28").is_ok() && check_service_subnet("10.0.0.0/29").is_err());
        assert!(check_listen("192.0.2.1").is_ok() && check_listen("fd00::1").is_ok());
        for bad in ["", "localhost", "0.0.0.0", "::", "127.0.0.1"] {
            assert!(check_listen(bad).is_err(), "{bad}");
        }
        assert!(check_dns_domain("cluster.example").is_ok());
        for bad in ["", "Cluster.local", ".local", &"a.".repeat(80)] {
            assert!(check_dns_domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cluster_keeps_what_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let profile = Home::resolve(Some(folder.path())).and_then(|home| home.profile("p")).expect("a profile");
        let settings = Settings {
            pod_subnet: "10.244.0.0/16".to_owned(),
            service_subnet: "10.96.0.0/16".to_owned(),
            api_port: 0,
            dns_domain: "cluster.local".to_owned(),
        };
        asked(Some("10.244.0.0/16"), None).check_kept(&profile, &settings).expect("what it has");
        Addresses::default().check_kept(&profile, &settings).expect("what it has");
        let why = |asked: Addresses| asked.check_kept(&profile, &settings).expect_err("another one").to_string();
        assert_eq!(
            why(asked(Some("10.244.0.0/16"), Some("10.97.0.0/16"))),
            "the service subnet of the cluster p is 10.96.0.0/16 as long as it lives; for another one, first: coracle delete -p p"
        );
        let domain = Addresses { dns_domain: Some("other.example".to_owned()), ..Addresses::default() };
        assert!(why(domain).starts_with("the DNS domain of the cluster p is cluster.local"));
    }
}
