//! What rules cost: the figures of upstream's estimator (`TestCostEstimation` in
//! `staging/src/k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/compilation_test.go`), and some of our own.

use serde_json::{Value, json};

use super::*;
use crate::expression::{Kind, Program, Wanted};

fn estimated(schema: &Value, rule: &str) -> u64 {
    let schema = Schema::parse(&serde_json::from_value(schema.clone()).unwrap());
    let variables = [("self", Kind::Typed(&schema, false)), ("oldSelf", Kind::Typed(&schema, false))];
    Program::compile(rule, &variables, Wanted::Bool).map(|program| program.estimated_cost()).unwrap_or_else(|error| {
        panic!("{rule}: {error}");
    })
}

/// A schema of a type, or of texts of a format.
fn of(name: &str) -> Value {
    match name {
        "int-or-string" => json!({ "x-kubernetes-int-or-string": true }),
        "bytes" => json!({ "type": "string", "format": "byte" }),
        "duration" | "date" | "date-time" => json!({ "type": "string", "format": name }),
        "numbers" => json!({ "type": "array", "items": { "type": "number" } }),
        "numbers by name" => json!({ "type": "object", "additionalProperties": { "type": "number" } }),
        "object" => json!({
            "type": "object", "required": ["required"],
            "properties": { "required": { "type": "string" }, "optional": { "type": "string" } },
        }),
        "objects by name" => json!({ "type": "object", "additionalProperties": of("object") }),
        name => json!({ "type": name }),
    }
}

fn list(name: &str) -> Value {
    json!({ "type": "array", "items": of(name) })
}

fn map(name: &str) -> Value {
    json!({ "type": "object", "additionalProperties": of(name) })
}

/// The schema with a bound, under the name that its type has for it.
fn bounded(schema: &Value, max: u64) -> Value {
    let mut schema = schema.clone();
    let name = match schema["type"].as_str() {
        Some("array") => "maxItems",
        Some("object") => "maxProperties",
        _ => "maxLength",
    };
    schema[name] = max.into();
    schema
}

