//! The user's kubeconfig: where kubectl finds the cluster.
//!
//! The file belongs to the user. What coracle does not know in it stays as it is (though YAML comments are lost, as
//! they are with kubectl), the file is replaced atomically, and a lock beside it, the same that kubectl takes, keeps two
//! writers apart.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// So long another program may hold the lock before it is taken for a leftover that a person must look at.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// The file that kubectl would change: the first of `$KUBECONFIG` that exists, else the last of them, else
/// `~/.kube/config`. This is client-go's rule.
pub(crate) fn path() -> Result<PathBuf> {
    let listed: Vec<PathBuf> =
        env::var_os("KUBECONFIG").map(|paths| env::split_paths(&paths).collect()).unwrap_or_default();
    let listed = || listed.iter().filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = listed().find(|path| path.exists()).or(listed().next_back()) {
        return Ok(path.clone());
    }
    let home = env::home_dir().context("there is no home directory; set $HOME or $KUBECONFIG")?;
    Ok(home.join(".kube/config"))
}

/// Adds the cluster, user and context of `of` (a whole kubeconfig with one of each, all called `name`) to the file
/// at `path`, replacing those of the same name, and makes the context current.
pub(crate) fn merge(path: &Path, name: &str, of: &str) -> Result<()> {
    let addition = parse(of).context("the cluster's own kubeconfig")?;
    change(path, |config| {
        for (list, field) in LISTS {
            remove_named(config, list, name);
            if let Some(entry) = find_named(&addition, list, name) {
                let entries = config.entry(list).or_insert_with(|| json!([]));
                match entries {
                    Value::Array(entries) => entries.push(entry.clone()),
                    // An empty list is often written as null.
                    Value::Null => *entries = json!([entry]),
                    _ => bail!("`{list}` is not a list of {{name, {field}}}"),
                }
            }
        }
        config.insert("current-context".to_owned(), json!(name));
        Ok(())
    })
}

/// Whether the file at `path` could be changed, so that nothing is begun which could not be finished.
pub(crate) fn check(path: &Path) -> Result<()> {
    let read = match fs::read_to_string(path) {
        Ok(text) => parse(&text).map(|_| ()).context(NO_YAML),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |folder| Ok(fs::create_dir_all(folder)?))
        }
        Err(error) => Err(error.into()),
    };
    read.with_context(|| format!("cannot change the kubeconfig {}", path.display()))
}

const NO_YAML: &str = "it is not valid YAML; mend or move it";

/// Takes the cluster, user and context called `name` out of the file at `path`, if it exists.
pub(crate) fn remove(path: &Path, name: &str) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    change(path, |config| {
        for (list, _) in LISTS {
            remove_named(config, list, name);
        }
        if config.get("current-context").and_then(Value::as_str) == Some(name) {
            config.insert("current-context".to_owned(), json!(""));
        }
        Ok(())
    })
}

/// Whether the file at `path` has a context called `name`.
pub(crate) fn has_context(path: &Path, name: &str) -> bool {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| parse(&text).ok())
        .is_some_and(|config| find_named(&config, "contexts", name).is_some())
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
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let _lock = Lock::take(path)?;
        let old = match fs::read_to_string(path) {
            Ok(text) => parse(&text).context(NO_YAML)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(error.into()),
        };
        let mut new = old.clone();
        new.entry("apiVersion").or_insert_with(|| json!("v1"));
        new.entry("kind").or_insert_with(|| json!("Config"));
        edit(&mut new)?;
        if new == old {
            return Ok(());
        }
        replace(path, &serde_saphyr::to_string(&Value::Object(new))?)
    };
    attempt().with_context(|| format!("cannot change the kubeconfig {}", path.display()))
}

/// Writes `text` to a new file beside `path` and renames it, so that no reader ever sees half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let mode = fs::metadata(path).map_or(0o600, |file| file.permissions().mode() & 0o777);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
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

/// client-go's lock: a file beside the kubeconfig that only one writer can create.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let deadline = Instant::now() + LOCK_PATIENCE;
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

    fn cluster(name: &str, server: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{ "name": name, "cluster": { "server": server } }],
            "users": [{ "name": name, "user": { "client-key-data": "a2V5" } }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        })
        .to_string()
    }

    fn read(path: &Path) -> Value {
        Value::Object(parse(&fs::read_to_string(path).expect("readable")).expect("valid"))
    }

    #[test]
    fn a_new_file_is_private_and_complete() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("kube/config");
        merge(&path, "one", &cluster("one", "https://127.0.0.1:1")).expect("merged");
        let config = read(&path);
        assert_eq!(config["current-context"], "one");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(has_context(&path, "one") && !has_context(&path, "two"));
    }

    #[test]
    fn what_belongs_to_others_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config");
        let theirs = "current-context: theirs\npreferences: {colors: true}\nclusters:\n- name: theirs\n  cluster: {server: 'https://a'}\nusers: null\n";
        fs::write(&path, theirs).expect("written");
        merge(&path, "one", &cluster("one", "https://b")).expect("merged");
        merge(&path, "one", &cluster("one", "https://c")).expect("merged again");
        let config = read(&path);
        assert_eq!(config["clusters"].as_array().map(Vec::len), Some(2));
        assert_eq!(config["clusters"][1]["cluster"]["server"], "https://c");
        assert_eq!(config["preferences"]["colors"], true);

        remove(&path, "one").expect("removed");
        let config = read(&path);
        assert_eq!(config["clusters"], json!([{ "name": "theirs", "cluster": { "server": "https://a" } }]));
        assert_eq!(config["current-context"], "");
        assert!(!folder.path().join("config.lock").exists());
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config");
        for broken in ["clusters: [", "- a list", "clusters: 3\n"] {
            fs::write(&path, broken).expect("written");
            assert!(merge(&path, "one", &cluster("one", "https://b")).is_err());
            assert_eq!(fs::read_to_string(&path).expect("readable"), broken);
        }
    }

    #[test]
    fn removing_from_a_file_that_is_not_there_makes_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config");
        remove(&path, "one").expect("nothing to do");
        assert!(!path.exists());
    }
}
