//! Values that nobody expects, and where to put them: texts, numbers and bodies, by the schema of the place and against it.

use serde_json::{Map, Number, Value, json};

/// A small generator of numbers (SplitMix64): the same seed asks the same requests.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True so many times in a hundred.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Texts that are short, or no text of any sort one parses.
const TEXTS: [&str; 42] = [
    "",
    " ",
    "a",
    "-",
    ".",
    "A b",
    "true",
    "null",
    "0",
    "-1",
    "1e400",
    "NaN",
    "9223372036854775808",
    "-9223372036854775808",
    "99999999999999999999999999",
    "0.0000000001",
    "1Ei",
    "9E9999999999",
    "0x10",
    "100%",
    "-5%",
    "999999999999%",
    "2024-13-45T99:99:99Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "10.0.0.0/33",
    "::ffff:1.2.3.4",
    "256.0.0.1",
    "a=b,c!=d",
    "a in (b",
    "a notin (),!b",
    "x>9999999999999999999",
    "metadata.name=walk",
    "\u{0}",
    "\r\nX-Odd: 1",
    "\u{202e}\u{feff}",
    "ÿ漢字😀e\u{301}",
    "{{.}}$(A)%s%n",
    "{.items[*]..a[?(@.b==1)]}",
    "0-59/0 99 * * 8",
    "[[[[(((a*)*)*)*",
    "object.a.b.map(x, x.y).all(z, z > 1) && ",
];

const NUMBERS: [i64; 14] = [
    0,
    -1,
    1,
    2,
    255,
    65_535,
    65_536,
    2_147_483_647,
    2_147_483_648,
    -2_147_483_648,
    9_007_199_254_740_993,
    i64::MAX,
    i64::MIN,
    253_402_300_800,
];

/// A text; seldom a long one.
pub(crate) fn text(random: &mut Random) -> String {
    match random.below(60) {
        0 => "x".repeat(10_000),
        1 => "漢,".repeat(1_500),
        _ => (*random.pick(&TEXTS)).to_owned(),
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(12) {
        0 => json!(1.5),
        1 => json!(-1e300),
        2 => json!(u64::MAX),
        3 => Number::from_f64(5e-324).into(),
        _ => json!(random.pick(&NUMBERS)),
    }
}

/// A value of any type.
fn any(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => random.percent(50).into(),
        2 | 3 => number(random),
        4 | 5 => text(random).into(),
        6 => json!([any(random)]),
        7 => json!([]),
        _ => json!({ text(random): any(random) }),
    }
}

/// A query parameter's value of this type, or of another.
pub(crate) fn parameter(kind: &str, random: &mut Random) -> String {
    match kind {
        "boolean" if random.percent(60) => random.percent(50).to_string(),
        "integer" if random.percent(60) => random.pick(&NUMBERS).to_string(),
        _ => text(random),
    }
}

/// Bytes of a body that is no longer well-formed, or no longer UTF-8.
pub(crate) fn spoil(body: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(body.len() + 1);
    match random.below(5) {
        0 => body.truncate(at),
        1 => body.insert(at, 0xff),
        2 => body.extend_from_slice(b"}]\n---\n- &a [*a, *a]"),
        3 => *body = [b"[".repeat(at), b"{\"a\":".repeat(200)].concat(),
        _ => drop(body.splice(at..at, *b"\xed\xa0\x80")),
    }
}

