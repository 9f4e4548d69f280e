//! `coracle start --config FILE`: the options of the command in a file, by their names, as k3s has them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::builder::ArgAction;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, ValueHint};
use serde_json::{Map, Value};

use super::{Arguments, past};

/// A file is read whole.
const MOST: u64 = 1 << 20;
/// Options that mean the file itself, or are of one process alone.
const NOT_IN_FILE: [&str; 4] = ["config", "daemon", "help", "version"];

/// The command line that is typed, with what a file adds to it. Ends the program where what is typed is wrong.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn parse(typed: Vec<OsString>) -> Result<Arguments> {
    let typed = past::without_signs(typed);
    let matches = Arguments::command().get_matches_from(&typed);
    let start = matches.subcommand_matches("start");
    let Some((start, file)) = start.and_then(|start| Some((start, start.get_one::<PathBuf>("config")?))) else {
        return Ok(Arguments::from_arg_matches(&matches)?);
    };
    let metadata = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    if metadata.len() > MOST {
        bail!("{} is too large for a configuration", file.display());
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let added = added(&text, folder, start).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let all = typed.iter().cloned().chain(added.into_iter().map(OsString::from));
    Arguments::try_parse_from(all).map_err(|error| anyhow!("{}: {}", file.display(), first_line(&error)))
}

/// What clap says of a wrong value, without its advice about the command line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The words that a file adds to those that are typed: what is typed counts.
fn added(text: &str, folder: &Path, typed: &ArgMatches) -> Result<Vec<String>> {
    let settings: Option<Map<String, Value>> = serde_saphyr::from_str(text)
        .map_err(|error| anyhow!("expected options by their names, such as nodes: 3: {error}"))?;
    let mut program = Arguments::command();
    program.build();
    let start = program.find_subcommand("start").context("there is a command start")?;
    let mut words = Vec::new();
    for (name, value) in settings.into_iter().flatten() {
        let option = find(start, &name)
            .filter(|option| !NOT_IN_FILE.contains(&option.get_id().as_str()))
            .with_context(|| format!("there is no option {name}; see: coracle start --help"))?;
        if typed.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine) {
            continue;
        }
        let flag = matches!(option.get_action(), ArgAction::SetTrue);
        match value {
            Value::Bool(given) if flag => words.extend(given.then(|| format!("--{name}"))),
            _ if flag => bail!("{name}: expected true or false"),
            Value::Array(values) => {
                for value in &values {
                    words.push(word(&name, option, value, folder)?);
                }
            }
            value => words.push(word(&name, option, &value, folder)?),
        }
    }
    Ok(words)
}

fn find<'a>(start: &'a Command, name: &str) -> Option<&'a Arg> {
    start.get_arguments().find(|option| {
        let aliases = option.get_visible_aliases().unwrap_or_default();
        option.get_long() == Some(name) || aliases.contains(&name)
    })
}

/// An option with its value. Paths are seen from the file's folder.
fn word(name: &str, option: &Arg, value: &Value, folder: &Path) -> Result<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => bail!("{name}: expected a text, a number, true or false, or a list of these"),
    };
    let is_path = matches!(option.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
    let text = if is_path && !text.contains("://") { folder.join(text).to_string_lossy().into_owned() } else { text };
    Ok(format!("--{name}={text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(typed: &str, file: &str) -> Result<Vec<String>, String> {
        let matches = Arguments::command().get_matches_from(typed.split(' '));
        let start = matches.subcommand_matches("start").expect("a start");
        added(file, Path::new("/etc/dev"), start).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_found_by_their_names() {
        let check = |file: &str, expected: &[&str]| {
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            assert_eq!(words("coracle start", file), Ok(expected), "{file}");
        };
        check("", &[]);
        check("nodes: 3\nprofile: dev", &["--nodes=3", "--profile=dev"]);
        check("addons: [lws, gang]\nwait: false", &["--addons=lws", "--addons=gang", "--wait=false"]);
        check("no-load-balancer: true\nunsafe-no-fsync: false", &["--no-load-balancer"]);
        check("audit-policy: audit.yaml", &["--audit-policy=/etc/dev/audit.yaml"]);
        check("audit-policy: /audit.yaml", &["--audit-policy=/audit.yaml"]);
        check(
            "apply: [deploy, 'https://example.com/a.yaml']",
            &["--apply=/etc/dev/deploy", "--apply=https://example.com/a.yaml"],
        );
        check("service-cluster-ip-range: 10.9.0.0/16", &["--service-cluster-ip-range=10.9.0.0/16"]);
    }

    #[test]
    fn what_is_typed_counts() {
        let typed = "coracle start --nodes 2 --profile dev --addons lws";
        assert_eq!(
            words(typed, "nodes: 3\nprofile: x\naddons: [gang]\ntimeout: 5m"),
            Ok(vec!["--timeout=5m".to_owned()])
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |file: &str, expected: &str| {
            let error = words("coracle start", file).expect_err(file);
            assert!(error.contains(expected), "{file}: {error}");
        };
        check("node: 3", "there is no option node; see: coracle start --help");
        check("config: other.yaml", "there is no option config");
        check("daemon: true", "there is no option daemon");
        check("no-kubeconfig: 1", "no-kubeconfig: expected true or false");
        check("nodes: { a: 1 }", "nodes: expected a text, a number");
        check("- nodes", "expected options by their names");
        check("nodes: 1\nnodes: 2", "expected options by their names");
    }
}
