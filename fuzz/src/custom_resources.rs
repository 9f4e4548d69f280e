//! Custom resources: a line with the schema of a definition, one with an object, and what it was before, if anything.

use machinery::depth::{self, MAX_DEPTH};
use machinery::field::Path;
use machinery::schema::Schema;
use machinery::schema::rules::{self, Costs};

/// Takes an object through all that is done to one under a schema.
///
/// # Panics
/// When a law is broken.
pub fn run(data: &[u8]) {
    let Some([schema, object]) = crate::lines(data) else { return };
    let (object, old) = object.split_once('\n').unwrap_or((object, ""));
    let Some(props) = crate::object(schema).and_then(crate::schema) else {
        return;
    };
    let path = Path::new("spec").child("validation").child("openAPIV3Schema");
    let wrong = rules::check(&props, &path, Costs::Accepted);
    assert!(wrong.iter().all(|error| error.field.starts_with("spec.validation")), "a fault without a place");
    let of_new = rules::check(&props, &path, Costs::Limited(&mut rules::Work::default()));
    assert!(
        wrong.iter().all(|error| of_new.iter().any(|other| other == error)),
        "a new schema may do more than an old one"
    );
    let schema = Schema::parse(&props);
    let Some(mut object) = crate::object(object) else { return };
    if !wrong.is_empty() || !object.is_object() {
        return;
    }
    schema.prune(&mut object, &mut |_| {});
    let mut again = object.clone();
    schema.prune(&mut again, &mut |unknown| panic!("{unknown} is unknown still"));
    assert_eq!(again, object, "pruned twice");
    schema.default(&mut object);
    let mut again = object.clone();
    schema.default(&mut again);
    assert_eq!(again, object, "defaulted twice");
    if depth::of(&object) > MAX_DEPTH {
        return;
    }
    // Defaults are values that the schema knows.
    schema.prune(&mut again, &mut |unknown| panic!("{unknown} is a default and unknown"));
    assert_eq!(again, object, "defaults are pruned");

    let errors = schema.validate(&object, None);
    assert_eq!(errors, schema.validate(&object, None), "not the same again");
    if errors.is_empty() {
        assert!(schema.validate(&object, Some(&object)).is_empty(), "refused for what it was");
        let old = crate::object(old).filter(|old| schema.validate(old, None).is_empty());
        let broken = schema.evaluate((&object, &[]), old.as_ref().map(|old| (old, &[][..])));
        assert_eq!(
            broken,
            schema.evaluate((&object, &[]), old.as_ref().map(|old| (old, &[][..]))),
            "not the same again"
        );
    }
}
