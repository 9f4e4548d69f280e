//! Black-box tests: the real binary, a real kubectl, a real Docker.
//!
//! A [`Cluster`] is a profile of its own in a temporary home: tests run side by side, and what one leaves behind is
//! removed when its cluster is dropped. `cargo xtask test` builds the binary, gets kubectl and the images, and says
//! where they are through the environment.
//!
//! Everything here panics on failure with what was run and what it printed: that is the report of a test.

pub mod api_client;
pub mod webhook;

use std::env;
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The small image: busybox.
pub const BUSYBOX: &str = "coracle.test/busybox:1";

/// So long a condition may take to become true. Far more than it should: a loaded machine is no failure.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a program printed and how it ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its command line.
    pub command: String,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Self::from_output(words(command), &output)
    }

    fn from_output(command: String, output: &Output) -> Self {
        Self {
            command,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Its standard output, after it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }

    /// Its standard error, after it failed.
    #[track_caller]
    pub fn fails(self) -> String {
        assert_ne!(self.code, 0, "{self}");
        self.stderr
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

fn words(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(words, " {}", argument.to_string_lossy());
    }
    words
}

/// A cluster of the test's own.
pub struct Cluster {
    /// The profile's name.
    pub profile: String,
    home: Arc<tempfile::TempDir>,
    kubectl: PathBuf,
    /// Who runs the binary, and the binary where that user finds it; `None` for whoever runs the test.
    user: Option<(User, PathBuf)>,
}

/// A user and the group of Docker's socket.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// A name that no other test has.
fn unused_profile() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{number}", std::process::id())
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

impl Cluster {
    /// A profile that was not started yet.
    pub fn new() -> Self {
        Self {
            profile: unused_profile(),
            home: Arc::new(tempfile::tempdir().expect("a temporary folder")),
            kubectl: path_from("CORACLE_KUBECTL", "kubectl"),
            user: None,
        }
    }

    /// A profile of the same home that was not started yet. kubectl talks to whichever was started last.
    pub fn beside(&self) -> Self {
        Self {
            profile: unused_profile(),
            home: Arc::clone(&self.home),
            kubectl: self.kubectl.clone(),
            user: self.user.clone(),
        }
    }

    /// A profile of a user without privileges, but for the group that may use Docker.
    pub fn of_docker_group() -> Self {
        let mut cluster = Self::new();
        let folder = cluster.home.path();
        let me = fs::metadata(folder).expect("the folder is there").uid();
        if me == 0 {
            let socket = fs::metadata("/var/run/docker.sock").expect("Docker listens at the usual place");
            let user = User { uid: NOBODY, gid: socket.gid() };
            let binary = folder.join("coracle");
            // The build's own folder may be closed to others.
            fs::copy(path_from("CORACLE_BINARY", "coracle"), &binary).expect("the binary can be copied");
            chown(folder, Some(user.uid), Some(user.gid)).expect("root may give a folder away");
            cluster.user = Some((user, binary));
        }
        cluster
    }

    /// A cluster that runs and whose node is Ready.
    pub fn start() -> Self {
        let cluster = Self::new();
        cluster.coracle(&["start"]).ok();
        cluster
    }

    /// A cluster that runs and has these addons switched on.
    pub fn start_with(addons: &[&str]) -> Self {
        let cluster = Self::start();
        cluster.coracle(&[&["addons", "enable"], addons].concat()).ok();
        cluster
    }

    /// The same cluster, seen through the oldest kubectl that must work.
    pub fn with_oldest_kubectl(mut self) -> Self {
        self.kubectl = path_from("CORACLE_KUBECTL_OLDEST", "kubectl");
        self
    }

    /// The cluster's home.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The kubeconfig that `coracle start` merges into.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// A command of the binary for this profile.
    pub fn coracle_command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.user {
            Some((_, binary)) => Command::new(binary),
            None => Command::new(path_from("CORACLE_BINARY", "coracle")),
        };
        if let Some((user, _)) = &self.user {
            command.uid(user.uid).gid(user.gid).env("HOME", self.home.path());
        }
        command
            .args(arguments)
            .env("CORACLE_HOME", self.home.path().join("home"))
            .env("CORACLE_PROFILE", &self.profile)
            .env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs the binary for this profile.
    pub fn coracle(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.coracle_command(arguments))
    }

    /// A command of kubectl for this cluster.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home.path());
        command
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.kubectl_command(arguments))
    }

    /// Runs kubectl with `input` on its standard input.
    pub fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.kubectl_command(arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that reads nothing and ends is no failure of the writer.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        Ran::from_output(words(&command), &child.wait_with_output().expect("kubectl ends"))
    }

    /// Runs kubectl on a terminal of its own, as `exec -it` wants one, with `input` typed into it.
    pub fn kubectl_on_terminal(&self, arguments: &[&str], input: &str) -> Ran {
        let line = words(&self.kubectl_command(arguments));
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.home.path());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("script starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_owned();
        let typist = thread::spawn(move || {
            // A person types once there is a prompt to type at.
            for line in input.split_inclusive('\n') {
                thread::sleep(Duration::from_millis(700));
                if stdin.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
            thread::sleep(Duration::from_millis(700));
        });
        let output = child.wait_with_output().expect("script ends");
        typist.join().expect("the typist ends");
        Ran::from_output(line, &output)
    }

    /// Applies a manifest.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.kubectl_with_input(&["apply", "-f", "-"], manifest).ok()
    }

    /// An object as JSON.
    #[track_caller]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.kubectl(&all).ok()).expect("kubectl prints JSON")
    }

    /// The part of an object that a JSONPath template names, as text; empty where there is no such object.
    pub fn field(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "--ignore-not-found", "-o", &format!("jsonpath={path}")]).stdout
    }

    /// What a server says at once to the pod `client` of a namespace, which has a shell, when it connects.
    pub fn said_to_client(&self, namespace: &str, address: &str, port: &str) -> String {
        let ask = format!("echo | nc -w 2 {address} {port}");
        self.kubectl(&["exec", "client", "--namespace", namespace, "--", "timeout", "4", "sh", "-c", &ask]).stdout
    }

    /// Names of the pods with this label, in order.
    pub fn pods(&self, selector: &str) -> Vec<String> {
        let path = "jsonpath={.items[*].metadata.name}";
        let names = self.kubectl(&["get", "pods", "-l", selector, "-o", path]).ok();
        names.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until `probe` has an answer.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        match wait(probe) {
            Some(answer) => answer,
            None => panic!("{what}: not within {WAIT_TIMEOUT:?}\n{}", self.report()),
        }
    }

    /// Waits until a field of an object has this value.
    #[track_caller]
    pub fn wait_for(&self, object: &str, path: &str, expected: &str) {
        let mut last = String::new();
        let reached = wait(|| {
            last = self.field(object, path);
            (last == expected).then_some(())
        });
        assert!(
            reached.is_some(),
            "{object} {path} is {last:?}, not {expected:?}, after {WAIT_TIMEOUT:?}\n{}",
            self.report()
        );
    }

    /// What one looks at first when a test fails.
    pub fn report(&self) -> String {
        let pods = self.kubectl(&["get", "pods,events", "-A", "-o", "wide"]);
        let log = self.coracle(&["logs", "-n", "40"]);
        format!("{pods}\n--- daemon\n{}", log.stdout)
    }

    /// The ids of the containers of this cluster that run, by container name, without sandboxes.
    pub fn containers(&self) -> Vec<String> {
        let label = format!("label=io.coracle.profile={}", self.profile);
        let listed = run(
            "docker",
            &[
                "ps",
                "--no-trunc",
                "--quiet",
                "--filter",
                &label,
                "--filter",
                "label=io.kubernetes.docker.type=container",
            ],
        );
        let mut ids: Vec<String> = listed.ok().split_whitespace().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    /// The daemon's process id.
    #[track_caller]
    pub fn pid(&self) -> String {
        let status = self.coracle(&["status", "-o", "json"]).ok();
        let status: Value = serde_json::from_str(&status).expect("status is JSON");
        status["pid"].to_string()
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.home.path().join("home").join(&self.profile).join("daemon.log");
            let log = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the daemon's log of {}\n{}", self.profile, tail.join("\n"));
        }
        let deleted = self.coracle(&["delete"]);
        if deleted.code != 0 && !thread::panicking() {
            panic!("{deleted}");
        }
    }
}

