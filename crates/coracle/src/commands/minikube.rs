//! Commands that minikube has. What acts on images is Docker's own command line, for the user's Docker is the cluster's;
//! what has no place here is answered in a line: why it is not needed, and what to type instead.
//!
//! Exit code 0: it was done, or there is nothing to do. 1: what was asked for cannot be had here.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use cluster::{KUBERNETES_VERSION, Profile};

use super::kubectl;
use crate::cli::{self, Image, Minikube, StartOptions};
use crate::output;

/// One step of an answer. The first that fails ends it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Runs Docker's command line.
    Docker(Vec<OsString>),
    /// Runs it without its output, to find out whether something is there.
    DockerQuietly(Vec<OsString>),
    /// Becomes kubectl.
    Kubectl(Vec<OsString>),
    /// Prints the answer.
    Print(String),
    /// Says what a person should know.
    Say(String),
    /// Says why it cannot be done, and what to do instead.
    Refuse(String),
}

/// Nothing but a path to or from a pod needs the cluster; its name is in some of the texts.
pub(crate) fn run(profile: &Profile, command: &Minikube) -> Result<ExitCode> {
    for step in steps(command, profile.name(), &|path| Path::new(path).is_file()) {
        match step {
            Step::Docker(arguments) => {
                let code = docker(&arguments, Output::Own)?;
                if code != 0 {
                    return Ok(ExitCode::from(code));
                }
            }
            Step::DockerQuietly(arguments) => {
                if docker(&arguments, Output::Nowhere)? != 0 {
                    let what = arguments.last().map(|what| what.to_string_lossy()).unwrap_or_default();
                    bail!(
                        "your Docker has no image {what}, and there is no such file; get it with: docker pull {what}"
                    );
                }
            }
            Step::Kubectl(arguments) => return kubectl::run(profile, &cli::Kubectl { arguments }),
            Step::Print(text) => output::line(text)?,
            Step::Say(text) => output::note(text),
            Step::Refuse(text) => bail!(text),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls the images that Docker does not have.
pub(super) fn pull(images: &[String]) -> Result<()> {
    for image in images {
        let words = |words: &[&str]| words.iter().chain([&image.as_str()]).map(OsString::from).collect::<Vec<_>>();
        // Standard output is for the answer of the command that wants them.
        let is_there = docker(&words(&["image", "inspect"]), Output::Nowhere)? == 0;
        if !is_there && docker(&words(&["image", "pull"]), Output::Error)? != 0 {
            bail!("the image {image} cannot be pulled; nothing was started");
        }
    }
    Ok(())
}

/// Where Docker's command line writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Where this command does.
    Own,
    /// To standard error alone.
    Error,
    /// Nobody is to see it.
    Nowhere,
}

/// Runs Docker's command line on the daemon that clusters use, whatever context is current. Answers its exit code.
fn docker(arguments: &[OsString], output: Output) -> Result<u8> {
    let mut command = Command::new("docker");
    command.args(arguments).env("DOCKER_HOST", cluster::docker_host());
    match output {
        Output::Own => {}
        Output::Error => drop(command.stdout(io::stderr())),
        Output::Nowhere => drop(command.stdout(Stdio::null()).stderr(Stdio::null())),
    }
    let status = command.status().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow!("docker is not on the PATH; install Docker's command line as https://docs.docker.com/engine/install says")
        }
        _ => anyhow!(error).context("cannot run docker"),
    })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// What a command comes to. `is_file` tells archives from names of images.
