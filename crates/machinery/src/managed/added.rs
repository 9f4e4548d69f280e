//! The fields of a new object, from its bytes to FieldsV1 in one pass: the write that happens most often, and the one
//! where every field is new, builds no tree.
//!
//! It says what [`compare`](super::compare()) would of an empty object and this one.

use serde_json::Value;

use super::compare::element;
use super::topology::{List, Topology};

/// The fields that `object` adds to an empty one, as FieldsV1, without those of `skipped` at the root and without what
/// nobody owns. `None` when there is none, or when it takes a closer look: an element of a list that stands twice.
///
/// # Errors
/// [`Unclear`] when it takes a closer look.
pub fn added<T: Topology>(object: &str, place: &T, skipped: &[&str]) -> Result<String, Unclear> {
    let mut pass = Pass { text: object, at: 0, out: String::with_capacity(object.len()) };
    pass.root(place, skipped)?;
    Ok(pass.out)
}

/// The bytes are not what this pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

type Step = Result<(), Unclear>;

struct Pass<'t> {
    text: &'t str,
    at: usize,
    out: String,
}

impl<'t> Pass<'t> {
    fn root<T: Topology>(&mut self, place: &T, skipped: &[&str]) -> Step {
        self.out.push('{');
        self.members(|pass, name| match name {
            "apiVersion" | "kind" => pass.skip(),
            name if skipped.contains(&name) => pass.skip(),
            "metadata" => pass.metadata(&place.field(name)),
            name => pass.field(name, &place.field(name), true),
        })?;
        self.close();
        Ok(())
    }

    fn metadata<T: Topology>(&mut self, place: &T) -> Step {
        let start = self.out.len();
        self.open("f:", "metadata");
        let empty = self.out.len();
        self.members(|pass, name| {
            if super::UNOWNED.contains(&name) { pass.skip() } else { pass.field(name, &place.field(name), true) }
        })?;
        if self.out.len() == empty {
            self.out.truncate(start);
        } else {
            self.close();
        }
        Ok(())
    }

    /// A field whose value comes next; `within` something that is there in an empty object too.
    fn field<T: Topology>(&mut self, name: &str, place: &T, within: bool) -> Step {
        let there = within && place.always();
        let nothing = ["{}", "[]", "null"].iter().any(|nothing| self.rest().starts_with(nothing.as_bytes()));
        if nothing && there {
            return self.skip();
        }
        let start = self.out.len();
        self.open("f:", name);
        let empty = self.out.len();
        let is_map = self.peek() == Some(b'{') && !place.is_atomic();
        self.value(place, there, nothing)?;
        if there && is_map && self.out.len() == empty {
            // All that is in it is there in an empty object, too.
            self.out.truncate(start);
        } else {
            self.close();
        }
        Ok(())
    }

    /// What is below a value: nothing where it is a leaf.
    fn value<T: Topology>(&mut self, place: &T, there: bool, leaf: bool) -> Step {
        let list = match self.peek() {
            _ if leaf => return self.skip(),
            Some(b'{') if !place.is_atomic() => None,
            Some(b'[') => Some(place.list()).filter(|list| *list != List::Atomic),
            _ => return self.skip(),
        };
        let is_map = self.peek() == Some(b'{');
        if !is_map && list.is_none() {
            return self.skip();
        }
        if !there {
            self.out.push_str("\".\":{}");
        }
        match list {
            None => self.members(|pass, name| pass.field(name, &place.field(name), there)),
            Some(list) => self.items(&list, &place.item()),
        }
    }

    fn items<T: Topology>(&mut self, list: &List<'_>, place: &T) -> Step {
        let mut seen: Vec<String> = Vec::new();
        self.at += 1;
        while self.peek().ok_or(Unclear)? != b']' {
            let start = self.at;
            self.skip()?;
            let end = std::mem::replace(&mut self.at, start);
            let item = self.key_of(list, &self.text[start..end])?;
            let element = element(list, &item).ok_or(Unclear)?;
            if seen.contains(&element) {
                return Err(Unclear);
            }
            self.open("", &element);
            let nothing = self.text[start..end].len() <= 2;
            self.value(place, false, nothing)?;
            self.close();
            seen.push(element);
            self.comma();
        }
        self.at += 1;
        Ok(())
    }

    /// As much of an element as says which one it is.
    fn key_of(&self, list: &List<'_>, item: &str) -> Result<Value, Unclear> {
        let List::Map(keys) = list else { return serde_json::from_str(item).map_err(|_| Unclear) };
        let mut found = serde_json::Map::new();
        let mut pass = Pass { text: item, at: 0, out: String::new() };
        pass.members(|pass, name| {
            let start = pass.at;
            pass.skip()?;
            if keys.iter().any(|(key, _)| key == name) {
                let value = serde_json::from_str(&pass.text[start..pass.at]).map_err(|_| Unclear)?;
                found.insert(name.to_owned(), value);
            }
            Ok(())
        })?;
        Ok(Value::Object(found))
    }

    /// Calls `each` with the name of every member of the object that comes next, before its value.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &str) -> Step) -> Step {
        if self.peek() != Some(b'{') {
            return Err(Unclear);
        }
        self.at += 1;
        while self.peek().ok_or(Unclear)? != b'}' {
            let start = self.at;
            self.string()?;
            let name = &self.text[start + 1..self.at - 1];
            self.at += 1;
            if name.contains('\\') {
                return Err(Unclear);
            }
            each(self, name)?;
            self.comma();
        }
        self.at += 1;
        Ok(())
    }

    /// Begins an object under a path element.
    fn open(&mut self, kind: &str, element: &str) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(kind);
        for c in element.chars() {
            if matches!(c, '"' | '\\') {
                self.out.push('\\');
            }
            self.out.push(c);
        }
        self.out.push_str("\":{");
    }

    fn close(&mut self) {
        self.out.push('}');
    }

    fn rest(&self) -> &[u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn comma(&mut self) {
        if self.peek() == Some(b',') {
            self.at += 1;
        }
    }

    /// Goes to the end of the value that comes next. The text is what serde_json writes: there is no space in it.
    fn skip(&mut self) -> Step {
        let mut depth = 0_usize;
        loop {
            match self.peek().ok_or(Unclear)? {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b'}' | b']' | b',' | b':' => return Err(Unclear),
                _ => {
                    let rest = self.rest();
                    let end = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']'));
                    self.at += end.unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn string(&mut self) -> Step {
        self.at += 1;
        loop {
            let step = self.rest().iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(Unclear)?;
            self.at += step;
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Ok(());
            }
            self.at += 2;
        }
    }
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a closer look is needed")
    }
}

impl std::error::Error for Unclear {}
