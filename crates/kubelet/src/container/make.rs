//! The whole of a container, as the runtime is asked for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PodSpec;
use runtime::{ContainerConfig, Image, Mount, Propagation, Resources, Sandbox};

use super::env;
use super::error::ConfigError;
use super::files::{Resolver, domain, hostname, hosts};
use super::security;
use crate::types::References;
use crate::types::desired::{DesiredContainer, DesiredPod};
use crate::values::expand;
use crate::values::fields::Addresses;
use crate::values::resources::{self, Allocatable};
use crate::volumes::{Mounted, PodDirectory, SubPaths, mounts};

/// Where a container that does not say otherwise leaves its last words.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The longest `/etc/hosts` of the machine that a pod with its network gets, in bytes.
const LONGEST_HOSTS: u64 = 16 << 20;

/// What a container is made from, beyond its specification.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    /// The pod.
    pub(crate) desired: Arc<DesiredPod>,
    /// The sandbox it comes into.
    pub(crate) sandbox: Sandbox,
    /// Its image.
    pub(crate) image: Image,
    /// The pod's volumes.
    pub(crate) volumes: Mounted,
    /// The runtime's id of the container whose processes this one sees.
    pub(crate) target: Option<String>,
    /// What the pod refers to.
    pub(crate) references: References,
    /// Variables that tell of services.
    pub(crate) services: BTreeMap<String, String>,
    /// The pod's files.
    pub(crate) directory: PodDirectory,
    /// Where seccomp profiles of the machine are.
    pub(crate) seccomp_profiles: PathBuf,
    /// Whether AppArmor confines containers.
    pub(crate) app_armor: bool,
    /// Whether mounts can be read-only with what is mounted below.
    pub(crate) recursive_read_only: bool,
    /// Most processes and threads of a container.
    pub(crate) pids_limit: Option<i64>,
    /// The machine's resolvers.
    pub(crate) resolver: Resolver,
    /// The cluster's DNS server.
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub(crate) cluster_domain: String,
    /// The node's address.
    pub(crate) node_ip: IpAddr,
    /// What the node can give.
    pub(crate) allocatable: Allocatable,
    /// Bytes of memory of the machine.
    pub(crate) memory_capacity: i64,
}

/// Makes the configuration of `container`, and the files it needs; and what must be held until it has been started.
/// Blocks.
pub(crate) fn config(
    material: &Material,
    container: &DesiredContainer,
    attempt: u32,
) -> Result<(ContainerConfig, SubPaths), ConfigError> {
    let empty = PodSpec::default();
    let desired = &material.desired;
    let spec = desired.spec().unwrap_or(&empty);
    let own = &container.spec;
    let ips = match material.sandbox.host_network {
        true => vec![material.node_ip],
        false => material.sandbox.ips.clone(),
    };
    let environment = env::environment(
        env::Sources {
            pod: desired.allocated_pod(),
            addresses: &Addresses { pod: ips.clone(), host: material.node_ip },
            allocatable: material.allocatable,
            references: &material.references,
            services: &material.services,
        },
        own,
    )?;
    let lookup = |name: &str| {
        let variable = environment.iter().find(|(key, _)| key == name);
        variable.map(|(_, value)| value.clone())
    };
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        let words = words.iter().flatten();
        words.map(|word| expand(word, lookup)).collect()
    };
    let (mounts, held) =
        mounts(own, &material.volumes, &environment, &material.directory, material.recursive_read_only)?;
    let mut config = ContainerConfig {
        pod: desired.identity.clone(),
        name: own.name.clone(),
        attempt,
        image: own.image.clone().unwrap_or_default(),
        hash: container.hash.clone(),
        command: expanded(&own.command),
        args: expanded(&own.args),
        working_dir: own.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts,
        resources: Resources { pids_limit: material.pids_limit, ..resources::kernel(spec, own) },
        processes_of: material.target.clone(),
        stdin: own.stdin == Some(true),
        stdin_once: own.stdin_once == Some(true),
        tty: own.tty == Some(true),
        oom_score_adj: Some(resources::oom_score_adj(spec, own, material.memory_capacity)),
        stop_signal: own.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        ..ContainerConfig::default()
    };
    let machine = security::Machine {
        pod: &desired.describe(),
        seccomp_profiles: &material.seccomp_profiles,
        app_armor: material.app_armor,
    };
    security::apply(spec, own, &material.image, machine, &mut config)?;
    files(material, container, attempt, &ips, &mut config.mounts)
        .map_err(|error| format!("cannot write the pod's files: {error}"))?;
    config.env = environment;
    Ok((config, held))
}

/// Writes the files that every container has, and mounts those that the container does not mount itself.
fn files(
    material: &Material,
    container: &DesiredContainer,
    attempt: u32,
    ips: &[IpAddr],
    mounts: &mut Vec<Mount>,
) -> io::Result<()> {
    let empty = PodSpec::default();
    let desired = &material.desired;
    let spec = desired.spec().unwrap_or(&empty);
    let directory = &material.directory;
    directory.create()?;
    let mut add = |host_path: PathBuf, container_path: &Path| {
        if !mounts.iter().any(|mount| mount.container_path == container_path) {
            mounts.push(Mount {
                host_path,
                descriptor: false,
                container_path: container_path.to_owned(),
                read_only: false,
                recursive_read_only: false,
                propagation: Propagation::Private,
            });
        }
    };

    let namespace = &desired.identity.namespace;
    let name = hostname(spec, &desired.identity.name);
    let domain = domain(spec, namespace, &material.cluster_domain);
    let of_host = match spec.host_network {
        Some(true) => match hostfs::read(Path::new("/etc/hosts"), LONGEST_HOSTS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(io::Error::new(error.kind(), format!("/etc/hosts: {error}"))),
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        },
        _ => String::new(),
    };
    let text = hosts(spec, &name, domain.as_deref(), ips, &of_host);
    let path = directory.path().join("etc-hosts");
    write_if_new(&path, &text)?;
    add(path, Path::new("/etc/hosts"));

    let resolver =
        Resolver::of_pod(spec, namespace, &material.resolver, &material.cluster_dns, &material.cluster_domain);
    let path = directory.path().join("etc-resolv.conf");
    write_if_new(&path, &resolver.to_text())?;
    add(path, Path::new("/etc/resolv.conf"));

    let path = directory.termination_log(container.name(), attempt);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, [])?;
    // Whoever the container runs as must be able to write it.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    let inside = container.spec.termination_message_path.as_deref();
    add(path, Path::new(inside.unwrap_or(TERMINATION_LOG)));
    Ok(())
}

/// A file that containers share is left alone when nothing changed: they may have added to it, however much.
fn write_if_new(path: &Path, text: &str) -> io::Result<()> {
    if hostfs::read_head(path, text.len() as u64).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    // Written in place: a container that runs sees the file by its inode.
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Containers write to these files, so what is in them is theirs.
    #[test]
    fn what_a_container_added_stays_and_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc-hosts");
        write_if_new(&path, "first\n").unwrap();
        fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(8 << 40)).unwrap();
        write_if_new(&path, "first\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 8 << 40);
        write_if_new(&path, "second\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
    }
}
