//! `coracle learn`: the course, in the terminal.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use cluster::Profile;
use tempfile::TempDir;

use super::require_running;
use crate::course::{LESSONS, Language, Lesson, steps};
use crate::{cli, output};

/// The image of the lessons' manifests.
const IMAGE: &str = "busybox:1.37";
/// What names another one, as for the lessons' scripts.
const IMAGE_VARIABLE: &str = "COURSE_IMAGE";

/// `profile` is asked only when commands are to be run: to read takes no cluster.
pub(crate) fn run(profile: impl Fn() -> Result<Profile>, wanted: &cli::Learn) -> Result<ExitCode> {
    let language = wanted.lang.unwrap_or_else(|| language_of(|name| std::env::var(name).ok()));
    match &wanted.lesson {
        None => list(language)?,
        Some(number) => {
            let lesson = lesson(number, language)?;
            if io::stdin().is_terminal() {
                Walk { profile, lesson, language, folder: None, has_run: false }.walk()?;
            } else {
                output::line(lesson.page(language).trim_end())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// POSIX: of these variables the first one that is set and not empty counts.
fn language_of(variable: impl Fn(&str) -> Option<String>) -> Language {
    let locale =
        ["LC_ALL", "LC_MESSAGES", "LANG"].iter().filter_map(|name| variable(name)).find(|name| !name.is_empty());
    Language::of_locale(&locale.unwrap_or_default())
}

fn list(language: Language) -> Result<()> {
    for lesson in &LESSONS {
        let (number, title) = lesson.title(language).split_once(". ").unwrap_or_default();
        output::line(format!("{number:>2}  {title}"))?;
    }
    output::note(match language {
        Language::En => "Walk through one with: coracle learn N",
        Language::Zh => "学习其中一课：coracle learn N",
    });
    Ok(())
}

fn lesson(number: &str, language: Language) -> Result<&'static Lesson> {
    let known = number.parse::<usize>().ok().and_then(|number| LESSONS.get(number.checked_sub(1)?));
    let Some(lesson) = known else {
        match language {
            Language::En => bail!("there is no lesson {number}; there are 1 to {}, see: coracle learn", LESSONS.len()),
            Language::Zh => bail!("没有第 {number} 课；共有 1 到 {} 课，见：coracle learn", LESSONS.len()),
        }
    };
    Ok(lesson)
}

/// What the reader wants at the end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    GoOn,
    Run,
    Leave,
}

/// Somebody at a terminal, in a lesson.
struct Walk<P> {
    profile: P,
    lesson: &'static Lesson,
    language: Language,
    /// Where commands are run; made for the first of them.
    folder: Option<TempDir>,
    has_run: bool,
}

impl<P: Fn() -> Result<Profile>> Walk<P> {
    fn walk(mut self) -> Result<()> {
        let steps = steps(self.lesson.page(self.language));
        let last = steps.len() - 1;
        for (index, step) in steps.iter().enumerate() {
            output::line(format!("{}\n", step.text))?;
            loop {
                // At the end there is nothing to wait for, but what can be run.
                if index == last && step.commands.is_empty() {
                    return Ok(());
                }
                match self.ask(!step.commands.is_empty())? {
                    Answer::GoOn => break,
                    Answer::Leave if self.has_run && index != last => {
                        output::note(format!("{}\n\n{}", self.words().left, steps[last].commands.trim_end()));
                        return Ok(());
                    }
                    Answer::Leave => return Ok(()),
                    Answer::Run => {
                        if let Err(error) = self.run(&step.commands) {
                            output::error(&error);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn ask(&self, can_run: bool) -> Result<Answer> {
        let mut stderr = io::stderr();
        let question = if can_run { self.words().run } else { self.words().go_on };
        write!(stderr, "{question} ").and_then(|()| stderr.flush())?;
        let mut typed = String::new();
        // The end of the input is a way to leave.
        if io::stdin().lock().take(64).read_line(&mut typed)? == 0 {
            output::note("");
            return Ok(Answer::Leave);
        }
        Ok(answer(&typed, can_run))
    }

    /// Runs the commands of a step against the cluster, and shows each of them before what it prints.
    fn run(&mut self, commands: &str) -> Result<()> {
        let profile = (self.profile)()?;
        require_running(&profile)?;
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => prepare(&profile, self.lesson, std::env::var(IMAGE_VARIABLE).ok().as_deref())?,
        };
        let folder = self.folder.insert(folder).path();
        let home = profile.folder().parent().context("the cluster has no home")?;
        let mut path = folder.join("bin").into_os_string();
        if let Some(others) = std::env::var_os("PATH") {
            path.push(":");
            path.push(others);
        }
        self.has_run = true;
        let status = Command::new("sh")
            .args(["-x", "-c", commands])
            .current_dir(folder.join("lesson"))
            .env("PATH", path)
            .env("PS4", "$ ")
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .env("CORACLE_HOME", home)
            .env("CORACLE_PROFILE", profile.name())
            .status()
            .context("cannot run sh")?;
        if !status.success() {
            output::warning(match self.language {
                Language::En => format!("the last command ended with {status}"),
                Language::Zh => format!("最后一条命令的结果：{status}"),
            });
        }
        Ok(())
    }

    fn words(&self) -> &'static Words {
        match self.language {
            Language::En => &Words {
                go_on: "[Enter: go on, q: leave]",
                run: "[Enter: go on, r: run these commands on the cluster, q: leave]",
                left: "What the lesson has made is there until you run:",
            },
            Language::Zh => &Words {
                go_on: "[回车：继续，q：退出]",
                run: "[回车：继续，r：在集群上执行这些命令，q：退出]",
                left: "这一课创建的东西还在，清理请执行：",
            },
        }
    }
}

/// What is said between the steps.
struct Words {
    go_on: &'static str,
    run: &'static str,
    left: &'static str,
}

fn answer(typed: &str, can_run: bool) -> Answer {
    match typed.trim().to_lowercase().as_str() {
        "q" | "quit" => Answer::Leave,
        "r" | "run" if can_run => Answer::Run,
        _ => Answer::GoOn,
    }
}

/// A folder with the lesson's files, a kubeconfig of the cluster, and this program under its own name.
fn prepare(profile: &Profile, lesson: &Lesson, image: Option<&str>) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("coracle-learn-").tempdir().context("cannot make a folder")?;
    let (files, bin) = (folder.path().join("lesson"), folder.path().join("bin"));
    fs::create_dir(&files).and_then(|()| fs::create_dir(&bin)).context("cannot make a folder")?;
    for (name, content) in lesson.files {
        fs::write(files.join(name), with_image(content, image)).with_context(|| format!("cannot write {name}"))?;
    }
    // A copy: a start within a lesson adds its context to what it is given.
    fs::copy(profile.kubeconfig(), folder.path().join("kubeconfig")).context("cannot copy the cluster's kubeconfig")?;
    symlink(std::env::current_exe()?, bin.join("coracle")).context("cannot make a link to this program")?;
    Ok(folder)
}

fn with_image(content: &str, image: Option<&str>) -> String {
    match image.filter(|image| !image.is_empty()) {
        Some(image) => content.replace(IMAGE, image),
        None => content.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lessons_have_numbers() {
        for number in 1..=LESSONS.len() {
            let found = lesson(&number.to_string(), Language::En).expect("a lesson");
            assert!(found.title(Language::En).starts_with(&format!("{number}. ")));
        }
        for bad in ["0", "11", "-1", "x", ""] {
            let why = lesson(bad, Language::En).err().expect("no lesson").to_string();
            assert_eq!(why, format!("there is no lesson {bad}; there are 1 to 10, see: coracle learn"));
            assert!(lesson(bad, Language::Zh).is_err());
        }
    }

    #[test]
    fn nothing_is_run_unless_that_is_said() {
        for (typed, can_run, expected) in [
            ("\n", true, Answer::GoOn),
            ("r\n", true, Answer::Run),
            ("R\n", true, Answer::Run),
            ("r\n", false, Answer::GoOn),
            ("rm\n", true, Answer::GoOn),
            ("q\n", true, Answer::Leave),
        ] {
            assert_eq!(answer(typed, can_run), expected, "{typed:?}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_is_the_locale() {
        let language = |set: &[(&str, &str)]| {
            language_of(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(language(&[("LANG", "zh_CN.UTF-8")]), Language::Zh);
        assert_eq!(language(&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")]), Language::En);
        assert_eq!(language(&[("LC_ALL", ""), ("LC_MESSAGES", "zh_TW")]), Language::Zh);
        assert_eq!(language(&[]), Language::En);
    }

    #[test]
    fn another_image_may_be_named() {
        let manifest = "image: busybox:1.37\n";
        assert_eq!(with_image(manifest, Some("mirror.example/busybox:2")), "image: mirror.example/busybox:2\n");
        assert_eq!(with_image(manifest, None), manifest);
        assert_eq!(with_image(manifest, Some("")), manifest);
        for lesson in &LESSONS {
            let others = lesson.files.iter().flat_map(|(_, content)| content.lines());
            let others = others.filter(|line| line.trim().starts_with("image:") && !line.ends_with(IMAGE));
            assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new());
        }
    }
}
