//! `coracle autostart`: a unit of systemd that starts the cluster's daemon, at boot where root asks for it and at login
//! where somebody else does.
//!
//! The unit says in `X-Coracle-Folder`, which systemd passes over, which cluster's it is. One that says nothing, or another
//! folder, is somebody else's: it is neither replaced nor removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use serde::Serialize;

use crate::cli::{self, Autostart, Format};
use crate::output;

/// The unit, with what differs in braces.
const TEMPLATE: &str = include_str!("autostart.service");
/// The key of the line that says whose a unit is.
const OWNER: &str = "X-Coracle-Folder=";
/// The exit code of a cluster that is not started by itself: that of `coracle status` for one that does not run.
const DISABLED: u8 = 3;

/// Which of the systemds is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    /// The machine's.
    System,
    /// That of the user who is logged in.
    User,
}

impl Manager {
    fn of_this_user() -> Self {
        if rustix::process::geteuid().is_root() { Self::System } else { Self::User }
    }

    /// Where units are that no package brought.
    fn folder(self) -> Result<PathBuf> {
        if self == Self::System {
            return Ok("/etc/systemd/system".into());
        }
        // The XDG base directory specification: a path that is not absolute is to be ignored.
        let given = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = given.or_else(|| Some(std::env::home_dir()?.join(".config")));
        Ok(config.context("you have no home directory; set $HOME")?.join("systemd/user"))
    }

    /// Runs systemctl and returns what it printed, and whether it was content.
    fn systemctl(self, arguments: &[&str]) -> io::Result<(bool, String)> {
        let mut command = Command::new("systemctl");
        if self == Self::User {
            command.arg("--user");
        }
        let output = command.args(arguments).stdin(Stdio::null()).output()?;
        let told = if output.status.success() { output.stdout } else { [output.stdout, output.stderr].concat() };
        Ok((output.status.success(), String::from_utf8_lossy(&told).trim().to_owned()))
    }

    /// As [`systemctl`](Self::systemctl), for what has to be done.
    fn do_with_systemctl(self, arguments: &[&str]) -> Result<()> {
        match self.systemctl(arguments) {
            Ok((true, _)) => Ok(()),
            Ok((false, why)) => bail!("systemd refuses: {}", why.lines().next().unwrap_or("it does not say why")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("there is no systemctl"),
            Err(error) => Err(error).context("cannot run systemctl"),
        }
    }

    fn when(self) -> &'static str {
        match self {
            Self::System => "when the machine boots",
            Self::User => "at your login",
        }
    }
}

/// What stands where the unit would be.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing.
    Nothing,
    /// This cluster's unit.
    Own,
    /// The unit of another cluster with the same name, which is in this folder.
    OfCluster(PathBuf),
    /// Something else.
    Foreign,
}

/// The unit of a cluster.
struct Unit {
    manager: Manager,
    name: String,
    path: PathBuf,
}

impl Unit {
    fn of(profile: &Profile) -> Result<Self> {
        let manager = Manager::of_this_user();
        let name = format!("coracle-{}.service", profile.name());
        Ok(Self { manager, path: manager.folder()?.join(&name), name })
    }

    fn find(&self, profile: &Profile) -> Result<Found> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.path.display())),
            // A unit that is masked is a link to /dev/null.
            Ok(metadata) if !metadata.is_file() => return Ok(Found::Foreign),
            Ok(_) => {}
        }
        let text = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(owner(&String::from_utf8_lossy(&text), &profile.canonical_folder()))
    }

    /// Refuses a unit that is not this cluster's.
    fn refuse(&self, found: &Found) -> Result<()> {
        let path = self.path.display();
        match found {
            Found::Nothing | Found::Own => Ok(()),
            Found::OfCluster(folder) => {
                bail!("{path} starts another cluster of this name, in {}; remove it first", folder.display())
            }
            Found::Foreign => bail!("{path} is not of coracle's making; move it away first"),
        }
    }

    /// Removes the unit, and tells systemd where there is one to be told.
    fn remove(&self) -> Result<()> {
        if self.manager.do_with_systemctl(&["disable", &self.name]).is_err() {
            // What `disable` would have removed.
            for target in ["default.target.wants", "multi-user.target.wants"] {
                let link = self.path.with_file_name(target).join(&self.name);
                if fs::read_link(&link).is_ok_and(|to| to == self.path) {
                    fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
                }
            }
        }
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        let _ = self.manager.systemctl(&["daemon-reload"]);
        Ok(())
    }
}

/// Whose a unit is, by its text; `folder` is the cluster's.
fn owner(text: &str, folder: &Path) -> Found {
    match text.lines().find_map(|line| line.strip_prefix(OWNER)) {
        None => Found::Foreign,
        Some(named) if Path::new(&named.replace("%%", "%")) == folder => Found::Own,
        Some(named) => Found::OfCluster(named.replace("%%", "%").into()),
    }
}

/// What differs from unit to unit, by its name in the template.
#[derive(Debug, Default)]
struct Values {
    name: String,
    order: String,
    folder: String,
    settings: String,
    program: String,
    cluster: String,
    target: &'static str,
}

