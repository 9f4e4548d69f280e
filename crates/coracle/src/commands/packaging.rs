//! `coracle packaging`: what packages bring beside the program, out of the program itself.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use super::{autostart, completion};
use crate::cli::{self, Arguments};

/// The completions, by the names under which the shells look for them.
const COMPLETIONS: [(Shell, &str); 3] =
    [(Shell::Bash, "coracle.bash"), (Shell::Zsh, "_coracle"), (Shell::Fish, "coracle.fish")];

/// Writes `man/`, a page for each command, `completions/` and `systemd/`.
pub(crate) fn run(wanted: &cli::Packaging) -> Result<ExitCode> {
    let folder = |name: &str| {
        let folder = wanted.folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok::<_, anyhow::Error>(folder)
    };
    let pages = folder("man")?;
    clap_mangen::generate_to(Arguments::command(), &pages)
        .with_context(|| format!("cannot write to {}", pages.display()))?;
    let mut texts = vec![(folder("systemd")?.join("coracle@.service"), autostart::packaged())];
    let completions = folder("completions")?;
    for (shell, name) in COMPLETIONS {
        texts.push((completions.join(name), completion::script(shell)? + "\n"));
    }
    for (path, text) in texts {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_a_page_for_each_command_and_its_completions() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(&cli::Packaging { folder: folder.path().join("new") }).expect("written");
        let read = |name: &str| fs::read_to_string(folder.path().join("new").join(name)).expect(name);
        assert!(read("man/coracle.1").contains("coracle\\-start(1)"));
        assert!(read("man/coracle-node-add.1").contains("\\-\\-fake"));
        assert!(read("completions/coracle.bash").contains("complete -o"));
        assert!(read("completions/coracle.fish").contains("--command coracle"));
        assert!(read("completions/_coracle").starts_with("#compdef coracle\n"));
        let unit = read("systemd/coracle@.service");
        assert!(unit.contains("ExecStart=/usr/bin/coracle start "), "{unit}");
        // What is not to be seen in `--help` has no page either.
        assert!(!folder.path().join("new/man/coracle-packaging.1").exists());
        assert!(!folder.path().join("new/man/coracle-tunnel.1").exists());
    }
}
