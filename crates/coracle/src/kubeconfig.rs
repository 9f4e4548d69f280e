//! The user's kubeconfig: where kubectl finds the cluster.
//!
//! The file belongs to the user. What coracle does not know in it stays as it is (though YAML comments are lost, as
//! they are with kubectl), the file is replaced atomically, and a lock beside it, the same that kubectl takes, keeps two
//! writers apart. Entries of a cluster carry the folder of its state, so that those which another program, or a cluster in
//! another home, made under the same name are neither replaced nor removed.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use serde_json::{Map, Value, json};

/// How long another program may hold the lock before it is taken for a leftover that a person must look at.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The file that kubectl would change: the first of `$KUBECONFIG` that exists, else the last of them, else
/// `~/.kube/config`. This is client-go's rule.
pub(crate) fn path() -> Result<PathBuf> {
    let paths = paths()?;
    let path = paths.iter().find(|path| path.exists()).or(paths.last());
    path.cloned().context("$KUBECONFIG names no file")
}

/// All files that kubectl reads: those of `$KUBECONFIG`, else `~/.kube/config`.
pub(crate) fn paths() -> Result<Vec<PathBuf>> {
    let listed = env::var_os("KUBECONFIG").unwrap_or_default();
    let listed: Vec<PathBuf> = env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let home = env::home_dir().context("there is no home directory; set $HOME or $KUBECONFIG")?;
    Ok(vec![home.join(".kube/config")])
}

/// The cluster whose entries are meant: its name, and what tells its entries from those of another cluster that happens to
/// have the same name.
pub(crate) struct Cluster<'a> {
    name: &'a str,
    /// The folder of its state, which its entries carry in their extension `coracle.dev`.
    folder: PathBuf,
    /// Its certificate authority, by which entries without that extension are known; none if it has no state any more.
    authority: Option<String>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn of(profile: &'a Profile) -> Self {
        let own = fs::read_to_string(profile.kubeconfig()).ok().and_then(|text| parse(&text).ok());
        let authority = own.as_ref().and_then(|own| authority(own, profile.name())).map(str::to_owned);
        Self { name: profile.name(), folder: profile.canonical_folder(), authority }
    }

    /// The list in which `config` has an entry of this name that is somebody else's.
    fn foreign(&self, config: &Map<String, Value>) -> Option<&'static str> {
        LISTS.iter().find(|(list, _)| self.has(config, list) == Some(false)).map(|(_, entry)| *entry)
    }

    /// Whether the entry of this name is this cluster's; `None` if there is none.
    fn has(&self, config: &Map<String, Value>, list: &str) -> Option<bool> {
        let (_, field) = LISTS.iter().find(|(name, _)| *name == list)?;
        let entry = find_named(config, list, self.name)?;
        let extensions = entry.get(field).and_then(|entry| entry.get("extensions")).and_then(Value::as_array);
        let ours = extensions.into_iter().flatten().find(|extension| extension["name"] == cluster::EXTENSION);
        Some(match ours.and_then(|extension| extension["extension"]["folder"].as_str()) {
            // What is left of a cluster whose state somebody removed belongs to nobody.
            Some(folder) => !hostfs::is_another_folder(Path::new(folder), &self.folder),
            None => self.authority.is_some() && authority(config, self.name) == self.authority.as_deref(),
        })
    }
}

/// The certificate authority of the cluster called `name`.
fn authority<'a>(config: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    find_named(config, "clusters", name)?.get("cluster")?.get("certificate-authority-data")?.as_str()
}