impl Values {
    fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
        {
            text.push_str(before);
            text.push_str(match name {
                "NAME" => &self.name,
                "ORDER" => &self.order,
                "FOLDER" => &self.folder,
                "SETTINGS" => &self.settings,
                "PROGRAM" => &self.program,
                "CLUSTER" => &self.cluster,
                "TARGET" => self.target,
                _ => "",
            });
            rest = after;
        }
        text + rest
    }
}

/// A word as systemd reads it in the lines of a unit that have several (systemd.syntax(7), systemd.service(5)); `is_argument`
/// where a dollar would name a variable.
fn quoted(word: &str, is_argument: bool) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    let word = if is_argument { word.replace('$', "$$") } else { word };
    format!("\"{word}\"")
}

/// What is particular to this cluster and machine.
struct Circumstances<'a> {
    manager: Manager,
    program: &'a Path,
    name: &'a str,
    /// The cluster's folder, which is in its home.
    folder: &'a Path,
    /// Whose the folder is, for root: the daemon is theirs, too.
    owner: u32,
    docker_host: Option<String>,
}

/// The unit of a cluster.
fn text(of: &Circumstances<'_>) -> Result<String> {
    let plain = |path: &Path| match path.to_str() {
        Some(text) if !text.contains(|letter: char| letter.is_control()) => Ok(text.to_owned()),
        _ => bail!("a unit of systemd cannot name {}", path.display()),
    };
    let home = plain(of.folder.parent().context("a cluster has a home")?)?;
    let folder = plain(of.folder)?.replace('%', "%%");
    let mut order = format!("{OWNER}{folder}\n");
    let mut settings = String::new();
    let target = match of.manager {
        Manager::System => {
            order.push_str("Wants=network-online.target\nAfter=network-online.target docker.service\n");
            if of.owner != 0 {
                settings = format!("User={}\n", of.owner);
            }
            "multi-user.target"
        }
        Manager::User => "default.target",
    };
    if let Some(host) = &of.docker_host {
        settings.push_str(&format!("Environment={}\n", quoted(&format!("DOCKER_HOST={host}"), false)));
    }
    let values = Values {
        name: of.name.to_owned(),
        order,
        folder,
        settings,
        program: quoted(&plain(of.program)?, true),
        cluster: format!("--profile {} --home {}", of.name, quoted(&home, true)),
        target,
    };
    Ok(values.fill(TEMPLATE))
}

/// The unit of packages, for all clusters of all users: `systemctl --user enable coracle@NAME`.
pub(super) fn packaged() -> String {
    let values = Values {
        name: "%i".to_owned(),
        folder: "%h/.coracle/%i".to_owned(),
        program: "/usr/bin/coracle".to_owned(),
        cluster: "--profile %i --home %h/.coracle".to_owned(),
        target: "default.target",
        ..Values::default()
    };
    values.fill(TEMPLATE)
}

pub(crate) fn run(profile: &Profile, command: &Autostart) -> Result<ExitCode> {
    let unit = Unit::of(profile)?;
    match command {
        Autostart::Enable => enable(profile, &unit),
        Autostart::Disable => disable(profile, &unit),
        Autostart::Status(wanted) => status(profile, &unit, wanted),
    }
}

fn enable(profile: &Profile, unit: &Unit) -> Result<ExitCode> {
    let (name, manager) = (profile.name(), unit.manager);
    if !profile.exists() {
        bail!("there is no cluster {name}; first: coracle start -p {name}");
    }
    unit.refuse(&unit.find(profile)?)?;
    let folder = profile.canonical_folder();
    let program = std::env::current_exe().context("cannot find this program")?;
    let text = text(&Circumstances {
        manager,
        program: &program,
        name,
        folder: &folder,
        owner: fs::metadata(&folder).with_context(|| format!("cannot read {}", folder.display()))?.uid(),
        docker_host: std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()),
    })?;
    let before = fs::read(&unit.path).ok();
    let units = unit.path.parent().context("a unit is in a folder")?;
    let written = fs::create_dir_all(units).and_then(|()| fs::write(&unit.path, text));
    written.with_context(|| format!("cannot write {}", unit.path.display()))?;
    let enabled =
        manager.do_with_systemctl(&["daemon-reload"]).and_then(|()| manager.do_with_systemctl(&["enable", &unit.name]));
    if let Err(error) = enabled {
        // It is as it was: what does not start must not look as if it did.
        let _ = match before {
            Some(before) => fs::write(&unit.path, before),
            None => fs::remove_file(&unit.path),
        };
        let home = folder.parent().unwrap_or(&folder).display();
        return Err(error.context(format!(
            "cannot let systemd start the cluster {name}; let whatever does so {} run: {} start --no-kubeconfig --profile {name} --home {home}",
            manager.when(), program.display(),
        )));
    }
    output::note(format!("The cluster {name} is started {}, by {}.", manager.when(), unit.path.display()));
    if manager == Manager::User {
        output::note("To have it started at boot, before you log in: loginctl enable-linger");
    }
    Ok(ExitCode::SUCCESS)
}

