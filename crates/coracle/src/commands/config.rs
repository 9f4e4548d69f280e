//! `coracle config`: what holds for all commands of a home, in its `config.json`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use cluster::Home;
use serde::{Deserialize, Serialize};

use crate::cli;
use crate::output;

/// The cluster that is meant where nobody says which.
const PROFILE: &str = "coracle";

/// The settings of a home.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Settings {
    /// The cluster that commands without `-p` mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
}

impl Settings {
    /// The settings of `home`; all unset where it has none.
    pub(super) fn load(home: &Home) -> Result<Self> {
        let path = path(home);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let (what, path) = ("the clusters".to_owned(), home.folder().to_owned());
                return Err(cluster::Error::Unreadable { what, path }.into());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_str(&text).with_context(|| format!("{} is damaged; repair or remove it", path.display()))
    }

    fn save(&self, home: &Home) -> Result<()> {
        let path = path(home);
        let text = serde_json::to_string_pretty(self)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(home.folder());
        made.and_then(|()| hostfs::write_private(&path, &text))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The cluster that commands without `-p` mean.
    pub(super) fn profile(&self) -> &str {
        self.profile.as_deref().unwrap_or(PROFILE)
    }
}

/// Where the settings are. No cluster can have this name.
pub(super) fn path(home: &Home) -> PathBuf {
    home.folder().join("config.json")
}

/// Makes `name` the cluster that commands without `-p` mean.
pub(super) fn set_profile(home: &Home, name: Option<&str>) -> Result<()> {
    if let Some(name) = name {
        home.profile(name)?;
    }
    let mut settings = Settings::load(home)?;
    settings.profile = name.map(str::to_owned);
    settings.save(home)
}

/// What a key of minikube's means here.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// The default cluster.
    Profile,
    /// There is nothing to set, for this reason.
    NotNeeded(&'static str),
    /// There is no such thing, and what there is instead.
    Unknown,
}

fn key(name: &str) -> Key {
    match name {
        "profile" => Key::Profile,
        "memory" | "cpus" | "disk-size" => Key::NotNeeded(
            "pods use this machine's processors, memory and disk; to limit what a node offers: coracle node add NAME --cpu 2 --memory 4Gi",
        ),
        "driver" | "vm-driver" | "container-runtime" => {
            Key::NotNeeded("coracle runs on your Docker, and on nothing else")
        }
        "WantUpdateNotification" | "ReminderWaitPeriodInHours" => {
            Key::NotNeeded("coracle looks for no updates by itself")
        }
        _ => Key::Unknown,
    }
}

pub(crate) fn run(home: &Home, command: &cli::Config) -> Result<ExitCode> {
    let known = |name: &str| -> Result<bool> {
        match key(name) {
            Key::Profile => Ok(true),
            Key::NotNeeded(why) => {
                output::note(format!("{name} is not needed: {why}."));
                Ok(false)
            }
            Key::Unknown => {
                bail!("there is no setting {name}; there is profile. Options of a start are given to: coracle start")
            }
        }
    };
    match command {
        cli::Config::Set { key, value } => {
            if known(key)? {
                set_profile(home, Some(value))?;
            }
        }
        cli::Config::Unset { key } => {
            if known(key)? {
                set_profile(home, None)?;
            }
        }
        cli::Config::Get { key } => {
            if known(key)? {
                output::line(Settings::load(home)?.profile())?;
            }
        }
        cli::Config::View => output::line(format!("profile: {}", Settings::load(home)?.profile()))?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_cluster_is_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Home::resolve(Some(&folder.path().join("home"))).expect("a path");
        let current = || Settings::load(&home).expect("readable").profile().to_owned();
        assert_eq!(current(), "coracle");
        set_profile(&home, Some("dev")).expect("saved");
        assert_eq!(current(), "dev");
        assert!(set_profile(&home, Some("No_Good")).is_err());
        assert_eq!(current(), "dev");
        set_profile(&home, None).expect("saved");
        assert_eq!(current(), "coracle");
        fs::write(path(&home), "{").expect("written");
        assert!(Settings::load(&home).is_err());
    }

    #[test]
    fn keys_of_minikube_are_answered() {
        assert_eq!(key("profile"), Key::Profile);
        for name in ["memory", "cpus", "driver", "container-runtime", "WantUpdateNotification"] {
            assert!(matches!(key(name), Key::NotNeeded(_)), "{name}");
        }
        assert_eq!(key("kubernetes-version"), Key::Unknown);
        let run = |command: cli::Config| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            run(&Home::resolve(Some(folder.path())).expect("a path"), &command).is_ok()
        };
        let (memory, unknown) = ("memory".to_owned(), "colour".to_owned());
        assert!(run(cli::Config::Set { key: memory, value: "4g".to_owned() }));
        assert!(!run(cli::Config::Set { key: unknown, value: "red".to_owned() }));
    }
}