#[test]
fn rules_cost_what_they_cost_upstream() {
    let all = "self.all(x, true)";
    for (schema, rule, unbounded, max, with_max) in [
        (list("number"), all, 4_718_591, 10, 32),
        (list("string"), all, 3_145_727, 20, 62),
        (list("boolean"), all, 1_887_437, 5, 17),
        (list("numbers"), all, 3_145_727, 100, 302),
        (list("object"), all, 555_128, 50, 152),
        (list("int-or-string"), all, 4_718_591, 10, 32),
        (list("duration"), all, 2_359_295, 5, 17),
        (list("date"), all, 725_936, 15, 47),
        (list("date-time"), all, 428_963, 25, 77),
        (map("number"), all, 1_348_169, 10, 32),
        (map("string"), all, 1_179_647, 3, 11),
        (map("boolean"), all, 943_718, 100, 302),
        (map("int-or-string"), all, 1_348_169, 15, 47),
        (map("object"), all, 428_963, 20, 62),
        (map("numbers by name"), all, 1_179_647, 10, 32),
        (map("numbers"), all, 1_179_647, 25, 77),
        (map("duration"), all, 1_048_577, 5, 17),
        (map("number"), "has(self.x)", 1, 100, 1),
        (of("string"), "self.contains('test')", 314_574, 10, 5),
        (of("string"), "self.startsWith('test')", 2, 15, 2),
        (of("string"), "self.endsWith('test')", 2, 30, 2),
        (of("string"), r#"size(self + "hello") > size("hello")"#, 314_578, 4, 7),
        (of("string"), r#"self.matches("x")"#, 314_574, 50, 22),
        (of("string"), r#""".matches("(((((((((())))))))))[0-9]")"#, 7, 10, 7),
        (of("string"), r#"self.matches("")"#, 1, 100, 1),
        (of("string"), r#"self == "x""#, 2, 0, 1),
        (of("bytes"), r#"self == b"x""#, 2, 0, 1),
        (list("number"), "self[1] == 0.0", 2, 5000, 2),
        (list("string"), "self[1] == self[1]", 314_577, 8, 314_577),
        (map("number"), r#"self["x"] == 0.0"#, 2, 0, 2),
        (map("string"), "self.all(x, x.contains(self[x]))", 2_752_507, 10, 72),
        (list("number"), "self.all(x, x == 0.0)", 6_291_454, 3 * 1024 * 2048, 25_165_826),
        (list("objects by name"), r#"self.all(x, x["y"].required == "z")"#, 7_340_027, 10, 72),
        (list("int-or-string"), "self[0] == 5", 3, 10, 3),
        (list("boolean"), "self[0] == false", 2, 25, 2),
        (list("object"), "self[0] == null", 2, 422, 2),
        (list("numbers"), "self[0][0] == -1.0", 3, 51, 3),
        (list("numbers by name"), "self.all(x, x.y == 25.2)", 6_291_452, 12, 74),
        (list("numbers by name"), "self[0].x > 2.0", 4, 3000, 4),
        (list("duration"), "self[0].getHours() == 2", 4, 525, 4),
        (list("date"), "self[2].getDayOfMonth() == 13", 4, 42, 4),
        (list("date-time"), "self[2].getMinutes() == 45", 4, 99, 4),
    ] {
        assert_eq!(estimated(&schema, rule), unbounded, "{rule} of {schema}");
        let schema = bounded(&schema, max);
        assert_eq!(estimated(&schema, rule), with_max, "{rule} of {schema}");
    }
    for (rule, with_max) in
        [("self.all(x, self.all(y, true))", 352), ("self.all(x, self.all(y, self.all(z, true)))", 3552)]
    {
        assert!(estimated(&list("number"), rule) > 10_000_000, "{rule}");
        assert_eq!(estimated(&bounded(&list("number"), 10), rule), with_max, "{rule}");
    }
}

/// The figures are those of upstream's estimator, of version 1.36.
#[test]
fn calls_cost_what_they_cost_upstream() {
    let text = |max: u64| bounded(&of("string"), max);
    let part = json!({ "type": "object", "required": ["key"], "properties": {
        "key": text(5), "values": bounded(&json!({ "type": "array", "items": text(3) }), 2),
    } });
    let object = json!({ "type": "object", "properties": {
        "texts": bounded(&json!({ "type": "array", "items": text(10) }), 5),
        "labels": bounded(&json!({ "type": "object", "additionalProperties": text(10) }), 5),
        "name": text(10),
        "long": of("string"),
        "numbers": bounded(&list("integer"), 4),
        "kind": { "type": "string", "enum": ["a", "bcd"] },
        "any": of("int-or-string"),
        "parts": bounded(&json!({ "type": "array", "items": part }), 3),
        "since": of("date-time"),
        "data": bounded(&of("bytes"), 9),
        "count": of("integer"),
        "ratio": of("number"),
    } });
    for (rule, expect) in [
        ("self.name == oldSelf.name", 8),
        ("self.name.lowerAscii() == 'x'", 7),
        ("self.name.replace('a', 'bb') == self.name", 16),
        ("self.name.split('-').all(part, part == 'x')", 171),
        ("self.texts.join(',') == self.name", 29),
        ("self.texts.map(t, t + 'x').size() == 1", 105),
        ("self.texts.exists(t, t == self.name)", 58),
        ("self.texts.exists_one(t, t == 'x')", 24),
        ("self.texts.isSorted()", 27),
        ("'x' in self.texts", 7),
        ("'x' in self.labels", 3),
        ("self.labels.all(key, self.labels[key] == 'x')", 43),
        ("has(self.name) ? self.name == 'x' : true", 4),
        ("!has(self.name) || self.name.matches('^[a-z]+$')", 14),
        ("self.?name.orValue('') == self.name", 9),
        ("sets.contains(self.texts, ['a', 'b'])", 23),
        ("self.kind == self.long", 5),
        ("self.long == oldSelf.long", 314_577),
        ("self.long < self.name", 8),
        ("self.any == 5", 3),
        ("self.any == 'x'", 3),
        ("self.texts == oldSelf.texts", 5),
        ("self == oldSelf", 2),
        // Upstream says 501: there, a path may be overwritten by another one that shares its memory.
        ("self.parts.all(p, p.values.all(v, v.startsWith(p.key)))", 69),
        ("self.parts.filter(p, has(p.key)).size() > 0", 57),
        ("self.parts.filter(p, has(p.key)).all(p, p.key == 'x')", 74),
        ("self.parts.all(p, oldSelf.parts.exists(o, o.key == p.key))", 111),
        ("self.texts[0] == self.name", 9),
        ("self.labels['x'] == self.name", 9),
        ("self.since < timestamp('2020-01-01T00:00:00Z')", 4),
        ("self.data == b'x'", 3),
        ("self.count + 1 > 3", 4),
        ("self.ratio * 2.0 > 3.0", 4),
        ("self.name + self.long != 'x'", 314_582),
        ("string(self.count) == self.name", 9),
        ("type(self.any) == int ? self.any > 5 : self.any == '5'", 7),
        ("self.any > 5", 3),
        ("['a','b','c'].exists(x, x == self.name)", 32),
        ("self.name in ['a', 'bcd']", 14),
        ("{'a': 1}.all(k, k == self.name)", 37),
        ("self.texts.map(t, t.size()).sum() < 10", 89),
        ("self.numbers.sum() < 10", 7),
        ("self.numbers.max() < 10", 7),
        ("self.numbers.all(n, n in [1,2,3])", 71),
        ("url(self.name).getHost() == 'x'", 8),
        ("isURL(self.name)", 3),
        ("ip(self.name).family() == 4", 8),
        ("isIP(self.name)", 6),
        ("cidr(self.name).containsIP('1.2.3.4')", 11),
        ("cidr(self.name).containsCIDR(cidr('1.2.3.4/5'))", 14),
        ("quantity(self.name).isLessThan(quantity('1Gi'))", 8),
        ("quantity(self.name) == quantity('1')", 8),
        ("isQuantity(self.name)", 6),
        ("semver(self.name).major() == 1", 8),
        ("format.dns1123Label().validate(self.name).hasValue()", 132),
        ("self.name.find('[0-9]+') == '1'", 13),
        ("self.name.findAll('[0-9]+').size() == 1", 14),
        ("self.name.substring(1) == 'x'", 7),
        ("self.name.indexOf('x') == 1", 7),
        ("self.name.trim() == 'x'", 7),
        ("'%s-%d'.format([self.name, self.count]) == self.name", 21),
        ("strings.quote(self.name) == 'x'", 7),
        ("bytes(self.name).size() == 3", 8),
        ("size(self.name) < 5", 4),
        ("self.name.charAt(0) == 'x'", 4),
        ("self.name.contains('abcdefghijkl')", 10),
        ("-self.count < 3", 4),
        ("self.count == -1", 2),
        ("!(self.count == 1)", 3),
        ("has(self.parts) && self.parts.all(p, has(p.values))", 16),
        ("self.texts.all(a, self.texts.all(b, a == b))", 258),
        ("self.texts.map(t, t).all(x, x == self.name)", 109),
        ("optional.of(self.name).value() == 'x'", 5),
        ("self.texts.all(i, self.name.startsWith(i))", 53),
        ("self.?labels[?'x'].orValue('') == 'y'", 5),
        ("self.?name.hasValue()", 3),
        ("self.texts + ['x'] == self.texts", 16),
        ("(self.texts + ['x']).size() == 1", 15),
        ("dyn(self.name) == 'x'", 4),
        ("self.name.split(',', 3).size() < 2", 12),
        ("self.labels.exists(k, k.startsWith('a'))", 33),
        ("self.labels.map(k, self.labels[k]).join() == 'x'", 1_844_674_407_370_955_358),
        ("duration('1h') > duration('1m')", 3),
        ("self.since == oldSelf.since", 8),
        ("self.texts.distinct().size() == 2", 65),
        ("self.texts.sort() == self.texts", 69),
        ("self.texts.slice(0, 2).size() == 1", 17),
        ("lists.range(5).all(i, i < self.count)", 52),
        ("self.numbers.reverse().size() == 1", 19),
        ("[[1],[2]].flatten().size() == 2", 45),
    ] {
        assert_eq!(estimated(&object, rule), expect, "{rule}");
    }
}