fn steps(command: &Minikube, cluster: &str, is_file: &dyn Fn(&str) -> bool) -> Vec<Step> {
    let say = |text: &str| vec![Step::Say(text.to_owned())];
    let refuse = |text: String| vec![Step::Refuse(text)];
    match command {
        Minikube::Image(image) => self::image(image, is_file),
        Minikube::Cp(cp) => self::cp(cp, cluster),
        Minikube::Ssh(rest) if rest.arguments.is_empty() => {
            say("The node is this machine: your shell is on it. For a shell in a pod: kubectl exec -it POD -- sh")
        }
        Minikube::Ssh(_) => refuse(
            "the node is this machine: type the command without coracle ssh; in a pod: kubectl exec POD -- COMMAND"
                .to_owned(),
        ),
        Minikube::Mount(_) => say(
            "Nothing to mount: the node is this machine, and pods see its folders by a volume of type hostPath (hostPath: { path: /your/folder }).",
        ),
        Minikube::Tunnel(_) => say(
            "No tunnel is needed: cluster IPs and those of load balancers are reached from this machine, and node ports on 127.0.0.1; see: coracle service list",
        ),
        // Standard output is what `eval` reads.
        Minikube::DockerEnv(_) => {
            say("Nothing to set: your Docker is the cluster's; what you build is there for pods at once.")
        }
        Minikube::PodmanEnv(_) => refuse("coracle runs on Docker: build with docker build".to_owned()),
        Minikube::Dashboard(_) => refuse(
            "there is no dashboard built in; a program on this machine, such as k9s or Headlamp, uses your kubeconfig"
                .to_owned(),
        ),
        Minikube::Unpause(_) => refuse(format!(
            "a cluster is not paused but stopped; go on with: coracle start -p {cluster}. What coracle pause has paused goes on with: coracle resume -p {cluster}"
        )),
        Minikube::UpdateCheck => vec![
            Step::Print(concat!("CurrentVersion: v", env!("CARGO_PKG_VERSION")).to_owned()),
            Step::Say("coracle looks for no updates; a newer one is in the place where this one came from.".to_owned()),
        ],
    }
}

fn image(image: &Image, is_file: &dyn Fn(&str) -> bool) -> Vec<Step> {
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let with = |command: &[&str], rest: &[OsString]| vec![Step::Docker([&words(command), rest].concat())];
    match image {
        Image::Ls(rest) => with(&["image", "ls"], &rest.arguments),
        Image::Push(rest) => with(&["image", "push"], &rest.arguments),
        Image::Build(rest) => with(&["image", "build"], &rest.arguments),
        Image::Rm(rest) => with(&["image", "rm"], &rest.arguments),
        Image::Tag { source, target } => vec![Step::Docker(words(&["image", "tag", source, target]))],
        Image::Save { image, file } => vec![Step::Docker(words(&["image", "save", "--output", file, image]))],
        Image::Pull { images } => images.iter().map(|image| Step::Docker(words(&["image", "pull", image]))).collect(),
        Image::Load { images, .. } => images
            .iter()
            .flat_map(|image| match is_file(image) {
                true => vec![Step::Docker(words(&["image", "load", "--input", image]))],
                false => vec![
                    Step::DockerQuietly(words(&["image", "inspect", image])),
                    Step::Say(format!("Your Docker is the cluster's, and has {image}: nothing to load.")),
                ],
            })
            .collect(),
    }
}

fn cp(cp: &cli::Cp, cluster: &str) -> Vec<Step> {
    let cli::Cp { from, to, container, namespace } = cp;
    let is_pod = |path: &str| {
        let pod = path.split_once(':').map(|(pod, _)| pod);
        // minikube's NODE:PATH; further nodes are CLUSTER-m02 and so on.
        let is_node =
            |pod: &str| pod == cluster || pod.strip_prefix(cluster).is_some_and(|rest| rest.starts_with("-m0"));
        pod.is_some_and(|pod| !pod.is_empty() && !pod.starts_with(['/', '.']) && !is_node(pod))
    };
    if !is_pod(from) && !is_pod(to) {
        return vec![Step::Refuse(
            "the node is this machine: use cp, and a volume of type hostPath to show files to pods; to or from a pod: coracle cp FILE [NAMESPACE/]POD:PATH"
                .to_owned(),
        )];
    }
    let options = [("--container", container), ("--namespace", namespace)];
    let options = options.into_iter().filter_map(|(option, value)| Some([option, value.as_deref()?])).flatten();
    let words = ["cp", from, to].into_iter().chain(options);
    vec![Step::Kubectl(words.map(OsString::from).collect())]
}

/// Refuses what minikube's options of `start` ask for and cannot be had, and says of the others why they change nothing.
pub(super) fn check_start(options: &StartOptions) -> Result<()> {
    for text in start_remarks(options)? {
        output::note(text);
    }
    Ok(())
}

