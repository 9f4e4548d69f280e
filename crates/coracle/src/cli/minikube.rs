//! Commands that minikube has: most of them act on the user's own Docker here, or have nothing to do.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// Commands for hands that come from minikube.
#[derive(Debug, Subcommand)]
pub(crate) enum Minikube {
    /// List, pull, build, tag and remove images of your Docker, which is the cluster's
    #[command(subcommand)]
    Image(Image),
    /// Copy a file to or from a pod: coracle cp FILE [NAMESPACE/]POD:PATH
    Cp(Cp),
    /// Show how to reach a node's shell
    #[command(hide = true, alias = "ssh-host", alias = "ssh-key")]
    Ssh(Rest),
    /// Show how pods see this machine's files
    #[command(hide = true)]
    Mount(Rest),
    /// Show how Services are reached
    #[command(hide = true)]
    Tunnel(Rest),
    /// Print nothing: your Docker is the cluster's
    #[command(hide = true)]
    DockerEnv(Rest),
    /// Show what to use instead of Podman
    #[command(hide = true)]
    PodmanEnv(Rest),
    /// Show what to use as a dashboard
    #[command(hide = true)]
    Dashboard(Rest),
    /// Show how to go on
    #[command(hide = true)]
    Unpause(Rest),
    /// Show the version, and how to get a newer one
    #[command(hide = true)]
    UpdateCheck,
}

/// `coracle image`.
#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// List the images: docker image ls
    #[command(alias = "list")]
    Ls(Rest),
    /// Pull images
    Pull {
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Push an image: docker push
    Push(Rest),
    /// Build an image: docker build
    Build(Rest),
    /// Give an image another name
    Tag {
        /// The image
        source: String,
        /// Its new name
        target: String,
    },
    /// Remove images: docker image rm
    #[command(alias = "remove", alias = "unload")]
    Rm(Rest),
    /// Load images from archives; those that Docker has are the cluster's already
    Load {
        /// Archives of `docker save`, or names of images
        #[arg(required = true, value_name = "IMAGE|FILE")]
        images: Vec<String>,
        /// Taken for minikube's sake
        #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
        daemon: Option<String>,
        /// Taken for minikube's sake
        #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
        overwrite: Option<String>,
    },
    /// Save an image as an archive
    Save {
        /// The image
        image: String,
        /// The archive
        file: String,
    },
}

/// `coracle cp`.
#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// What to copy: a path, or [NAMESPACE/]POD:PATH
    pub(crate) from: String,
    /// Where to: a path, or [NAMESPACE/]POD:PATH
    pub(crate) to: String,
    /// The pod's container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// The pod's namespace
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// Arguments for another program, as they are.
#[derive(Debug, Args)]
pub(crate) struct Rest {
    /// The arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// Options of minikube's `start` that have nothing to set here.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StartOptions {
    /// Taken for minikube's sake: the driver is Docker
    #[arg(long, alias = "vm-driver", hide = true)]
    pub(crate) driver: Option<String>,
    /// Taken for minikube's sake: the runtime is Docker
    #[arg(long, hide = true)]
    pub(crate) container_runtime: Option<String>,
    /// Taken for minikube's sake: pods have the machine's memory
    #[arg(long, hide = true)]
    pub(crate) memory: Option<String>,
    /// Taken for minikube's sake: pods have the machine's processors
    #[arg(long, hide = true)]
    pub(crate) cpus: Option<String>,
    /// Taken for minikube's sake: pods have the machine's disk
    #[arg(long, hide = true)]
    pub(crate) disk_size: Option<String>,
    /// Taken for minikube's sake: node ports listen on this machine
    #[arg(long, hide = true)]
    pub(crate) ports: Vec<String>,
    /// Taken for minikube's sake: there is one version
    #[arg(long, hide = true)]
    pub(crate) kubernetes_version: Option<String>,
}

/// `coracle config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Keep a setting for all later commands
    Set {
        /// Its name: profile
        key: String,
        /// Its value
        value: String,
    },
    /// Print a setting
    Get {
        /// Its name
        key: String,
    },
    /// Forget a setting
    Unset {
        /// Its name
        key: String,
    },
    /// Print all settings
    #[command(alias = "list")]
    View,
}
