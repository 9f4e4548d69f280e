//! The lessons of `examples/course`: their pages are in the program, and read here into steps. Pure.
//!
//! A page is Markdown: a title, then steps below headings of the second level. Its blocks of `sh` are commands, its
//! other blocks what they print.

use std::fmt::Write;

use clap::ValueEnum;

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// English
    En,
    /// 中文
    Zh,
}

impl Language {
    /// The language of a locale such as `zh_CN.UTF-8`; English for all that there are no pages for.
    pub(crate) fn of_locale(locale: &str) -> Self {
        let language = locale.split(['_', '.', '@', '-']).next().unwrap_or_default();
        if language.eq_ignore_ascii_case("zh") { Self::Zh } else { Self::En }
    }
}

/// A lesson of the course.
pub(crate) struct Lesson {
    /// Its folder below `examples/course`.
    #[cfg_attr(not(test), allow(dead_code, reason = "the tests compare the folders with what is embedded"))]
    pub(crate) folder: &'static str,
    en: &'static str,
    zh: &'static str,
    /// The files that its commands name, with their contents.
    pub(crate) files: &'static [(&'static str, &'static str)],
}

macro_rules! lesson {
    ($folder:literal, $($file:literal),+) => {
        Lesson {
            folder: $folder,
            en: include_str!(concat!("../../../examples/course/", $folder, "/README.md")),
            zh: include_str!(concat!("../../../examples/course/", $folder, "/README.zh.md")),
            files: &[$(($file, include_str!(concat!("../../../examples/course/", $folder, "/", $file)))),+],
        }
    };
}

/// All lessons, in their order.
pub(crate) const LESSONS: [Lesson; 10] = [
    lesson!("01-apply", "web.yaml"),
    lesson!("02-controllers", "web.yaml"),
    lesson!("03-scheduling", "pods.yaml", "huge.yaml", "urgent.yaml"),
    lesson!("04-services", "web.yaml"),
    lesson!("05-rolling-updates", "web.yaml"),
    lesson!("06-statefulsets", "db.yaml"),
    lesson!("07-autoscaling", "web.yaml"),
    lesson!("08-operators", "crd.yaml", "operator.sh", "site.yaml", "wrong.yaml"),
    lesson!("09-gangs", "gang.yaml", "lws.yaml", "rbg.yaml"),
    lesson!("10-failure", "spread.yaml", "web.yaml"),
];

impl Lesson {
    /// Its page.
    pub(crate) fn page(&self, language: Language) -> &'static str {
        match language {
            Language::En => self.en,
            Language::Zh => self.zh,
        }
    }

    /// What it is about: `1. From apply to running`.
    pub(crate) fn title(&self, language: Language) -> &'static str {
        self.page(language).lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

/// A part of a page, at whose end a reader pauses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is shown, with blocks set off by spaces.
    pub(crate) text: String,
    /// What is typed in it, for a shell; empty where there is nothing to type.
    pub(crate) commands: String,
}

/// Where a line of a page is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Prose,
    Commands,
    Output,
}

/// The steps of a page: what stands before the first heading of the second level, then one for each of these.
pub(crate) fn steps(page: &str) -> Vec<Step> {
    let mut steps = vec![Step::default()];
    let mut block = Block::Prose;
    for line in page.lines().filter(|line| !links_to_the_other_language(line)) {
        if let Some(kind) = line.strip_prefix("```") {
            block = match (block, kind) {
                (Block::Prose, "sh") => Block::Commands,
                (Block::Prose, _) => Block::Output,
                _ => Block::Prose,
            };
            continue;
        }
        if block == Block::Prose && line.starts_with("## ") {
            steps.push(Step::default());
        }
        let Some(step) = steps.last_mut() else { continue };
        let indent = if block == Block::Prose || line.is_empty() { "" } else { "    " };
        // Writing to a String does not fail.
        let _ = writeln!(step.text, "{indent}{line}");
        if block == Block::Commands {
            let _ = writeln!(step.commands, "{line}");
        }
    }
    for step in &mut steps {
        step.text = step.text.trim().replace("\n\n\n", "\n\n");
    }
    steps
}

/// Whether a line is the one at the top that leads to the page in the other language.
fn links_to_the_other_language(line: &str) -> bool {
    line == "English | [中文](README.zh.md)" || line == "[English](README.md) | 中文"
}

#[cfg(test)]
mod tests;
