//! Who owns which fields: a line with the OpenAPI name of a type, one with the object as it is, and what is applied to it.

use machinery::managed::{
    Application, BuiltIn, Entry, FieldSet, Force, Manager, Operation, added, apply, before_first_apply, compare,
    field_set, merge, parse, render, same_but_times,
};
use serde_json::{Value, json};

/// Applies a configuration to an object, and takes their sets of fields apart.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([definition, live, config]) = crate::lines(data) else { return };
    let (Some(live), Some(config)) = (crate::object(live), crate::object(config)) else { return };
    if !live.is_object() || !config.is_object() {
        return;
    }
    let place = BuiltIn::root(definition);
    if let Some(set) = FieldSet::from_fields(&config) {
        is_kept(&set);
    }
    assert!(compare(&live, &live, &place).is_empty(), "an object differs from itself: {live}");
    let of_live = compare(&json!({}), &live, &place);
    if let Ok(text) = added(&live.to_string(), &place, &[]) {
        let found = serde_json::from_str(&text).ok().and_then(|fields| FieldSet::from_fields(&fields));
        let expect = without_unowned(&of_live.modified.union(&of_live.added));
        assert_eq!(found.as_ref(), Some(&expect), "of {live}: {text} is not {}", expect.render());
    }
    // Elements that cannot be told apart belong to nobody.
    let (Ok(live_set), Ok(config_set)) = (field_set(&live, &place), field_set(&config, &place)) else { return };
    laws_of_sets(&live_set, &config_set);
    assert_eq!(merge(&live, &live, &place), live, "merged with itself");
    applied_twice_is_once(&live, &config, &place);
}

/// A set is what it is written as.
fn is_kept(set: &FieldSet) {
    let text = set.render();
    let again = serde_json::from_str(&text).ok().and_then(|fields| FieldSet::from_fields(&fields));
    assert_eq!(again.as_ref(), Some(set), "{text}");
}

fn laws_of_sets(a: &FieldSet, b: &FieldSet) {
    is_kept(a);
    is_kept(b);
    let (both, either, left) = (a.intersection(b), a.union(b), a.difference(b));
    is_kept(&either);
    assert_eq!((&both, &either), (&b.intersection(a), &b.union(a)), "the order matters");
    assert_eq!(left.union(&both), *a, "the parts are not the whole");
    assert!(left.intersection(b).is_empty() && either.difference(a).difference(b).is_empty(), "something is left");
    assert!(a.without(b).difference(&left).is_empty(), "more is left without what is below");
    assert_eq!((a.union(a), a.intersection(a)), (a.clone(), a.clone()), "with itself");
}

/// A set without what nobody owns.
fn without_unowned(set: &FieldSet) -> FieldSet {
    const METADATA: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    // In an object that has passed its schema they are scalars; here something may stand below them.
    let fields = METADATA.map(|field| FieldSet::of_path(&["metadata", field]));
    let unowned = ["apiVersion", "kind"].map(|field| FieldSet::of_path(&[field]));
    let set = set.difference(&FieldSet::of_path(&["metadata"]));
    unowned.iter().chain(&fields).fold(set, |set, less| set.without(less))
}

fn applied_twice_is_once(live: &Value, config: &Value, place: &BuiltIn) {
    let manager = Manager {
        name: "fuzz".to_owned(),
        operation: Operation::Apply,
        api_version: "v1".to_owned(),
        subresource: String::new(),
    };
    let apply_to = |live: &Value, entries: Vec<Entry>, force: &Force| {
        let application = Application { live, config, manager: &manager, force, now: "2026-01-01T00:00:00Z" };
        apply(&application, entries, place, FieldSet::clone)
    };
    let before = before_first_apply(live, "v1", place, "2025-01-01T00:00:00Z");
    let written = render(before.clone());
    if !written.is_empty() {
        let read = serde_json::from_str(&written).ok().and_then(|entries| parse(&entries));
        assert_eq!(read.as_ref(), Some(&before), "{written}");
    }
    let Ok(once) = apply_to(live, before, &Force::Yes) else { return };
    let twice = apply_to(&once.object, once.entries.clone(), &Force::No).expect("nothing is contested any more");
    assert_eq!(twice.object, once.object, "applied twice");
    assert!(same_but_times(&twice.entries, &once.entries), "{:?} is not {:?}", twice.entries, once.entries);
}
