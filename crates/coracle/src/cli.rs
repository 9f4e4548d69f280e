//! What can be asked on the command line.

mod autostart;
mod explain;
mod file;
mod learn;
mod minikube;
mod parse;
mod past;
mod schedule;
mod snapshot;
mod stepping;
mod store;
mod timeline;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use machinery::well_known::MAX_PODS;

pub(crate) use self::autostart::{Autostart, AutostartStatus, Packaging};
pub(crate) use self::explain::{Explain, ExplainAccess, ExplainCommand, ExplainObject};
pub(crate) use self::file::parse;
pub(crate) use self::learn::Learn;
pub(crate) use self::minikube::{Config, Cp, Image, Minikube, Rest, StartOptions};
pub(crate) use self::parse::Services;
use self::parse::{duration, node, services};
pub(crate) use self::past::{At, Diff, HistoryOf, Moment, Past};
pub(crate) use self::schedule::Schedule;
pub(crate) use self::snapshot::{
    CloneCluster, DeleteSnapshots, ExportFormat, ExportSnapshot, ListSnapshots, RestoreSnapshot, SaveSnapshot,
    SnapshotCommand,
};
pub(crate) use self::stepping::{Pause, Resume, Step, Stepping, Top, TopFormat};
pub(crate) use self::store::{StoreCommand, StoreGet, StoreLs, StoreWatch};
pub(crate) use self::timeline::{Timeline, TimelineFormat};
use crate::complete;

/// Kubernetes for one machine, in one program.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = true, about)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The cluster's name; several clusters can run side by side [default: that of `coracle profile NAME`, else coracle]
    #[arg(short, long, global = true, env = "CORACLE_PROFILE", value_name = "NAME", add = ArgValueCandidates::new(complete::clusters))]
    pub(crate) profile: Option<String>,
    /// The directory with the clusters' state [default: ~/.coracle]
    #[arg(long, global = true, env = "CORACLE_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the cluster and point kubectl at it
    Start(Box<Start>),
    /// Show whether the cluster is running (exit code 0: running, 3: stopped, 4: no such cluster)
    Status(Status),
    /// Stop the cluster and its pods' containers; all state is kept, and start runs the pods again
    Stop(Stop),
    /// Delete the cluster: containers, network, state and kubectl context
    Delete(Delete),
    /// List the clusters, or make one the default of all commands
    Profile(ProfileArguments),
    /// Point kubectl at the cluster again
    UpdateContext,
    /// Start the cluster at login or boot, by a unit of systemd
    #[command(subcommand)]
    Autostart(Autostart),
    /// Print the log of the cluster's daemon
    Logs(Logs),
    /// Open a service in the browser, or print its URL; list shows all services
    Service(Service),
    /// Print the node's address
    Ip,
    /// Explain an object: what it wants and has, who acts next, and what that waits for; or who may do something
    Explain(Explain),
    /// Say where a pod would go, and why, without creating it: coracle schedule --dry-run -f pod.yaml
    Schedule(Schedule),
    #[command(flatten)]
    Past(Past),
    /// Show what happened to an object and all that belongs to it, who did it, and because of what
    Timeline(Timeline),
    #[command(flatten)]
    Stepping(Stepping),
    /// Look into the store as etcdctl looks into etcd: list keys, print one, watch changes
    #[command(subcommand)]
    Store(StoreCommand),
    /// Save, restore, copy and delete whole clusters with their volumes
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Learn how Kubernetes works, in ten lessons
    Learn(Learn),
    /// Add, list and delete nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// List, enable and disable addons: LeaderWorkerSet, RoleBasedGroup, PodGroup, Gateway API
    #[command(subcommand)]
    Addons(AddonsCommand),
    /// Exchange the key that encrypts Secrets on disk
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Show and change what holds for all commands of this home
    #[command(subcommand)]
    Config(Config),
    #[command(flatten)]
    Minikube(Minikube),
    /// Run kubectl against this cluster: coracle kubectl -- get pods
    Kubectl(Kubectl),
    /// Print the versions of coracle and of the Kubernetes API it serves
    Version(Version),
    /// Print what a shell reads to complete commands, and names of clusters, nodes, snapshots, addons and objects:
    /// source <(coracle completion bash)
    Completion {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Write what packages bring beside the program: man pages, completions and a unit of systemd
    #[command(hide = true)]
    Packaging(Packaging),
}

