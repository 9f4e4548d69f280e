//! Sandboxes: what the containers of one pod share.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;

use crate::Container;

/// Which pod something belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PodIdentity {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The name in lower case, as Docker writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One `hostPort` of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Address to listen on; `None` leaves it to the runtime's setting (for coracle: loopback).
    pub host_ip: Option<IpAddr>,
    /// Port on the machine.
    pub host_port: u16,
    /// Port in the sandbox.
    pub container_port: u16,
    /// Protocol of both.
    pub protocol: Protocol,
}

/// How to make a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SandboxConfig {
    /// The pod.
    pub pod: PodIdentity,
    /// How many sandboxes this pod had before.
    pub attempt: u32,
    /// Host name of the pod; not used with `host_network`.
    pub hostname: String,
    /// Use the machine's network instead of one of its own.
    pub host_network: bool,
    /// Use the machine's PID namespace. Containers must be created with the same setting.
    pub host_pid: bool,
    /// Use the machine's IPC namespace. Containers must be created with the same setting.
    pub host_ipc: bool,
    /// Let the containers share the sandbox's PID namespace, in which its init reaps orphans.
    pub share_process_namespace: bool,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// Kernel parameters of the sandbox's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Labels beyond those of [`labels`](crate::labels), which the runtime adds by itself.
    pub labels: BTreeMap<String, String>,
    /// Free text kept with the sandbox.
    pub annotations: BTreeMap<String, String>,
}

/// A sandbox as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// The pod it is for.
    pub pod: PodIdentity,
    /// How many sandboxes the pod had before this one.
    pub attempt: u32,
    /// Whether it runs, so that containers can be created in it.
    pub ready: bool,
    /// The pod's addresses, the first one primary; empty with `host_network` and when not ready.
    pub ips: Vec<IpAddr>,
    /// Whether it uses the machine's network.
    pub host_network: bool,
    /// Whether its containers use the machine's PID namespace.
    pub host_pid: bool,
    /// Whether its containers use the machine's IPC namespace.
    pub host_ipc: bool,
    /// Whether its containers share its PID namespace.
    pub share_process_namespace: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Labels, without those the runtime adds by itself.
    pub labels: BTreeMap<String, String>,
    /// Annotations as given.
    pub annotations: BTreeMap<String, String>,
    /// Its containers, oldest first; filled by [`Runtime::pods`](crate::Runtime::pods) only.
    pub containers: Vec<Container>,
}

impl Sandbox {
    /// The primary address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.ips.first().copied()
    }
}