/// Adds the entries of `cluster` in `of` (a whole kubeconfig with a cluster, a user and a context) to the file at `path`,
/// replacing its earlier ones, and makes the context current. The context keeps the namespace that it was given.
///
/// # Errors
/// When the file is no kubeconfig, or has an entry of that name which is another cluster's: it is left as it is then.
pub(crate) fn merge(path: &Path, cluster: &Cluster<'_>, of: &str) -> Result<()> {
    let addition = parse(of).context("the cluster's own kubeconfig")?;
    change(path, |config| {
        refuse_foreign(config, cluster)?;
        let namespace =
            find_named(config, "contexts", cluster.name).and_then(|entry| entry["context"].get("namespace"));
        let namespace = namespace.cloned();
        for (list, field) in LISTS {
            remove_named(config, list, cluster.name);
            if let Some(entry) = find_named(&addition, list, cluster.name) {
                let mut entry = entry.clone();
                if let (true, Some(namespace)) = (list == "contexts", &namespace) {
                    entry["context"]["namespace"] = namespace.clone();
                }
                let entries = config.entry(list).or_insert_with(|| json!([]));
                match entries {
                    Value::Array(entries) => entries.push(entry),
                    // An empty list is often written as null.
                    Value::Null => *entries = json!([entry]),
                    _ => bail!("`{list}` is not a list of {{name, {field}}}"),
                }
            }
        }
        config.insert("current-context".to_owned(), json!(cluster.name));
        Ok(())
    })
}

fn refuse_foreign(config: &Map<String, Value>, cluster: &Cluster<'_>) -> Result<()> {
    let name = cluster.name;
    match cluster.foreign(config) {
        Some(entry) => bail!(
            "it has a {entry} \"{name}\" of another cluster, which would be overwritten; choose another name \
             (coracle start -p NAME), or leave the file alone (--no-kubeconfig)"
        ),
        None => Ok(()),
    }
}

/// Whether [`merge`] could be done in each of `paths`, so that nothing is begun which could not be finished.
pub(crate) fn check(paths: &[PathBuf], cluster: &Cluster<'_>) -> Result<()> {
    for path in paths {
        let read = match fs::read_to_string(path) {
            Ok(text) => parse(&text).context(NO_YAML).and_then(|config| refuse_foreign(&config, cluster)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        };
        read.with_context(|| format!("cannot change the kubeconfig {}", path.display()))?;
    }
    Ok(())
}

const NO_YAML: &str = "it is not valid YAML; repair it, or move it away";

/// Takes the entries of `cluster` out of the file at `path`, if it exists. Those of others with its name stay.
pub(crate) fn remove(path: &Path, cluster: &Cluster<'_>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    change(path, |config| {
        // Whose an entry is can depend on the others of the name: first find out, then remove.
        let own: Vec<&str> =
            LISTS.iter().map(|(list, _)| *list).filter(|list| cluster.has(config, list) == Some(true)).collect();
        for list in &own {
            remove_named(config, list, cluster.name);
        }
        if own.contains(&"contexts") && config.get("current-context").and_then(Value::as_str) == Some(cluster.name) {
            config.insert("current-context".to_owned(), json!(""));
        }
        Ok(())
    })
}

/// Whether the file at `path` has the context of `cluster`.
pub(crate) fn has_context(path: &Path, cluster: &Cluster<'_>) -> bool {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| parse(&text).ok())
        .is_some_and(|config| cluster.has(&config, "contexts") == Some(true))
}

const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];

fn find_named<'a>(config: &'a Map<String, Value>, list: &str, name: &str) -> Option<&'a Value> {
    let entries = config.get(list)?.as_array()?;
    entries.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

fn remove_named(config: &mut Map<String, Value>, list: &str, name: &str) {
    if let Some(Value::Array(entries)) = config.get_mut(list) {
        entries.retain(|entry| entry.get("name").and_then(Value::as_str) != Some(name));
    }
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_saphyr::from_str(text)? {
        Value::Object(config) => Ok(config),
        Value::Null => Ok(Map::new()),
        _ => bail!("it is not a mapping"),
    }
}

/// Reads, changes and replaces the file at `path`, under kubectl's lock. A file that does not change is not written.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
    // A symbolic link stays one: its target is what is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let attempt = || -> Result<()> {
        create_folder(folder(path))?;
        let _lock = Lock::take(path)?;
        let old = match fs::read_to_string(path) {
            Ok(text) => parse(&text).context(NO_YAML)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error.into()),
        };
        let mut new = old.clone();
        edit(&mut new)?;
        if new == old {
            return Ok(());
        }
        new.entry("apiVersion").or_insert_with(|| json!("v1"));
        new.entry("kind").or_insert_with(|| json!("Config"));
        replace(path, &serde_saphyr::to_string(&Value::Object(new))?)
    };
    attempt().with_context(|| format!("cannot change the kubeconfig {}", path.display()))
}