/// `coracle secrets`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Make a new key, encrypt all Secrets with it, and forget the old one. With --encryption-provider-config: encrypt
    /// everything again as the configuration says
    Rotate,
}

/// `coracle addons`.
#[derive(Debug, Subcommand)]
pub(crate) enum AddonsCommand {
    /// List the addons and which of them are enabled
    List(ListAddons),
    /// Enable addons; refused where somebody else installed definitions of the same names
    Enable(AddonNames),
    /// Disable addons; all objects of their kinds are deleted, after a question where there are any
    Disable(DisableAddons),
    /// Show which images an addon runs
    #[command(hide = true)]
    Images(Rest),
    /// Show where an addon's page is
    #[command(hide = true)]
    Open(Rest),
}

/// `coracle addons list`.
#[derive(Debug, Args)]
pub(crate) struct ListAddons {
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// Names of addons.
#[derive(Debug, Args)]
pub(crate) struct AddonNames {
    /// The addons' names, as the list has them
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::addons))]
    pub(crate) names: Vec<String>,
}

/// `coracle addons disable`.
#[derive(Debug, Args)]
pub(crate) struct DisableAddons {
    #[command(flatten)]
    pub(crate) addons: AddonNames,
    /// Delete objects of the addons' kinds without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `coracle start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Start {
    /// A YAML file with options of this command by their names, such as nodes: 3; those that are typed count more
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Wait until the node is Ready before the command ends
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) wait: bool,
    /// How long to wait, such as 90s or 5m
    #[arg(long, visible_alias = "wait-timeout", default_value = "2m", value_parser = duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// The number of nodes; missing ones are added as PROFILE-m02, PROFILE-m03, ...
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "NUMBER")]
    pub(crate) nodes: u16,
    /// Addons to enable
    #[arg(long, value_delimiter = ',', value_name = "NAMES", add = ArgValueCandidates::new(complete::addons))]
    pub(crate) addons: Vec<String>,
    /// The number of fake nodes; missing ones are added as fake-0, fake-1, ...
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) fake_nodes: u16,
    /// Images that are pulled where your Docker does not have them
    #[arg(long, value_delimiter = ',', value_name = "IMAGES")]
    pub(crate) images: Vec<String>,
    /// Files, folders and URLs that kubectl applies, in this order, once the cluster is there
    #[arg(long, value_delimiter = ',', value_hint = ValueHint::AnyPath, value_name = "PATHS")]
    pub(crate) apply: Vec<String>,
    /// Check what is given, say what would be started, and change nothing
    #[arg(long, conflicts_with_all = ["foreground", "daemon"])]
    pub(crate) dry_run: bool,
    /// The output format; json prints what `coracle status -o json` does
    #[arg(short, long, value_enum, default_value_t = Format::Text, conflicts_with = "foreground")]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) minikube: StartOptions,
    /// Do not change the kubeconfig
    #[arg(long)]
    pub(crate) no_kubeconfig: bool,
    #[command(flatten)]
    pub(crate) addresses: AddressOptions,
    /// A file with a KubeSchedulerConfiguration, kept for later starts. An empty file restores the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// A file with a PodSecurityConfiguration, kept for later starts. An empty file restores the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_security_config: Option<PathBuf>,
    /// A file with a Policy of audit.k8s.io/v1, kept for later starts: what it selects is noted in audit.log in the cluster's
    /// directory. An empty file turns that off again
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_policy: Option<PathBuf>,
    /// A file with an EncryptionConfiguration, kept for later starts. Without, Secrets are encrypted with a key of the
    /// cluster's own. An empty file restores that
    #[arg(long, value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    /// How often HorizontalPodAutoscalers read their metrics
    #[arg(long, default_value = "15s", value_parser = duration, value_name = "DURATION")]
    pub(crate) hpa_sync_period: Duration,
    /// How much of what has been is remembered, for coracle at, history and diff: a time such as 1h, or a size such as 1GiB
    /// [default: ten minutes]
    #[arg(long, value_parser = past::history, value_name = "TIME|SIZE")]
    pub(crate) history: Option<cluster::History>,
    /// Leave Services of type LoadBalancer to a load balancer that you install
    #[arg(long)]
    pub(crate) no_load_balancer: bool,
    /// Most processes and threads of each container; -1 for no limit [default: 4096]
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..), value_name = "NUMBER")]
    pub(crate) pod_max_pids: Option<i64>,
    /// Kernel parameters that pods may set beside the safe ones, such as net.core.somaxconn or net.ipv4.*
    #[arg(long, value_delimiter = ',', value_parser = cluster::check_unsafe_sysctl, value_name = "NAMES")]
    pub(crate) allowed_unsafe_sysctls: Vec<String>,
    /// Admission plugins to turn off, by upstream's names, such as DenyServiceExternalIPs
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(cluster::admission_plugins()), hide_possible_values = true, value_name = "NAMES")]
    pub(crate) disable_admission_plugins: Vec<String>,
    /// Open a store whose last writes are damaged without them. Their revisions are not used again
    #[arg(long)]
    pub(crate) accept_data_loss: bool,
    /// Do not sync writes to disk. For benchmarks: acknowledged writes are lost when the machine crashes
    #[arg(long)]
    pub(crate) unsafe_no_fsync: bool,
    /// Set in the daemon that `start` leaves behind: report progress on standard output
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub(crate) daemon: bool,
}

