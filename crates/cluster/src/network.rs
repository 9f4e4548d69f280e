//! The subnets of a cluster: chosen at its first start so that nothing else on this machine uses them.

use docker::{Docker, Network, Subnet};
use tracing::debug;

use crate::Error;
use crate::addresses::Addresses;
use crate::profile::{Home, Profile};
use crate::settings::{self, Settings};

/// The profile's settings and its network, both made now if it is started for the first time.
///
/// # Errors
/// [`Error::Namesake`] while Docker runs a cluster of the same name from another home: the two would take each other's pods
/// for their own.
/// [`Error::AddressKept`] and [`Error::SubnetTaken`] when it cannot have the addresses that are asked for.
pub(crate) async fn establish(
    profile: &Profile,
    docker: &Docker,
    asked: &Addresses,
) -> Result<(Settings, Network), Error> {
    if let Some(folder) = docker.find_namesake().await? {
        return Err(Error::Namesake { name: profile.name().to_owned(), folder });
    }
    if let Some(settings) = Settings::load(profile)? {
        asked.check_kept(profile, &settings)?;
        let network = docker.prepare(settings.pod_subnet(profile)?).await?;
        return Ok((settings, network));
    }
    let mut taken = docker.taken_subnets().await?;
    taken.extend(subnets_of_others(profile)?);
    for (pods, services) in asked.candidates(&taken)? {
        match docker.prepare(pods).await {
            Ok(network) => {
                let settings = Settings {
                    pod_subnet: pods.to_string(),
                    service_subnet: services.to_string(),
                    api_port: 0,
                    dns_domain: asked.dns_domain.clone().unwrap_or_else(settings::default_domain),
                };
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

/// The subnets of the home's other clusters, which may not run now. What cannot be read takes nothing.
fn subnets_of_others(profile: &Profile) -> Result<Vec<Subnet>, Error> {
    let Some(home) = profile.folder().parent() else { return Ok(Vec::new()) };
    let others = Home::resolve(Some(home))?.profiles()?;
    let settings = others
        .iter()
        .filter(|other| other.name() != profile.name())
        .filter_map(|other| Settings::load(other).ok().flatten());
    let subnets = settings.flat_map(|settings| [settings.pod_subnet, settings.service_subnet]);
    Ok(subnets.filter_map(|subnet| subnet.parse().ok()).collect())
}
