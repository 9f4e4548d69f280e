//! Subnets that nothing else on this machine uses.

use docker::{Docker, Subnet, subnet};

use crate::profile::Profile;
use crate::settings::{self, Settings};
use crate::{Error, Home};

/// The profile's settings, chosen now if it is started for the first time.
pub(crate) async fn settle(profile: &Profile, home: &Home, docker: &Docker) -> Result<Settings, Error> {
    if let Some(settings) = Settings::load(profile)? {
        return Ok(settings);
    }
    let mut taken = docker.taken_subnets().await?;
    taken.extend(settings::of_others(home, profile));
    // A network without settings is what a first start left that was killed half-way.
    let pods = match docker.network().await? {
        Some(network) => network.subnet,
        None => subnet::first_free(subnet::pod_candidates(), &taken).ok_or(Error::NoSubnet("pod"))?,
    };
    taken.push(pods);
    let services: Subnet =
        subnet::first_free(subnet::service_candidates(), &taken).ok_or(Error::NoSubnet("service"))?;
    let settings = Settings { pod_subnet: pods.to_string(), service_subnet: services.to_string(), api_port: 0 };
    settings.save(profile)?;
    Ok(settings)
}