/// Addresses of a cluster, where those that are free will not do.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AddressOptions {
    /// Where pods get their addresses, from /12 to /24; at the first start [default: the first free of 10.244.0.0/16, ...]
    #[arg(long, value_parser = cluster::check_subnet, value_name = "CIDR")]
    pub(crate) subnet: Option<cluster::Subnet>,
    /// Where services get theirs, from /12 to /28; at the first start [default: the first free of 10.96.0.0/16, ...]
    #[arg(long, visible_alias = "service-cluster-ip-range", value_parser = cluster::check_service_subnet, value_name = "CIDR")]
    pub(crate) service_subnet: Option<cluster::Subnet>,
    /// The port of the API, kept for later starts [default: a free one]
    #[arg(long, visible_alias = "apiserver-port", value_parser = clap::value_parser!(u16).range(1..), value_name = "PORT")]
    pub(crate) api_port: Option<u16>,
    /// The domain of the cluster's names, at the first start [default: cluster.local]
    #[arg(long, value_parser = cluster::check_dns_domain, value_name = "DOMAIN")]
    pub(crate) dns_domain: Option<String>,
    /// Addresses of this machine on which the API listens, too, for others who have a kubeconfig
    #[arg(long, value_delimiter = ',', value_parser = cluster::check_listen, value_name = "ADDRESSES")]
    pub(crate) listen: Vec<std::net::IpAddr>,
}

impl AddressOptions {
    /// As the cluster takes them.
    pub(crate) fn addresses(&self) -> cluster::Addresses {
        cluster::Addresses {
            subnet: self.subnet,
            service_subnet: self.service_subnet,
            api_port: self.api_port,
            dns_domain: self.dns_domain.clone(),
            listen: self.listen.clone(),
        }
    }

    /// As they are typed.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |option: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [option.to_owned(), value]));
        };
        add("--subnet", self.subnet.map(|subnet| subnet.to_string()));
        add("--service-subnet", self.service_subnet.map(|subnet| subnet.to_string()));
        add("--api-port", self.api_port.map(|port| port.to_string()));
        add("--dns-domain", self.dns_domain.clone());
        for address in &self.listen {
            add("--listen", Some(address.to_string()));
        }
        arguments
    }
}