/// The definitions of an OpenAPI v2 document.
pub(crate) struct Schemas<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Schemas<'a> {
    /// What a schema refers to, or the schema itself.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let name = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/definitions/"));
        name.and_then(|name| self.0.get(name)).unwrap_or(schema)
    }

    /// A value of the schema's type at its odd end, or of another type.
    fn odd(&self, schema: &'a Value, random: &mut Random) -> Value {
        if random.percent(25) {
            return any(random);
        }
        match schema["type"].as_str() {
            Some("string") if schema["format"] == "int-or-string" && random.percent(50) => number(random),
            Some("string") => text(random).into(),
            Some("integer" | "number") => number(random),
            Some("boolean") => random.percent(50).into(),
            Some("array") => {
                let item = self.resolve(&schema["items"]);
                (0..random.below(4)).map(|_| self.odd(item, random)).collect()
            }
            _ => match schema["properties"].as_object() {
                Some(properties) if !properties.is_empty() => {
                    let mut object = json!({});
                    self.change_object(&mut object, schema, 8, random);
                    object
                }
                _ => json!({ text(random): any(random) }),
            },
        }
    }

    /// Puts something odd in one place of a value.
    pub(crate) fn change(&self, value: &mut Value, schema: &'a Value, random: &mut Random) {
        self.change_below(value, schema, 14, random);
    }

    fn change_below(&self, value: &mut Value, schema: &'a Value, levels: usize, random: &mut Random) {
        let schema = self.resolve(schema);
        if levels == 0 || random.percent(8) {
            *value = self.odd(schema, random);
            return;
        }
        if schema["properties"].is_object() {
            self.change_object(value, schema, levels, random);
        } else if schema["items"].is_object() {
            if !value.is_array() {
                *value = json!([]);
            }
            let list = value.as_array_mut().expect("an array");
            if list.is_empty() || random.percent(15) {
                list.push(Value::Null);
            }
            let at = random.below(list.len());
            self.change_below(&mut list[at], &schema["items"], levels - 1, random);
        } else if schema["additionalProperties"].is_object() {
            if !value.is_object() {
                *value = json!({});
            }
            let key = text(random);
            self.change_below(&mut value[key], &schema["additionalProperties"], levels - 1, random);
        } else {
            *value = self.odd(schema, random);
        }
    }

    fn change_object(&self, value: &mut Value, schema: &'a Value, levels: usize, random: &mut Random) {
        if !value.is_object() {
            *value = json!({});
        }
        let properties = schema["properties"].as_object().expect("an object's schema");
        let there: Vec<&String> = properties.keys().filter(|name| !value[name.as_str()].is_null()).collect();
        // What is there is more often the way to something that is looked at.
        let name = if !there.is_empty() && random.percent(50) {
            *random.pick(&there)
        } else {
            properties.keys().nth(random.below(properties.len())).expect("a property")
        };
        // Of the names and types of objects little is new.
        if ["apiVersion", "kind", "metadata"].contains(&name.as_str()) && random.percent(85) && properties.len() > 3 {
            return self.change_object(value, schema, levels, random);
        }
        self.change_below(&mut value[name.as_str()], &properties[name], levels.saturating_sub(1), random);
    }
}

/// A JSON patch of what is there, and of what is not.
pub(crate) fn json_patch(base: &Value, random: &mut Random) -> Value {
    let operation = |random: &mut Random| {
        let op = *random.pick(&["add", "remove", "replace", "move", "copy", "test", "", "ADD"]);
        let mut operation = json!({ "op": op, "path": pointer(base, random), "from": pointer(base, random) });
        if random.percent(80) {
            operation["value"] = any(random);
        }
        if random.percent(5) {
            operation = any(random);
        }
        operation
    };
    (0..=random.below(3)).map(|_| operation(random)).collect()
}

/// A JSON pointer into a value, or beside it.
fn pointer(value: &Value, random: &mut Random) -> String {
    let mut pointer = String::new();
    let mut at = value;
    while random.percent(80) {
        let (step, next) = match at {
            Value::Object(fields) if !fields.is_empty() => {
                let (name, next) = fields.iter().nth(random.below(fields.len())).expect("a field");
                (name.replace('~', "~0").replace('/', "~1"), next)
            }
            Value::Array(items) if !items.is_empty() => {
                let index = random.below(items.len());
                (index.to_string(), &items[index])
            }
            _ => break,
        };
        pointer = format!("{pointer}/{step}");
        at = next;
    }
    match random.below(10) {
        0 => pointer + "/-",
        1 => pointer + "/" + &text(random),
        2 => pointer + "/99999999999999999999",
        3 => text(random),
        _ => pointer,
    }
}

/// Directives of strategic merge where they may stand, with what may not stand there.
pub(crate) fn direct(patch: &mut Value, random: &mut Random) {
    let names = [
        "$patch",
        "$retainKeys",
        "$deleteFromPrimitiveList/finalizers",
        "$setElementOrder/containers",
        "$setElementOrder/ports",
        "$odd",
    ];
    let value = match random.below(4) {
        0 => json!("delete"),
        1 => json!("replace"),
        2 => json!([{ "name": "c" }]),
        _ => any(random),
    };
    let name = *random.pick(&names);
    let place = if patch["spec"].is_object() && random.percent(60) { &mut patch["spec"] } else { patch };
    if place.is_object() {
        place[name] = value;
    }
}