fn start_remarks(options: &StartOptions) -> Result<Vec<&'static str>> {
    for (flag, value) in [("driver", &options.driver), ("container-runtime", &options.container_runtime)] {
        if let Some(value) = value.as_deref().filter(|value| !["docker", "none", "auto", ""].contains(value)) {
            bail!("coracle runs on Docker, and not on {value}; leave --{flag} out");
        }
    }
    if let Some(version) = &options.kubernetes_version {
        let is_served = ["stable", "latest"].contains(&version.as_str()) || serves(version);
        is_served.then_some(()).with_context(|| {
            format!(
                "this coracle serves Kubernetes {KUBERNETES_VERSION}, and not {version}; leave --kubernetes-version out"
            )
        })?;
    }
    let remarks = [
        (
            options.memory.is_some() || options.cpus.is_some() || options.disk_size.is_some(),
            "--memory, --cpus and --disk-size are not needed: pods use this machine's own; to limit what a node offers: coracle node add NAME --cpu 2 --memory 4Gi",
        ),
        (
            !options.ports.is_empty(),
            "--ports is not needed: node ports listen on this machine, at 127.0.0.1; see: coracle service list",
        ),
    ];
    Ok(remarks.into_iter().filter_map(|(given, text)| given.then_some(text)).collect())
}