/// `coracle stop`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// End only the control plane; the pods' containers keep running, and the next start adopts them
    #[arg(long)]
    pub(crate) keep_pods: bool,
}

/// `coracle delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Delete all clusters of this home
    #[arg(long)]
    pub(crate) all: bool,
    /// Delete all clusters of this home, its settings, and the home itself if nothing else is in it
    #[arg(long)]
    pub(crate) purge: bool,
    /// Do not ask before all clusters are deleted
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `coracle profile`.
#[derive(Debug, Args)]
pub(crate) struct ProfileArguments {
    /// The cluster that commands without -p mean from now on; `list` for a table of all. Without: print the current one
    #[arg(value_name = "list|NAME", add = ArgValueCandidates::new(complete::clusters))]
    pub(crate) wanted: Option<String>,
    /// The output format of the list
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle version`.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// The output format
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `coracle logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Follow the log
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only this many lines from the end
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Print only what is at most so old, such as 5m
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) since: Option<Duration>,
    /// Print only warnings and errors
    #[arg(long)]
    pub(crate) problems: bool,
    /// Print only what a component wrote, such as kubelet, scheduler or deployment
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(complete::components))]
    pub(crate) component: Option<String>,
}

/// `coracle service`.
#[derive(Debug, Args)]
pub(crate) struct Service {
    /// The service, as NAME or service/NAME; `list` for a table of all
    #[arg(value_name = "list|NAME", value_parser = services, required_unless_present = "all", add = ArgValueCandidates::new(complete::services))]
    pub(crate) name: Option<Services>,
    /// Its namespace [default: default; of list: all]
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// All services of the namespace that have a node port
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,
    /// Print the URL instead of opening it
    #[arg(long)]
    pub(crate) url: bool,
    /// Print https URLs
    #[arg(long)]
    pub(crate) https: bool,
    /// How long to wait for a ready pod behind the service
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "DURATION")]
    pub(crate) wait: Duration,
    /// The output format of the list
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// `coracle node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Add a node, or several that are alike
    Add(NodeAdd),
    /// List the nodes with what they offer
    List,
    /// Delete nodes, and the pods on them
    Delete(NodeDelete),
    /// Show how to take a node out of use
    #[command(hide = true)]
    Stop(Rest),
    /// Show how to take a node into use again
    #[command(hide = true)]
    Start(Rest),
}

/// `coracle node add`.
#[derive(Debug, Args)]
pub(crate) struct NodeAdd {
    /// The node's name; with --count: NAME-0, NAME-1, ...
    pub(crate) name: String,
    /// Add a fake node, to try the scheduler: its pods are shown as Running but have no containers. Without this flag, the
    /// node's pods run on this machine, beside those of the other nodes
    #[arg(long)]
    pub(crate) fake: bool,
    /// Processors the node offers [default: the machine's; with --fake 8]
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) cpu: Option<String>,
    /// Memory the node offers [default: the machine's; with --fake 32Gi]
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<String>,
    /// GPUs the node offers, as nvidia.com/gpu
    #[arg(long, value_name = "NUMBER")]
    pub(crate) gpu: Option<u32>,
    /// The most pods the node takes
    #[arg(long, default_value_t = MAX_PODS, value_name = "NUMBER")]
    pub(crate) pods: u32,
    /// A label of the node; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// An annotation of a fake node; may be repeated. Those of stages say what its pods go through, such as
    /// pod-ready.stage.kwok.x-k8s.io/delay=5s
    #[arg(long = "annotation", value_name = "KEY=VALUE", requires = "fake")]
    pub(crate) annotations: Vec<String>,
    /// A taint of the node; may be repeated. A fake node also gets kwok.x-k8s.io/node=fake:PreferNoSchedule, unless a taint
    /// of that key is given
    #[arg(long = "taint", value_name = "KEY=VALUE:EFFECT")]
    pub(crate) taints: Vec<String>,
    /// How many such nodes to add
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    pub(crate) count: u16,
}

