//! The one parser of the table.

use std::collections::HashMap;

use super::{ApiType, Cardinality, Field, ListType, Member, Presence, Table, Type, TypeId};

/// Reads the files. What it does not understand it leaves out; a test holds the files to the grammar.
pub(super) fn table(files: &[&'static str]) -> Table {
    let mut table = Table::default();
    for line in files.iter().flat_map(|file| sections(file)) {
        if let Line::Type { package, api_version, name, words } = line {
            declare(&mut table, package, api_version, name, words);
        }
    }
    let names = Names::of(&table);
    let mut current = None;
    for line in files.iter().flat_map(|file| sections(file)) {
        match line {
            Line::Type { package, name, .. } => current = table.by_name.get(&(package, name)).copied(),
            Line::Field { package, text } => {
                if let Some((id, field)) = current.zip(field(text, package, &names)) {
                    table.types[usize::from(id.0)].fields.push(field);
                }
            }
        }
    }
    add_lists(&mut table);
    for api_type in &mut table.types {
        api_type.fields.sort_by_key(|field| field.number);
    }
    for index in 0..table.types.len() {
        let mut members = Vec::new();
        flatten(&table.types, &table.types[index], &mut Vec::new(), &mut members);
        members.sort_by_key(|member| member.field.name);
        table.types[index].members = members;
    }
    table
}

/// A line of a file, with what the lines before it say of it.
enum Line {
    Type { package: &'static str, api_version: &'static str, name: &'static str, words: &'static str },
    Field { package: &'static str, text: &'static str },
}

fn sections(file: &'static str) -> impl Iterator<Item = Line> {
    let (mut package, mut api_version) = ("", "");
    file.lines().filter_map(move |line| {
        if let Some((name, version)) = line.strip_prefix("package ").and_then(|line| line.split_once(' ')) {
            (package, api_version) = (name, version);
            return None;
        }
        Some(match line.strip_prefix("  ") {
            Some(text) => Line::Field { package, text },
            None => {
                let (name, words) = line.split_once(' ').unwrap_or((line, ""));
                Line::Type { package, api_version, name, words }
            }
        })
    })
}

fn declare(
    table: &mut Table,
    package: &'static str,
    api_version: &'static str,
    name: &'static str,
    words: &'static str,
) {
    let Ok(id) = u16::try_from(table.types.len()).map(TypeId) else { return };
    let mut api_type = ApiType { package, name, ..ApiType::default() };
    let mut words = words.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        match word {
            "atomic" => api_type.is_atomic = true,
            "either" => api_type.is_either = true,
            "kind" => {
                // Only an apiVersion ends in a version.
                let own = words.next_if(|word| !matches!(*word, "atomic" | "either"));
                table.by_kind.insert((own.unwrap_or(api_version), name), id);
            }
            _ => {}
        }
    }
    table.by_name.insert((package, name), id);
    table.types.push(api_type);
}

/// The types by how fields name them: in their own package, and in others by the end of the package's name.
struct Names(HashMap<(&'static str, &'static str), TypeId>);

impl Names {
    fn of(table: &Table) -> Self {
        let both = table
            .by_name
            .iter()
            .flat_map(|(&(package, name), &id)| [((package, name), id), ((end_of(package), name), id)]);
        Self(both.collect())
    }

    fn find(&self, text: &'static str, package: &'static str) -> Option<TypeId> {
        self.0.get(&text.rsplit_once('.').unwrap_or((package, text))).copied()
    }
}

