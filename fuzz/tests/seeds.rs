//! Every target holds its laws for its seeds, among which is what fuzzing has found.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use coracle_fuzz::TARGETS;

/// This crate. It may have been compiled in another checkout, with which it shares what was built.
fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests").into()
}

/// The names in a folder of this crate, without what stands behind a dot.
fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(package().join(folder)).expect("a folder");
    let name = |entry: fs::DirEntry| entry.path().file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| name(entry.expect("an entry"))).collect()
}

#[test]
fn every_target_has_a_program_and_seeds() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets, names("fuzz_targets"));
    assert_eq!(targets, names("seeds"));
    let manifest = include_str!("../Cargo.toml");
    for target in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"\n")), "{target} is not in Cargo.toml");
    }
    assert!(targets.is_superset(&names("dictionaries")));
}

#[test]
fn targets_hold_their_laws_for_their_seeds() {
    for (target, run) in TARGETS {
        let folder = package().join("seeds").join(target);
        let mut seeds: Vec<_> = fs::read_dir(folder).expect("seeds").map(|seed| seed.expect("a seed").path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in seeds {
            let bytes = fs::read(&seed).expect("a seed");
            // What is broken was said before.
            assert!(std::panic::catch_unwind(|| run(&bytes)).is_ok(), "{} breaks a law", seed.display());
        }
    }
}