/// `coracle node delete`.
#[derive(Debug, Args)]
pub(crate) struct NodeDelete {
    /// The nodes, as NAME or node/NAME; NAME stands for NAME-0, NAME-1, ... of `add --count` too
    #[arg(value_parser = node, add = ArgValueCandidates::new(complete::nodes))]
    pub(crate) names: Vec<String>,
    /// Delete all fake nodes
    #[arg(long)]
    pub(crate) fake: bool,
}

/// `coracle kubectl`.
#[derive(Debug, Args)]
pub(crate) struct Kubectl {
    /// The arguments for kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn kubectl_gets_its_arguments_as_they_are() {
        let parsed =
            Arguments::try_parse_from(["coracle", "-p", "x", "kubectl", "--", "get", "pods", "-o", "wide", "--home=y"]);
        let Ok(Arguments { global, command: Command::Kubectl(kubectl) }) = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(global.profile.as_deref(), Some("x"));
        assert_eq!(kubectl.arguments, ["get", "pods", "-o", "wide", "--home=y"]);
    }

    #[test]
    fn wait_is_a_flag_that_may_be_switched_off() {
        let wait = |arguments: &[&str]| match Arguments::try_parse_from(arguments).map(|a| a.command) {
            Ok(Command::Start(start)) => Some(start.wait),
            _ => None,
        };
        assert_eq!(wait(&["coracle", "start"]), Some(true));
        assert_eq!(wait(&["coracle", "start", "--wait"]), Some(true));
        assert_eq!(wait(&["coracle", "start", "--wait=false"]), Some(false));
    }

    #[test]
    fn addresses_are_handed_on_as_they_were_typed() {
        let typed = [
            ["--subnet", "10.100.0.0/16"],
            ["--service-subnet", "10.101.0.0/20"],
            ["--api-port", "6443"],
            ["--dns-domain", "cluster.example"],
            ["--listen", "192.0.2.1"],
            ["--listen", "192.0.2.2"],
        ]
        .concat();
        let parsed = Arguments::try_parse_from(["coracle", "start"].into_iter().chain(typed.iter().copied()));
        let Ok(Arguments { command: Command::Start(start), .. }) = parsed else { panic!("{parsed:?}") };
        assert_eq!(start.addresses.arguments(), typed);
    }

    #[test]
    fn the_limit_of_processes_may_be_none() {
        let limit = |number: &str| {
            let parsed = Arguments::try_parse_from(["coracle", "start", "--pod-max-pids", number]);
            match parsed.map(|arguments| arguments.command) {
                Ok(Command::Start(start)) => start.pod_max_pids,
                _ => None,
            }
        };
        assert_eq!((limit("100"), limit("-1"), limit("-2")), (Some(100), Some(-1), None));
    }

    #[test]
    fn unsafe_sysctls_are_those_of_a_pod_alone() {
        let allowed = |names: &str| {
            let parsed = Arguments::try_parse_from(["coracle", "start", "--allowed-unsafe-sysctls", names]);
            match parsed.map(|arguments| arguments.command) {
                Ok(Command::Start(start)) => Some(start.allowed_unsafe_sysctls),
                _ => None,
            }
        };
        let names = ["net.ipv4.*", "kernel.msgmax"].map(str::to_owned).to_vec();
        assert_eq!(allowed("net/ipv4/*,kernel.msgmax"), Some(names));
        assert_eq!(allowed("vm.swappiness"), None);
    }

    #[test]
    fn admission_plugins_are_turned_off_by_their_names() {
        let disabled = |names: &str| {
            let parsed = Arguments::try_parse_from(["coracle", "start", "--disable-admission-plugins", names]);
            match parsed.map(|arguments| arguments.command) {
                Ok(Command::Start(start)) => Some(start.disable_admission_plugins),
                _ => None,
            }
        };
        let names = ["DenyServiceExternalIPs", "PodSecurity"];
        assert_eq!(disabled("DenyServiceExternalIPs,PodSecurity"), Some(names.map(str::to_owned).to_vec()));
        assert_eq!(disabled("PodSecurities"), None);
    }
}