/// Whether a version, `v1.36.2`, `1.36.2` or `1.36`, is the one that is served.
fn serves(version: &str) -> bool {
    // What was built, behind a plus, is no part of a version.
    let [served, wanted] =
        [KUBERNETES_VERSION, version].map(|text| text.trim_start_matches('v').split('+').next().unwrap_or_default());
    wanted == served || served.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.') && wanted.contains('.'))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Arguments;

    /// What minikube's command line comes to; the words after `minikube`.
    fn typed(line: &str) -> Vec<Step> {
        let arguments = Arguments::try_parse_from(["coracle"].into_iter().chain(line.split(' ')));
        match arguments.map(|arguments| arguments.command) {
            Ok(cli::Command::Minikube(command)) => steps(&command, "dev", &|path| path == "web.tar"),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn images_are_dockers() {
        let check = |line: &str, expected: &[&str]| {
            let run: Vec<String> = typed(line)
                .into_iter()
                .map(|step| match step {
                    Step::Docker(words) => words.join(OsString::from(" ").as_os_str()).to_string_lossy().into_owned(),
                    other => panic!("{line}: {other:?}"),
                })
                .collect();
            assert_eq!(run, expected, "{line}");
        };
        check("image ls", &["image ls"]);
        check("image list --format json", &["image ls --format json"]);
        check("image pull a b:1", &["image pull a", "image pull b:1"]);
        check("image push a", &["image push a"]);
        check("image build -t web:1 .", &["image build -t web:1 ."]);
        check("image tag a b", &["image tag a b"]);
        check("image rm a b", &["image rm a b"]);
        check("image save a a.tar", &["image save --output a.tar a"]);
        check("image load web.tar", &["image load --input web.tar"]);
        check("image load --daemon=true web.tar", &["image load --input web.tar"]);
    }

    #[test]
    fn an_image_that_docker_has_needs_no_loading() {
        let steps = typed("image load web:1");
        let [Step::DockerQuietly(asked), Step::Say(text)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(asked.last(), Some(&OsString::from("web:1")));
        assert_eq!(text, "Your Docker is the cluster's, and has web:1: nothing to load.");
    }

    #[test]
    fn files_are_copied_to_pods() {
        let check = |line: &str, expected: Option<&str>| {
            let steps = typed(line);
            match (&steps[..], expected) {
                ([Step::Kubectl(words)], Some(expected)) => {
                    assert_eq!(words.join(OsString::from(" ").as_os_str()), OsString::from(expected), "{line}");
                }
                ([Step::Refuse(text)], None) => assert!(text.contains("the node is this machine"), "{text}"),
                other => panic!("{line}: {other:?}"),
            }
        };
        check("cp a.txt web:/a.txt", Some("cp a.txt web:/a.txt"));
        check("cp -n x -c main x/web:/a a", Some("cp x/web:/a a --container main --namespace x"));
        check("cp a.txt dev:/home/a.txt", None);
        check("cp a.txt dev-m02:/home/a.txt", None);
        check("cp a.txt /home/a.txt", None);
        check("cp ./a:b /home/a.txt", None);
    }

    /// Each of minikube's commands that has no act here: a part of what is said, and whether it is a failure.
    #[test]
    fn what_is_not_needed_is_said_in_a_line() {
        let check = |line: &str, fails: bool, part: &str| {
            let text = match &typed(line)[..] {
                [Step::Say(text)] if !fails => text.clone(),
                [Step::Refuse(text)] if fails => text.clone(),
                other => panic!("{line}: {other:?}"),
            };
            assert!(text.contains(part), "{line}: {text}");
            assert_eq!(text.lines().count(), 1, "{line}: {text}");
        };
        check("ssh", false, "your shell is on it");
        check("ssh -- ls /", true, "without coracle ssh");
        check("ssh -n dev-m02 ls", true, "kubectl exec POD");
        check("ssh-key", false, "your shell is on it");
        check("mount /src:/dst", false, "hostPath");
        check("mount --uid 1000 /src:/dst", false, "hostPath");
        check("tunnel", false, "coracle service list");
        check("tunnel --cleanup", false, "127.0.0.1");
        check("docker-env", false, "your Docker is the cluster's");
        check("docker-env --shell bash", false, "Nothing to set");
        check("docker-env -u", false, "Nothing to set");
        check("podman-env", true, "docker build");
        check("dashboard", true, "k9s");
        check("dashboard --url", true, "kubeconfig");
        check("unpause", true, "coracle start -p dev");
        check("unpause", true, "coracle resume -p dev");
    }

    #[test]
    fn the_version_is_printed() {
        let steps = typed("update-check");
        assert!(matches!(&steps[..], [Step::Print(text), Step::Say(_)] if text.starts_with("CurrentVersion: v")));
    }

    #[test]
    fn options_of_start_are_heeded_refused_or_explained() {
        let check = |line: &str, expected: Result<&str, &str>| {
            let arguments = Arguments::try_parse_from(["coracle", "start"].into_iter().chain(line.split(' ')));
            let Ok(Arguments { command: cli::Command::Start(start), .. }) = arguments else {
                panic!("{line}: {arguments:?}");
            };
            match (start_remarks(&start.minikube).map(|remarks| remarks.concat()), expected) {
                (Ok(said), Ok("")) => assert_eq!(said, "", "{line}"),
                (Ok(said), Ok(part)) => assert!(said.contains(part), "{line}: {said}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
                other => panic!("{line}: {other:?}"),
            }
        };
        check("--driver docker --container-runtime=docker", Ok(""));
        check("--vm-driver=none", Ok(""));
        check("--driver=kvm2", Err("not on kvm2; leave --driver out"));
        check("--container-runtime containerd", Err("leave --container-runtime out"));
        check("--memory 4g --cpus 2", Ok("coracle node add NAME"));
        check("--disk-size=20g", Ok("not needed"));
        check("--ports 8080:80", Ok("coracle service list"));
        check("--kubernetes-version stable", Ok(""));
        check(&format!("--kubernetes-version {KUBERNETES_VERSION}"), Ok(""));
        check("--kubernetes-version 1.36", Ok(""));
        check("--kubernetes-version=v1.28.3", Err("not v1.28.3; leave --kubernetes-version out"));
        check("--kubernetes-version 1", Err("not 1;"));
        check("--wait-timeout 5m --addons lws,gang --dry-run -o json", Ok(""));
    }

    #[test]
    fn the_rest_of_minikubes_commands_is_read() {
        let lines = [
            "profile list",
            "profile list -o json",
            "profile dev",
            "profile",
            "service list",
            "service list -n default",
            "service web --url --https",
            "service svc/web --wait 20",
            "service --all",
            "delete --all",
            "delete --purge",
            "delete -p dev",
            "update-context",
            "config set profile dev",
            "config get profile",
            "config view",
            "config unset profile",
            "addons list",
            "addons list -o json",
            "addons enable lws",
            "stop",
            "status -o json",
            "ip",
            "logs -f",
            "pause",
            "pause --all-namespaces",
            "pause -n default,kube-system",
            "kubectl -- get pods",
            "node list",
            "node delete node/dev-m02",
            "version",
        ];
        for line in lines {
            let parsed = Arguments::try_parse_from(["coracle"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
        for line in ["service", "service --all web", "explain pod svc/web", "start --timeout 5x", "config set profile"]
        {
            let parsed = Arguments::try_parse_from(["coracle"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_err(), "{line}: {parsed:?}");
        }
    }
}
