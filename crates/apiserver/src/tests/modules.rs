//! The modules of the crate import each other in one direction only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which of the crate's modules each module names, its children included; tests are left out.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    collect(&Path::new(&package).join("src"), None, &mut imports);
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, named) in &mut imports {
        named.retain(|name| name != module && modules.contains(name));
    }
    imports
}

fn collect(folder: &Path, module: Option<&str>, imports: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "lib", "round_trips"].contains(&name) {
            continue;
        }
        let module = module.unwrap_or(name);
        if path.is_dir() {
            collect(&path, Some(module), imports);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            imports.entry(module.to_owned()).or_default().extend(named_in(&code.join("\n")));
        }
    }
}

/// The parts of a list up to the brace that closes it: what is in the braces of a part belongs to that.
fn in_braces(list: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut parts) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(list[begin..at].trim());
                begin = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts
}

/// The modules in code: `crate::a::B`, `use crate::{a, b}`.
fn named_in(code: &str) -> impl Iterator<Item = String> {
    code.split("crate::").skip(1).flat_map(|behind| {
        let list = behind.strip_prefix('{').map_or_else(|| vec![behind], in_braces);
        list.into_iter().map(|path| path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
    })
}

#[test]
fn no_module_imports_what_imports_it() {
    let mut left = imports();
    assert!(left.len() > 20 && left["resource"].contains("respond"), "{left:?}");
    loop {
        let leaves: Vec<String> =
            left.iter().filter(|(_, imports)| imports.is_empty()).map(|(module, _)| module.clone()).collect();
        if leaves.is_empty() {
            break;
        }
        for leaf in leaves {
            left.remove(&leaf);
            left.values_mut().for_each(|imports| _ = imports.remove(&leaf));
        }
    }
    assert!(left.is_empty(), "these import each other: {left:?}");
}
