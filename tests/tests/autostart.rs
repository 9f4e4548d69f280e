//! A cluster that starts at login, where what stands for systemd notes what it is told.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use coracle_tests::Cluster;
use serde_json::Value;

/// Does what it is told by noting it; a file beside it makes it fail as one does that no bus reaches.
const SYSTEMCTL: &str = r#"#!/bin/sh
if [ -e "$HOME/refuses" ]; then
  echo "Failed to connect to bus: No medium found" >&2
  exit 1
fi
echo "$*" >> "$HOME/told"
[ "$2" != is-enabled ] || grep -q " enable $3" "$HOME/told"
"#;

struct Login {
    cluster: Cluster,
}

impl Login {
    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.cluster.home();
        let path = format!("{}:/usr/bin:/bin", home.join("bin").display());
        let mut command = self.cluster.coracle_command(arguments);
        command.env("HOME", home).env("XDG_CONFIG_HOME", home.join("config")).env("PATH", path);
        command
    }

    fn unit(&self) -> PathBuf {
        self.cluster.home().join(format!("config/systemd/user/coracle-{}.service", self.cluster.profile))
    }

    /// What systemd would do of the line `key` of the unit; its quotes are those of a shell.
    fn run_line(&self, key: &str, main_pid: &str) -> Output {
        let unit = fs::read_to_string(self.unit()).expect("a unit");
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).expect("a line").replace("$$", "\\$");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &line]).env("MAINPID", main_pid).env("KUBECONFIG", self.cluster.kubeconfig());
        // As the one who owns the cluster.
        let owner = fs::metadata(self.cluster.home()).expect("a home");
        shell.uid(owner.uid()).gid(owner.gid());
        shell.env("HOME", self.cluster.home()).current_dir("/");
        shell.output().expect("a shell")
    }
}

fn failure(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_cluster_starts_at_login() {
    let login = Login { cluster: Cluster::of_docker_group() };
    let cluster = &login.cluster;
    let run = |arguments: &[&str]| login.command(arguments).output().expect("the binary runs");
    let autostart = |what: &str| run(&["autostart", what]);
    let succeeds = |what: &str| {
        let output = autostart(what);
        assert!(output.status.success(), "{what}: {output:?}");
    };
    let (unit, refuses) = (login.unit(), cluster.home().join("refuses"));

    assert!(failure(&autostart("enable")).contains("first: coracle start -p"));
    cluster.coracle(&["start", "--no-kubeconfig"]).ok();
    let error = failure(&autostart("enable"));
    assert!(error.contains("no systemctl") || error.contains("systemd refuses"), "{error}");
    assert!(error.contains("start --no-kubeconfig --profile"), "the way out: {error}");

    let bin = cluster.home().join("bin");
    fs::create_dir(&bin).expect("a folder");
    fs::write(bin.join("systemctl"), SYSTEMCTL).expect("a script");
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).expect("it can be run");
    fs::write(&refuses, "").expect("a file");
    assert!(failure(&autostart("enable")).contains("Failed to connect to bus"));
    assert!(!unit.exists(), "nothing is left that looks enabled");
    fs::remove_file(&refuses).expect("it is there");
    assert_eq!(autostart("status").status.code(), Some(3));

    succeeds("enable");
    let told = fs::read_to_string(cluster.home().join("told")).expect("it was told");
    let name = format!("coracle-{}.service", cluster.profile);
    let last: Vec<&str> = told.lines().rev().take(2).collect();
    assert_eq!(last, [format!("--user enable {name}").as_str(), "--user daemon-reload"]);
    let status = run(&["autostart", "status", "-o", "json"]);
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["autostart"], "Enabled");
    assert_eq!(status["unit"], unit.display().to_string());

    // What systemd runs of it: a daemon that ends by itself keeps its pods, and one that is ended does not come back.
    assert!(login.run_line("ExecStop=", "").status.success());
    assert_eq!(cluster.coracle(&["status"]).code, 0, "it runs");
    let stopped = login.run_line("ExecStop=", "1");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(cluster.coracle(&["status"]).code, 3, "it is stopped");
    let started = login.run_line("ExecStart=", "");
    assert!(started.status.success(), "{started:?}");
    assert_eq!(cluster.coracle(&["status"]).code, 0, "it runs");
    assert!(!cluster.kubeconfig().exists(), "nobody's current context is changed at login");

    // Again, and not any more.
    succeeds("enable");
    succeeds("disable");
    assert!(!unit.exists());
    succeeds("disable");

    // Somebody else's stays.
    fs::write(&unit, "[Unit]\nDescription=mine\n").expect("written");
    assert!(failure(&autostart("enable")).contains("not of coracle's making"));
    assert!(failure(&autostart("disable")).contains("not of coracle's making"));
    assert_eq!(fs::read_to_string(&unit).expect("readable"), "[Unit]\nDescription=mine\n");
    fs::remove_file(&unit).expect("it is there");

    // What starts a cluster goes with it.
    succeeds("enable");
    assert!(run(&["delete"]).status.success());
    assert!(!unit.exists());
}
