//! Why a cluster cannot be started, stopped or deleted. Each is one line that says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use docker::Subnet;

/// What can go wrong with a cluster as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no place to keep state.
    #[error("there is no home directory; set $HOME or $CORACLE_HOME, or give --home")]
    NoHome,
    /// The profile's name cannot be a node's.
    #[error(
        "{0:?} cannot be a profile's name: use up to 40 lower-case letters, digits and dashes, and begin and end with a letter or digit"
    )]
    ProfileName(String),
    /// State that belongs to another user.
    #[error(
        "you may not read {what} in {}; run the command as the user whom it belongs to, or with sudo",
        path.display()
    )]
    Unreadable {
        /// What it is the state of.
        what: String,
        /// The folder.
        path: PathBuf,
    },
    /// A daemon runs on the profile already.
    #[error("the cluster {0} is already running; see: coracle status -p {0}")]
    Running(String),
    /// Docker runs a cluster of the same name from another home.
    #[error(
        "Docker has a cluster {name} of another home, {}; choose another name (coracle start -p NAME), or delete that one",
        folder.display()
    )]
    Namesake {
        /// The name of both.
        name: String,
        /// The folder of the other one's state.
        folder: PathBuf,
    },
    /// A file of the profile.
    #[error("cannot use {}; make it writable for you, or give another --home", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The settings of the profile.
    #[error("{} is damaged ({reason}); restore it, or delete the cluster: coracle delete", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The scheduler's configuration.
    #[error("cannot use {}: {reason}; correct it with: coracle start --scheduler-config FILE", path.display())]
    Scheduler {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration of PodSecurity.
    #[error("cannot use {}: {reason}; correct it with: coracle start --pod-security-config FILE", path.display())]
    PodSecurity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration of encryption at rest.
    #[error("cannot use {}: {reason}; correct it with: coracle start --encryption-provider-config FILE", path.display())]
    Encryption {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy of the audit log.
    #[error("cannot use {}: {reason}; correct it with: coracle start --audit-policy FILE", path.display())]
    AuditPolicy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The keys of the cluster's Secrets.
    #[error(transparent)]
    Keys(#[from] ::encryption::Error),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] crate::snapshot::Error),
    /// All subnets that could be taken are in use.
    #[error(
        "no free subnet is left on this machine; choose one with --subnet and --service-subnet, or delete clusters or Docker \
         networks that are not needed"
    )]
    NoSubnet,
    /// A subnet that was asked for is in use.
    #[error("{subnet} overlaps {other}, which is in use on this machine; choose another one with {option}")]
    SubnetTaken {
        /// What was asked for.
        subnet: Subnet,
        /// What there is.
        other: Subnet,
        /// By which option it was asked for.
        option: &'static str,
    },
    /// Subnets and the domain of a cluster do not change.
    #[error(
        "the {what} of the cluster {name} is {kept} as long as it lives; for another one, first: coracle delete -p {name}"
    )]
    AddressKept {
        /// The profile.
        name: String,
        /// Which of them.
        what: &'static str,
        /// What it has.
        kept: String,
    },
    /// The port that was asked for the API.
    #[error("the API cannot listen on {address}: {reason}; free it, or choose another one with {option}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        reason: String,
        /// By which option it was asked for.
        option: &'static str,
    },
    /// Docker.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] apiserver::pki::PkiError),
    /// The API server.
    #[error(transparent)]
    ApiServer(#[from] apiserver::StartError),
    /// An object that every cluster has.
    #[error("cannot write the cluster's first objects: {0}")]
    Bootstrap(machinery::status::ApiError),
    /// A component of the node.
    #[error("the {component} does not start: {reason}")]
    Component {
        /// Which one.
        component: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(crate) fn file(path: &Path, source: io::Error) -> Self {
        Self::File { path: path.to_owned(), source }
    }
}