/// A program that runs beside the test; it is ended when this is dropped.
pub struct Background {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Background {
    /// Starts `command` and collects the lines it prints.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("a pipe");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line for which `wanted` holds.
    #[track_caller]
    pub fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(error) => panic!("the line did not come: {error}"),
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program.
pub fn run(program: &str, arguments: &[&str]) -> Ran {
    Ran::of(Command::new(program).args(arguments))
}

/// Asks again and again until there is an answer or patience ends.
pub fn wait<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The answer of an HTTP server on this machine: its status line and body; nothing while it does not answer.
pub fn http_get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

/// Makes the image `image` with a program, the libraries it is linked to, and nothing else, out of files in `root`.
pub fn image_of(program: &Path, name: &str, root: &Path, image: &str) {
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(from, to).expect("a copy");
    };
    copy(program, name);
    let libraries = run("ldd", &[&program.to_string_lossy()]).ok();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(library), library);
    }
    let tar = root.with_extension("tar");
    run("tar", &["-C", &root.to_string_lossy(), "-cf", &tar.to_string_lossy(), "."]).ok();
    let entry_point = format!("ENTRYPOINT [\"/{name}\"]");
    run("docker", &["import", "--change", &entry_point, &tar.to_string_lossy(), image]).ok();
}

/// The path of a file in `examples`: of the clone that cargo tests, which need not be the one that this was compiled in.
pub fn example(file: &str) -> String {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).join("../examples").join(file).to_string_lossy().into_owned()
}

fn path_from(variable: &str, otherwise: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| PathBuf::from(otherwise), PathBuf::from)
}