/// `core.v1` of `io.k8s.api.core.v1`.
fn end_of(package: &'static str) -> &'static str {
    let group = package.rfind('.').and_then(|version| package[..version].rfind('.'));
    group.map_or(package, |dot| &package[dot + 1..])
}

/// A field, and the rules behind its type.
fn field(text: &'static str, package: &'static str, names: &Names) -> Option<Field> {
    let mut facts = text.split("; ");
    let mut words = facts.next()?.split(' ');
    let (number, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (cardinality, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Cardinality::List, kind),
        (_, Some(kind)) => (Cardinality::Map, kind),
        _ => (Cardinality::Once, kind),
    };
    let (presence, kind) = match (kind.strip_prefix('*'), kind.strip_prefix('!')) {
        (Some(kind), _) => (Presence::Pointer, kind),
        (_, Some(kind)) => (Presence::Always, kind),
        _ => (Presence::OmitZero, kind),
    };
    let kind = match kind {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "time" => Type::Time { micro: false },
        "microtime" => Type::Time { micro: true },
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "strings" => Type::Strings,
        "raw" => Type::Raw,
        message => Type::Message(names.find(message, package)?),
    };
    let mut field = new_field(number, if name == "+" { "" } else { name }, cardinality, presence, kind);
    for fact in facts {
        rule(&mut field, fact)?;
    }
    words.next().is_none().then_some(field)
}

fn new_field(number: u32, name: &'static str, cardinality: Cardinality, presence: Presence, kind: Type) -> Field {
    Field {
        number,
        name,
        cardinality,
        presence,
        kind,
        patch_merge: false,
        patch_replace: false,
        patch_retain_keys: false,
        patch_merge_key: None,
        list_type: ListType::Atomic,
        keys: "",
        map_atomic: None,
    }
}

fn rule(field: &mut Field, fact: &'static str) -> Option<()> {
    match fact.split(' ').collect::<Vec<_>>().as_slice() {
        ["patch", strategies, rest @ ..] => {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => field.patch_merge = true,
                    "replace" => field.patch_replace = true,
                    "retainKeys" => field.patch_retain_keys = true,
                    _ => return None,
                }
            }
            match rest {
                [] => {}
                ["by", key] => field.patch_merge_key = Some(key),
                _ => return None,
            }
        }
        ["list", "set"] => field.list_type = ListType::Set,
        ["list", "map", "by", keys] => (field.list_type, field.keys) = (ListType::Map, keys),
        ["map", "atomic"] => field.map_atomic = Some(true),
        ["map", "granular"] => field.map_atomic = Some(false),
        _ => return None,
    }
    Some(())
}

/// Adds the lists of the kinds, which are all alike: `metadata` is 1 and `items` 2 in every one of upstream's but discovery's
/// own, which stand in the table. Of a few kinds, such as the reviews, nobody asks for a list.
fn add_lists(table: &mut Table) {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let Some(&list_meta) = table.by_name.get(&(META, "ListMeta")) else { return };
    let kinds: Vec<_> = table.by_kind.iter().map(|(kind, id)| (*kind, *id)).collect();
    for ((api_version, kind), id) in kinds {
        let Ok(list) = u16::try_from(table.types.len()).map(TypeId) else { return };
        let package = table.types[usize::from(id.0)].package;
        let name = format!("{kind}List");
        if kind.ends_with("List") || table.by_kind.contains_key(&(api_version, &name)) {
            continue;
        }
        // The table lives as long as the process, and is read once.
        let name: &'static str = name.leak();
        let metadata = new_field(1, "metadata", Cardinality::Once, Presence::OmitZero, Type::Message(list_meta));
        let items = new_field(2, "items", Cardinality::List, Presence::Always, Type::Message(id));
        table.types.push(ApiType { package, name, fields: vec![metadata, items], ..ApiType::default() });
        table.by_name.insert((package, name), list);
        table.by_kind.insert((api_version, name), list);
    }
}

/// Adds the fields of a type and of the structs embedded in it.
fn flatten(types: &[ApiType], api_type: &ApiType, around: &mut Vec<u32>, members: &mut Vec<Member>) {
    for field in &api_type.fields {
        match (field.name, field.kind) {
            ("", Type::Message(id)) => {
                around.push(field.number);
                flatten(types, &types[usize::from(id.0)], around, members);
                around.pop();
            }
            _ => members.push(Member { embedded_in: around.as_slice().into(), field: field.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FILES, TABLE};
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let names = Names::of(&TABLE);
        for line in FILES.iter().flat_map(|file| sections(file)) {
            match line {
                Line::Type { package, api_version, name, words } => {
                    assert!(package.starts_with("io.k8s.") && api_version.contains('v'), "{package} {api_version}");
                    assert!(name.starts_with(|first: char| first.is_ascii_uppercase()), "{name}");
                    let known = |word: &str| matches!(word, "" | "kind" | "atomic" | "either") || word.contains('v');
                    assert!(words.split(' ').all(known), "{name} {words}");
                }
                Line::Field { package, text } => assert!(field(text, package, &names).is_some(), "{package}: {text}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_no_field() {
        let names = Names::of(&TABLE);
        let package = "io.k8s.api.core.v1";
        for text in [
            "x name string",
            "1 name",
            "1 name Unknown",
            "1 name string extra",
            "1 name string; patch x",
            "1 a []string; list x",
        ] {
            assert_eq!(field(text, package, &names), None, "{text}");
        }
    }
}
