//! That the folder and what is embedded are the same, and that pages and scripts keep to what is said of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(package).join("../../examples/course")
}

fn names(folder: &std::path::Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn script(lesson: &Lesson) -> String {
    fs::read_to_string(folder().join(lesson.folder).join("lesson.sh")).expect("each lesson has a script")
}

/// The commands of a page without remarks on them, which are in its language.
fn commands(page: &str) -> Vec<String> {
    let all: String = steps(page).into_iter().map(|step| step.commands).collect();
    let bare = all.lines().map(|line| line.split("  # ").next().unwrap_or_default().trim().to_owned());
    bare.filter(|line| !line.is_empty() && !line.starts_with("# ")).collect()
}

/// What is printed on a page.
fn outputs(page: &str) -> Vec<&str> {
    page.split("\n```").filter_map(|block| block.strip_prefix("text\n")).collect()
}

#[test]
fn every_lesson_is_in_the_program() {
    let embedded = LESSONS.iter().map(|lesson| lesson.folder.to_owned()).collect();
    let there: BTreeSet<String> = names(&folder()).into_iter().filter(|name| folder().join(name).is_dir()).collect();
    assert_eq!(there, embedded);
    for lesson in &LESSONS {
        let mut expected: BTreeSet<String> = lesson.files.iter().map(|(name, _)| (*name).to_owned()).collect();
        expected.extend(["README.md", "README.zh.md", "lesson.sh"].map(str::to_owned));
        assert_eq!(names(&folder().join(lesson.folder)), expected, "{}", lesson.folder);
    }
}

#[test]
fn pages_in_both_languages_type_and_show_the_same() {
    for (index, lesson) in LESSONS.iter().enumerate() {
        let (en, zh) = (lesson.page(Language::En), lesson.page(Language::Zh));
        assert_eq!(commands(en), commands(zh), "{}", lesson.folder);
        assert_eq!(outputs(en), outputs(zh), "{}", lesson.folder);
        assert_eq!(steps(en).len(), steps(zh).len(), "{}", lesson.folder);
        for (language, page) in [(Language::En, en), (Language::Zh, zh)] {
            assert!(lesson.title(language).starts_with(&format!("{}. ", index + 1)), "{}", lesson.title(language));
            assert!(page.lines().nth(2).is_some_and(links_to_the_other_language), "{}", lesson.folder);
            assert!(page.lines().count() <= 130, "{}: more than a page", lesson.folder);
            assert!(steps(page).len() > 2 && !outputs(page).is_empty(), "{}: nothing is shown", lesson.folder);
            let last = steps(page).pop().map(|step| step.commands).unwrap_or_default();
            assert!(last.contains("kubectl delete namespace"), "{}: leaves things behind", lesson.folder);
        }
        assert!(zh.contains('。') && !en.contains('。'), "{}", lesson.folder);
    }
}

#[test]
fn every_command_of_a_page_is_tested_by_its_script() {
    for lesson in &LESSONS {
        let script = script(lesson);
        let typed = commands(lesson.page(Language::En));
        assert!(!typed.is_empty());
        for command in typed {
            assert!(script.contains(&command), "{}: {command:?} is not in lesson.sh", lesson.folder);
        }
    }
}

#[test]
fn commands_name_only_files_that_are_there() {
    for lesson in &LESSONS {
        for command in commands(lesson.page(Language::En)) {
            for word in command.split_whitespace().filter(|word| word.ends_with(".yaml") || word.ends_with(".sh")) {
                assert!(lesson.files.iter().any(|(name, _)| *name == word), "{}: {word}", lesson.folder);
            }
        }
    }
}

#[test]
fn the_course_lists_its_lessons() {
    for (language, file) in [(Language::En, "README.md"), (Language::Zh, "README.zh.md")] {
        let list = fs::read_to_string(folder().join(file)).expect("the course has a page");
        for lesson in &LESSONS {
            let row = format!("[{}]({}/{file})", lesson.title(language), lesson.folder);
            assert!(list.contains(&row), "{row} is missing in {file}");
        }
    }
}

#[test]
fn a_page_is_read_into_steps() {
    let page = "\
# 1. One

English | [中文](README.zh.md)

Before.

## First

```sh
kubectl get pods  # all of them

kubectl get nodes
```

```text
## no heading
```

After.

## Second

Nothing to type.
";
    let step = |text: &str, commands: &str| Step { text: text.to_owned(), commands: commands.to_owned() };
    assert_eq!(
        steps(page),
        [
            step("# 1. One\n\nBefore.", ""),
            step(
                "## First\n\n    kubectl get pods  # all of them\n\n    kubectl get nodes\n\n    ## no heading\n\nAfter.",
                "kubectl get pods  # all of them\n\nkubectl get nodes\n"
            ),
            step("## Second\n\nNothing to type.", ""),
        ]
    );
    assert_eq!(commands(page), ["kubectl get pods", "kubectl get nodes"]);
}

#[test]
fn languages_of_locales() {
    for (locale, expected) in [
        ("zh_CN.UTF-8", Language::Zh),
        ("zh", Language::Zh),
        ("en_US.UTF-8", Language::En),
        ("C", Language::En),
        ("", Language::En),
        ("zhx_XX", Language::En),
    ] {
        assert_eq!(Language::of_locale(locale), expected, "{locale}");
    }
}