fn disable(profile: &Profile, unit: &Unit) -> Result<ExitCode> {
    let found = unit.find(profile)?;
    unit.refuse(&found)?;
    if found == Found::Own {
        unit.remove()?;
        output::note(format!("The cluster {} is not started {} any more.", profile.name(), unit.manager.when()));
    } else {
        output::note(format!("The cluster {} was not started {}.", profile.name(), unit.manager.when()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what starts a cluster that is deleted.
pub(super) fn forget(profile: &Profile) -> Result<()> {
    // Without a home there is no unit, and what is deleted may have been given by its path.
    let Ok(unit) = Unit::of(profile) else { return Ok(()) };
    match unit.find(profile)? {
        Found::Own => unit.remove(),
        _ => Ok(()),
    }
}

/// Whether a cluster is started by itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    profile: String,
    /// `Enabled`, `Disabled`, or `Foreign` where the unit is not this cluster's.
    autostart: &'static str,
    unit: PathBuf,
}

fn status(profile: &Profile, unit: &Unit, wanted: &cli::AutostartStatus) -> Result<ExitCode> {
    let autostart = match unit.find(profile)? {
        Found::Own if matches!(unit.manager.systemctl(&["is-enabled", &unit.name]), Ok((true, _))) => "Enabled",
        Found::Own | Found::Nothing => "Disabled",
        Found::OfCluster(_) | Found::Foreign => "Foreign",
    };
    let answer = Answer { profile: profile.name().to_owned(), autostart, unit: unit.path.clone() };
    match wanted.output {
        Format::Json => output::json(&answer)?,
        Format::Text => output::line(format!("{} ({})", answer.autostart, answer.unit.display()))?,
    }
    Ok(if autostart == "Enabled" { ExitCode::SUCCESS } else { ExitCode::from(DISABLED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(manager: Manager, program: &str, folder: &str, owner: u32, docker_host: Option<&str>) -> String {
        let docker_host = docker_host.map(str::to_owned);
        let (program, folder) = (Path::new(program), Path::new(folder));
        text(&Circumstances { manager, program, name: "dev", folder, owner, docker_host }).expect("it can be named")
    }

    #[test]
    fn a_unit_starts_its_cluster() {
        let has = |unit: &str, line: &str, expected: bool| {
            assert_eq!(unit.lines().any(|one| one == line), expected, "{line}\n{unit}");
        };
        let user = unit(Manager::User, "/opt/coracle", "/home/a/.coracle/dev", 1000, None);
        let cluster = "--profile dev --home \"/home/a/.coracle\"";
        has(&user, &format!("ExecStart=\"/opt/coracle\" start --no-kubeconfig --wait=false {cluster}"), true);
        has(&user, "ConditionPathIsDirectory=/home/a/.coracle/dev", true);
        has(&user, "WantedBy=default.target", true);
        has(&user, "User=1000", false);
        assert!(!user.contains("docker.service") && !user.contains("Environment="), "{user}");
        assert!(!user.contains(['{', '}']), "all is filled in: {user}");

        let system = unit(Manager::System, "/opt/coracle", "/home/a/.coracle/dev", 1000, Some("unix:///run/d.sock"));
        has(&system, "After=network-online.target docker.service", true);
        has(&system, "User=1000", true);
        has(&system, "Environment=\"DOCKER_HOST=unix:///run/d.sock\"", true);
        has(&system, "WantedBy=multi-user.target", true);
        has(&unit(Manager::System, "/opt/coracle", "/root/.coracle/dev", 0, None), "User=0", false);
    }

    #[test]
    fn paths_mean_in_a_unit_what_they_are() {
        let folder = "/a b/50%/$HOME/{NAME}/dev";
        let odd = unit(Manager::User, "/a\"b\\c", folder, 1000, Some("tcp://$h:1"));
        let cluster = "--profile dev --home \"/a b/50%%/$$HOME/{NAME}\"";
        let start = format!("ExecStart=\"/a\\\"b\\\\c\" start --no-kubeconfig --wait=false {cluster}\n");
        assert!(odd.contains(&start), "{odd}");
        assert!(odd.contains("ConditionPathIsDirectory=/a b/50%%/$HOME/{NAME}/dev\n"), "{odd}");
        assert!(odd.contains("Environment=\"DOCKER_HOST=tcp://$h:1\"\n"), "{odd}");
        assert_eq!(owner(&odd, Path::new(folder)), Found::Own);
        let program = Path::new("/x");
        let broken = Path::new("/a\nExecStart=/bin/evil/dev");
        let of =
            Circumstances { manager: Manager::User, program, name: "dev", folder: broken, owner: 1, docker_host: None };
        assert!(text(&of).is_err());
    }

    #[test]
    fn a_unit_says_whose_it_is() {
        let check = |text: &str, expected: Found| assert_eq!(owner(text, Path::new("/h/dev")), expected, "{text}");
        check("[Unit]\nX-Coracle-Folder=/h/dev\n", Found::Own);
        check("[Unit]\nX-Coracle-Folder=/other/dev\n", Found::OfCluster("/other/dev".into()));
        check("[Unit]\nDescription=mine\n# X-Coracle-Folder=/h/dev\n", Found::Foreign);
        check("", Found::Foreign);
    }
}
