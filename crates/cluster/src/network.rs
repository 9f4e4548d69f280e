//! The subnets of a cluster: chosen at its first start so that nothing else on this machine uses them.

use docker::{Docker, Network, Subnet, subnet};
use tracing::debug;

use crate::Error;
use crate::profile::Profile;
use crate::settings::Settings;

/// The profile's settings and its network, both made now if it is started for the first time.
///
/// # Errors
/// [`Error::Namesake`] while Docker runs a cluster of the same name from another home: the two would take each other's pods
/// for their own.
pub(crate) async fn establish(profile: &Profile, docker: &Docker) -> Result<(Settings, Network), Error> {
    if let Some(folder) = docker.find_namesake().await? {
        return Err(Error::Namesake { name: profile.name().to_owned(), folder });
    }
    if let Some(settings) = Settings::load(profile)? {
        let network = docker.prepare(settings.pod_subnet(profile)?).await?;
        return Ok((settings, network));
    }
    let taken = docker.taken_subnets().await?;
    for (pods, services) in candidates(&taken) {
        match docker.prepare(pods).await {
            Ok(network) => {
                let settings =
                    Settings { pod_subnet: pods.to_string(), service_subnet: services.to_string(), api_port: 0 };
                settings.save(profile)?;
                return Ok((settings, network));
            }
            // Another cluster that is started just now was faster.
            Err(runtime::Error::Conflict(why)) if docker.network().await?.is_none() => {
                debug!(%pods, "not this subnet: {why}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NoSubnet)
}

/// Pairs of pod and service subnets that overlap nothing taken, in order of preference.
///
/// Docker sees to it that no two networks share a subnet. Each pod subnet comes with a service subnet of its own, so that
/// holds for those too, of clusters that run and that do not, in this home and in others.
fn candidates(taken: &[Subnet]) -> impl Iterator<Item = (Subnet, Subnet)> {
    let free = |subnet: Subnet| !taken.iter().any(|other| other.overlaps(subnet));
    subnet::pod_candidates()
        .zip(subnet::service_candidates())
        .filter(move |(pods, services)| free(*pods) && free(*services))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_overlap_anything_are_left_out() {
        let check = |taken: &[&str], expected: (&str, &str)| {
            let taken: Vec<Subnet> = taken.iter().map(|text| text.parse().expect("a subnet")).collect();
            let (pods, services) = candidates(&taken).next().expect("one is free");
            assert_eq!((pods.to_string().as_str(), services.to_string().as_str()), expected);
        };
        check(&[], ("10.244.0.0/16", "10.96.0.0/16"));
        check(&["10.244.0.0/16"], ("10.245.0.0/16", "10.97.0.0/16"));
        check(&["10.96.7.0/24"], ("10.245.0.0/16", "10.97.0.0/16"));
        check(&["10.244.0.0/15", "172.17.0.0/16"], ("10.246.0.0/16", "10.98.0.0/16"));
    }

    #[test]
    fn no_two_pairs_overlap() {
        let all: Vec<Subnet> = candidates(&[]).flat_map(|(pods, services)| [pods, services]).collect();
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].iter().any(|other| other.overlaps(*one)), "{one}");
        }
    }
}
