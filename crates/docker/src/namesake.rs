//! What tells a profile from one of the same name in another home.
//!
//! Names of containers, networks and interfaces come from the profile's name alone, so two of one name cannot run on one
//! Docker daemon. What a profile makes carries the folder of its state as a label: the second one is refused, and what it
//! removes is its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use runtime::{Error, labels};

use crate::network::network_name;
use crate::{CALL_TIMEOUT, Docker};

impl Docker {
    /// The folder of a profile of the same name in another home that Docker has containers or the network of.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when Docker cannot be reached.
    pub async fn find_namesake(&self) -> Result<Option<PathBuf>, Error> {
        let (containers, network) = tokio::join!(self.list(vec![self.profile_label()]), self.namesake_network());
        let containers = containers?;
        let of_container = containers.iter().find_map(|found| self.namesake(found.labels.as_ref()));
        Ok(network?.or(of_container))
    }

    /// The folder of the other profile that the network of this name belongs to.
    pub(crate) async fn namesake_network(&self) -> Result<Option<PathBuf>, Error> {
        let name = network_name(self.profile());
        match self.call(CALL_TIMEOUT, self.client().inspect_network(&name, None)).await {
            Ok(found) => Ok(self.namesake(found.labels.as_ref())),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The folder of the other profile that something with these labels belongs to.
    pub(crate) fn namesake(&self, all: Option<&HashMap<String, String>>) -> Option<PathBuf> {
        let folder = Path::new(all?.get(labels::FOLDER)?);
        let own = self.settings().folder.as_deref().unwrap_or(Path::new(""));
        // What is left of a profile whose state somebody removed belongs to nobody.
        hostfs::is_another_folder(folder, own).then(|| folder.to_owned())
    }

    /// The labels of all that the profile makes, beside what it is.
    pub(crate) fn profile_labels(&self) -> HashMap<String, String> {
        let settings = self.settings();
        let folder = settings.folder.as_ref().map(|folder| (labels::FOLDER.to_owned(), folder.display().to_string()));
        folder.into_iter().chain([(labels::PROFILE.to_owned(), settings.profile.clone())]).collect()
    }
}