/// Writes `text` to a new file beside `path` and renames it, so that no reader ever sees half of it. It belongs to whom the
/// old one belonged to, and a first one to the owner of its folder: root may work on another user's file.
fn replace(path: &Path, text: &str) -> Result<()> {
    let old = fs::metadata(path);
    let mode = old.as_ref().map_or(0o600, |file| file.permissions().mode() & 0o777);
    let owner = old.or_else(|_| fs::metadata(folder(path)));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        // What is there under this name is of a process that died, or a trap that somebody laid for root.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        if let (true, Ok(owner)) = (is_root(), &owner) {
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    Ok(result?)
}

/// Makes `folder` and what is missing above it. As root, they belong to the owner of the folder that they are made in.
fn create_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for new in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        let above = new.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let owner = fs::metadata(above)?;
        fs::create_dir(new)?;
        if is_root() {
            lchown(new, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// client-go's lock: a file beside the kubeconfig that only one writer can create.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match File::create_new(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if Instant::now() >= deadline {
                        bail!("{} is held by another program; remove it if there is none", lock.display());
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A home with a cluster called `one`, whose certificate authority is `ca`.
    struct Home {
        folder: tempfile::TempDir,
        profile: Profile,
        ca: &'static str,
    }

    impl Home {
        fn new(ca: &'static str) -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let profile = cluster::Home::resolve(Some(folder.path())).and_then(|home| home.profile("one"));
            let profile = profile.expect("a legal name");
            profile.create().expect("created");
            let home = Self { folder, profile, ca };
            fs::write(home.profile.kubeconfig(), home.own("https://127.0.0.1:1")).expect("written");
            home
        }

        fn own(&self, server: &str) -> String {
            let extensions =
                json!([{ "name": cluster::EXTENSION, "extension": { "folder": self.profile.canonical_folder() } }]);
            json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "one",
                "clusters": [{ "name": "one", "cluster": {
                    "server": server, "certificate-authority-data": self.ca, "extensions": extensions,
                } }],
                "users": [{ "name": "one", "user": { "client-key-data": "a2V5", "extensions": extensions } }],
                "contexts": [{ "name": "one", "context": {
                    "cluster": "one", "user": "one", "namespace": "default", "extensions": extensions,
                } }],
            })
            .to_string()
        }

        fn merge(&self, path: &Path, server: &str) -> Result<()> {
            merge(path, &Cluster::of(&self.profile), &self.own(server))
        }

        fn remove(&self, path: &Path) {
            remove(path, &Cluster::of(&self.profile)).expect("removed");
        }
    }

    fn read(path: &Path) -> Value {
        Value::Object(parse(&fs::read_to_string(path).expect("readable")).expect("valid"))
    }

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config");
        (folder, path)
    }

    #[test]
    fn a_new_file_is_private_and_complete() {
        let (home, (folder, _)) = (Home::new("Y2E="), scratch());
        let path = folder.path().join("kube/config");
        home.merge(&path, "https://127.0.0.1:1").expect("merged");
        let config = read(&path);
        assert_eq!(config["current-context"], "one");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(has_context(&path, &Cluster::of(&home.profile)));
        assert!(!has_context(&path, &Cluster::of(&Home::new("b3RoZXI=").profile)));
    }

    #[test]
    fn what_belongs_to_others_stays() {
        let (home, (folder, path)) = (Home::new("Y2E="), scratch());
        let theirs = "current-context: theirs\npreferences: {colors: true}\nclusters:\n- name: theirs\n  cluster: {server: 'https://a'}\nusers: null\n";
        fs::write(&path, theirs).expect("written");
        home.merge(&path, "https://b").expect("merged");
        home.merge(&path, "https://c").expect("merged again");
        let config = read(&path);
        assert_eq!(config["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(config["clusters"][1]["cluster"]["server"], "https://c");
        assert_eq!(config["preferences"]["colors"], true);

        home.remove(&path);
        let config = read(&path);
        assert_eq!(config["clusters"], json!([{ "name": "theirs", "cluster": { "server": "https://a" } }]));
        assert_eq!(config["current-context"], "");
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn entries_of_the_same_name_that_are_not_ours_are_neither_replaced_nor_removed() {
        let (home, other, (_folder, path)) = (Home::new("Y2E="), Home::new("b3RoZXI="), scratch());
        let by_hand = "current-context: one\nclusters:\n- name: one\n  cluster: {server: 'https://a'}\nusers:\n- name: one\n  user: {token: secret}\ncontexts:\n- name: one\n  context: {cluster: one, user: one}\n";
        let only_a_user = "users:\n- name: one\n  user: {token: secret}\n".to_owned();
        for theirs in [by_hand.to_owned(), only_a_user, other.own("https://a")] {
            fs::write(&path, &theirs).expect("written");
            let error = home.merge(&path, "https://b").expect_err(&theirs);
            assert!(format!("{error:#}").contains("\"one\" of another cluster"), "{error:#}");
            check(std::slice::from_ref(&path), &Cluster::of(&home.profile)).expect_err(&theirs);
            home.remove(&path);
            assert_eq!(fs::read_to_string(&path).expect("readable"), theirs);
        }
    }

    #[test]
    fn entries_of_a_cluster_whose_state_is_gone_may_be_replaced() {
        let (home, other, (_folder, path)) = (Home::new("Y2E="), Home::new("b3RoZXI="), scratch());
        other.merge(&path, "https://a").expect("merged");
        home.merge(&path, "https://b").expect_err("the other cluster is there");
        other.folder.close().expect("removed");
        home.merge(&path, "https://b").expect("the other cluster is gone");
        assert_eq!(read(&path)["clusters"][0]["cluster"]["server"], "https://b");
    }

    #[test]
    fn entries_without_the_extension_are_known_by_the_certificate_authority() {
        let (home, (_folder, path)) = (Home::new("Y2E="), scratch());
        let mut config = serde_json::from_str::<Value>(&home.own("https://a")).expect("JSON");
        for (list, field) in LISTS {
            config[list][0][field].as_object_mut().expect("an object").remove("extensions");
        }
        fs::write(&path, config.to_string()).expect("written");
        home.merge(&path, "https://b").expect("ours");
        home.remove(&path);
        assert_eq!(read(&path)["users"], json!([]));
    }

    #[test]
    fn the_context_keeps_its_namespace() {
        let (home, (_folder, path)) = (Home::new("Y2E="), scratch());
        home.merge(&path, "https://a").expect("merged");
        change(&path, |config| {
            config["contexts"][0]["context"]["namespace"] = json!("shop");
            Ok(())
        })
        .expect("changed");
        home.merge(&path, "https://b").expect("merged again");
        assert_eq!(read(&path)["contexts"][0]["context"]["namespace"], "shop");
    }

    #[test]
    fn root_leaves_a_file_and_new_folders_to_their_owner() {
        if !is_root() {
            // Nobody else can give files away.
            return;
        }
        let (home, (folder, _)) = (Home::new("Y2E="), scratch());
        let owner = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).expect("there");
        std::os::unix::fs::chown(folder.path(), Some(1234), Some(1235)).expect("given away");
        let path = folder.path().join("kube/config");
        home.merge(&path, "https://a").expect("merged");
        assert_eq!(owner(&path), (1234, 1235));
        assert_eq!(owner(&folder.path().join("kube")), (1234, 1235));
        std::os::unix::fs::chown(&path, Some(77), Some(78)).expect("given away");
        home.remove(&path);
        assert_eq!(owner(&path), (77, 78));
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let (home, (_folder, path)) = (Home::new("Y2E="), scratch());
        for broken in ["clusters: [", "- a list", "clusters: 3\n"] {
            fs::write(&path, broken).expect("written");
            assert!(home.merge(&path, "https://b").is_err());
            assert_eq!(fs::read_to_string(&path).expect("readable"), broken);
        }
    }

    #[test]
    fn removing_from_a_file_that_is_not_there_makes_none() {
        let (home, (_folder, path)) = (Home::new("Y2E="), scratch());
        home.remove(&path);
        assert!(!path.exists());
    }
}
