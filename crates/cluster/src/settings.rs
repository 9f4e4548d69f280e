//! What was chosen when a profile was first started, and holds from then on: objects in the store depend on it.

use std::fs;
use std::io;

use docker::Subnet;
use machinery::well_known::CLUSTER_DOMAIN;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::profile::{Profile, write_private};

/// A profile's choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Settings {
    /// Where pods get their addresses: the subnet of the bridge network.
    pub(crate) pod_subnet: String,
    /// Where Services get theirs.
    pub(crate) service_subnet: String,
    /// The port on loopback where the API was served last; taken again if it is free.
    #[serde(default)]
    pub(crate) api_port: u16,
    /// The domain of the cluster's names.
    #[serde(default = "default_domain")]
    pub(crate) dns_domain: String,
}

/// That of a cluster whose settings name none.
pub(crate) fn default_domain() -> String {
    CLUSTER_DOMAIN.to_owned()
}

impl Settings {
    /// The settings of `profile`; none if it was never started.
    pub(crate) fn load(profile: &Profile) -> Result<Option<Self>, Error> {
        let path = profile.settings();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| Error::Settings { path, reason: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file(&path, source)),
        }
    }

    /// Keeps the settings.
    pub(crate) fn save(&self, profile: &Profile) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_private(&profile.settings(), &text)
    }

    pub(crate) fn pod_subnet(&self, profile: &Profile) -> Result<Subnet, Error> {
        subnet(profile, &self.pod_subnet)
    }

    pub(crate) fn service_subnet(&self, profile: &Profile) -> Result<Subnet, Error> {
        subnet(profile, &self.service_subnet)
    }
}

fn subnet(profile: &Profile, text: &str) -> Result<Subnet, Error> {
    text.parse().map_err(|error: docker::subnet::ParseSubnetError| Error::Settings {
        path: profile.settings(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Home;

    #[test]
    fn settings_are_kept_and_damage_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::resolve(Some(folder.path())).expect("a path");
        let profile = home.profile("one").expect("a name");
        profile.create().expect("created");
        assert_eq!(Settings::load(&profile).expect("readable"), None);
        let settings = Settings {
            pod_subnet: "10.244.0.0/16".to_owned(),
            service_subnet: "10.96.0.0/16".to_owned(),
            api_port: 4711,
            dns_domain: "cluster.example".to_owned(),
        };
        settings.save(&profile).expect("saved");
        assert_eq!(Settings::load(&profile).expect("readable"), Some(settings));
        fs::write(profile.settings(), "{").expect("written");
        assert!(matches!(Settings::load(&profile), Err(Error::Settings { .. })));
    }
}
