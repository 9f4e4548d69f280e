//! Tables of expressions.

use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use super::*;

/// A schema with a field of each type.
fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
        let props = json!({
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "replicas": { "type": "integer" },
                        "ratio": { "type": "number" },
                        "enabled": { "type": "boolean" },
                        "port": { "x-kubernetes-int-or-string": true },
                        "since": { "type": "string", "format": "date-time" },
                        "timeout": { "type": "string", "format": "duration" },
                        "data": { "type": "string", "format": "byte" },
                        "names": { "type": "array", "items": { "type": "string" } },
                        "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                        "parts": {
                            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
                            "items": {
                                "type": "object", "required": ["key"],
                                "properties": { "key": { "type": "string" }, "value": { "type": "integer" } },
                            },
                        },
                        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                        "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                        "a-b.c": { "type": "string" },
                        "namespace": { "type": "string" },
                    },
                },
            },
        });
        Schema::parse(&serde_json::from_value(props).unwrap())
    });
    &SCHEMA
}

fn object() -> Json {
    json!({
        "apiVersion": "example.com/v1", "kind": "Thing", "metadata": { "name": "x", "labels": { "a": "b" } },
        "spec": {
            "name": "web", "replicas": 3, "ratio": 1, "enabled": true, "port": 80, "since": "2024-01-01T00:00:00Z",
            "timeout": "1m30s", "data": "aGVsbG8=", "names": ["b", "a"], "set": ["x", "y"],
            "parts": [{ "key": "k", "value": 1 }, { "key": "l" }], "labels": { "app": "web", "a.b/c": "d" },
            "free": { "x": 1 }, "a-b.c": "odd", "namespace": "ns",
        },
    })
}

fn variables() -> [(&'static str, Kind<'static>); 2] {
    [("self", Kind::Typed(schema(), true)), ("any", Kind::Any)]
}

/// What an expression over the object is, or why it is nothing.
fn evaluate(text: &str) -> Result<bool, String> {
    let program = Program::compile(text, &variables(), Wanted::Bool).map_err(|error| error.to_string())?;
    let object = object();
    let values = [("self", Value::typed(&object, schema(), true)), ("any", Value::plain(&object))];
    let mut left = TOTAL_LIMIT;
    let found = program.run(&values, &mut left).map_err(|error| error.to_string())?;
    found.as_bool().ok_or_else(|| "no condition".to_owned())
}

#[test]
fn what_is_true() {
    for text in [
        // Types.
        "self.spec.replicas == 3 && self.spec.replicas + 1 == 4",
        "self.spec.ratio == 1.0 && self.spec.ratio < 2 && double(self.spec.replicas) == 3.0",
        "type(self.spec.ratio) == double && type(self.spec.replicas) == int",
        "self.spec.port == 80 && type(self.spec.port) == int && self.spec.port != '80'",
        "self.spec.since < timestamp('2024-01-02T00:00:00Z') && self.spec.since.getFullYear() == 2024",
        "self.spec.timeout == duration('90s') && duration('1h') > self.spec.timeout",
        "self.spec.data == b'hello' && size(self.spec.data) == 5",
        "any.spec.replicas == 3 && any.spec.ratio == 1 && any.metadata.labels['a'] == 'b'",
        // Presence.
        "has(self.spec.name) && has(self.metadata.name) && !has(self.metadata.generateName)",
        "self.kind == 'Thing' && self.apiVersion.endsWith('/v1') && self.metadata.name == 'x'",
        "!has(self.spec.parts[1].value) && has(self.spec.parts[0].value)",
        "!has(any.spec.nothing)",
        // Names.
        "self.spec.a__dash__b__dot__c == 'odd' && self.spec.__namespace__ == 'ns' && self.spec.namespace == 'ns'",
        "self.spec.labels['a.b/c'] == 'd' && 'app' in self.spec.labels && !('b' in self.spec.labels)",
        // Lists and maps.
        "self.spec.names == ['b', 'a'] && ['b', 'a'] == self.spec.names && self.spec.names != ['a', 'b']",
        "self.spec.set == ['y', 'x'] && ['y', 'x'] == self.spec.set",
        "(self.spec.set + ['x', 'z']).size() == 3",
        "self.spec.parts.all(p, p.key in ['k', 'l']) && self.spec.parts.exists_one(p, p.key == 'k')",
        "self.spec.parts.filter(p, has(p.value)).map(p, p.value).sum() == 1",
        "self.spec.parts.map(p, p.key) == ['k', 'l']",
        "self.spec.labels.all(k, k.size() < 6) && self.spec.labels.exists(k, self.spec.labels[k] == 'web')",
        "size(self.spec.names) == 2 && self.spec.names[0] == 'b' && 'a' in self.spec.names",
        "[1, 2, 2].isSorted() && !self.spec.names.isSorted() && [3, 1].max() == 3 && ['b', 'a'].min() == 'a'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1 && [1.5, 2.0].sum() == 3.5",
        "[1, 2].all(x, [3, 4].exists(y, y > x)) && {'a': 1}.map(k, k) == ['a']",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1], [1, 2])",
        // Texts.
        "'Hello'.lowerAscii() == 'hello' && 'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
        "'abcb'.replace('b', 'x') == 'axcx' && 'hello'.substring(1, 3) == 'el' && '  x '.trim() == 'x'",
        "'abc'.charAt(1) == 'b' && 'abca'.lastIndexOf('a') == 3 && 'é'.size() == 1 && 'x'.upperAscii() == 'X'",
        "'%s has %d'.format(['x', 3]) == 'x has 3'",
        "self.spec.name.matches('^[a-z]+$') && matches('a1', '[0-9]') && !'A'.matches('^[a-z]')",
        "'abc 123 45'.find('[0-9]+') == '123' && '1 2 3'.findAll('[0-9]', 2) == ['1', '2'] && ''.find('x') == ''",
        // Values that may be missing.
        "self.spec.?name.orValue('none') == 'web' && !any.?nothing.hasValue() && any.?spec.?name.value() == 'web'",
        "any.spec[?'nothing'].orValue(1) == 1 && optional.of(1).hasValue() && !optional.none().hasValue()",
        "self.spec.?name.optMap(n, n.size()).orValue(0) == 3",
        // Libraries.
        "url('https://a.com:80/p?q=1').getHost() == 'a.com:80' && url('https://a.com:80').getPort() == '80'",
        "url('https://[::1]:80/p').getHostname() == '::1' && isURL('/a/b') && !isURL('a b') && !isURL('x:y')",
        "url('https://a/p?x=1&x=2').getQuery()['x'] == ['1', '2'] && url('https://a/%20').getEscapedPath() == '/%20'",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('10.0.0') && ip.isCanonical('::1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('fd00::/8').prefixLength() == 8 && string(cidr('10.0.0.0/8').ip()) == '10.0.0.0' && !isCIDR('10.0.0.0/33')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('50k').add(20) == quantity('50020')",
        "isQuantity('1.5') && !isQuantity('1x') && quantity('2').asInteger() == 2 && quantity('-1').sign() == -1",
        "quantity('100m').compareTo(quantity('0.1')) == 0 && quantity('1').sub(quantity('1')).sign() == 0",
        "!format.dns1123Label().validate('good').hasValue() && format.dns1123Label().validate('Bad').hasValue()",
        "format.named('dns1035Label').hasValue() && !format.named('what').hasValue()",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2 && !isSemver('1.2')",
        "semver('1.0.0-alpha.1').isLessThan(semver('1.0.0-alpha.beta')) && semver('1.0.0') != semver('1.0.1')",
        "semver('1.0.0+a') == semver('1.0.0+b') && semver('1.0.0-rc.1+a').isLessThan(semver('1.0.0')) && !isSemver('01.0.0')",
        // Comprehensions with two variables.
        "['a', 'b'].all(i, v, i < 2 && v != '') && {'a': 1, 'b': 2}.all(k, v, k in ['a', 'b'] && v > 0)",
        "[5, 6].exists(i, v, i == 1 && v == 6) && ![5].exists(i, v, i == v) && [1, 0].exists(i, v, 1 / v == 1)",
        "[5, 6].existsOne(i, v, v > 5) && {'a': 1}.exists_one(k, v, k == 'a' && v == 1)",
        "['a', 'b'].transformList(i, v, v + string(i)) == ['a0', 'b1'] && [1, 2].transformList(i, v, i > 0, v) == [2]",
        "{'a': 1, 'b': 2}.transformMap(k, v, v * 2) == {'a': 2, 'b': 4} && [7].transformMap(i, v, v) == {0: 7}",
        "{'a': 1, 'b': 2}.transformMap(k, v, k != 'a', v) == {'b': 2}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'}",
        "[[1, 2], [3]].all(i, list, list.all(j, v, v == i * 2 + j + 1 && list[j] == v))",
        "[1, 2].all(i, v, [v].all(v, v == i + 1)) && [1].all(i, v, [2].map(i, i) == [2] && i == 0)",
        "self.spec.parts.all(i, part, part.key == ['k', 'l'][i]) && any.spec.labels.exists(k, v, v == 'web')",
        // Errors that do not matter.
        "true || any.nothing == 1",
        "any.nothing == 1 || true",
        "[1, 0].exists(x, 1 / x == 1)",
        "self.spec.enabled ? true : 1 / 0 == 1",
        "dyn(1) == 1.0 && 1 < 1.5 && 2u > 1",
        // As definitions of real operators have them.
        "[has(self.spec.name), has(self.spec.ratio)].filter(x, x == true).size() == 2",
        "[has(self.spec.name), has(self.metadata.generateName)].exists_one(x, x)",
        "type(self.spec.port) == string ? self.spec.port.matches('^[0-9]+%$') : self.spec.port >= 0",
        "self.spec.parts.all(l1, self.spec.parts.exists_one(l2, l1.key == l2.key && (has(l1.value) && has(l2.value) ? l1.value == l2.value : !has(l1.value) && !has(l2.value))))",
        "self.spec.parts.all(p, p in self.spec.parts) && self.spec.parts.exists(p, p == self.spec.parts[1])",
        "!(has(self.spec.timeout) && self.spec.timeout != duration('0s') && duration('1h') < self.spec.timeout)",
        "self.spec.labels.all(k, k.find('^([^/]+)').endsWith('c') || !k.find('^([^/]+)').endsWith('kubernetes.io'))",
        "(has(self.spec.parts[1].value) ? self.spec.parts[1].value : 0) + self.spec.replicas == 3",
        "self.spec.name in {'web': true} && {'web': 1, 'db': 2}[self.spec.name] == 1",
        "self.spec.free != null && any.spec.free != null && !(self.spec.name == null)",
        "has(self.spec.name) == has(self.spec.ratio) && 'x' + self.spec.name + string(self.spec.replicas) == 'xweb3'",
        "self.spec.names.map(n, n + '!')[0] == 'b!' && (self.spec.names + ['c']).size() == 3",
        "self.spec.names.filter(n, n == 'a').size() <= 1 && !self.spec.names.exists(n, n.startsWith('z'))",
        "self.spec.parts.map(p, has(p.value), p.value) == [1] && int(self.spec.name.size()) == 3",
        "self.spec.set.exists(x, x == 'y') && self.spec.set.all(x, x.size() == 1 && int('1') == 1)",
        "(self.spec.replicas > 1 ? 'many' : 'one') == 'many' && dyn(self.spec.names) != 1 && dyn({}) != dyn([])",
        "self.spec.since + duration('24h') > timestamp('2024-01-01T12:00:00Z')",
        "self.spec == self.spec && self.spec.labels == {'app': 'web', 'a.b/c': 'd'}",
    ] {
        assert_eq!(evaluate(text), Ok(true), "{text}");
    }
}

#[test]
fn what_fails_when_it_is_evaluated() {
    for (text, why) in [
        ("any.nothing == 1", "no such key: nothing"),
        ("self.spec.labels['none'] == ''", "no such key: none"),
        ("self.spec.names[5] == ''", "index out of bounds: 5"),
        ("1 / (self.spec.replicas - 3) == 1", "division by zero"),
        ("self.spec.port + 'x' == ''", "no such overload"),
        ("self.spec.port > 'x'", "no such overload"),
        ("quantity('x').sign() == 0", "quantities must match the regular expression"),
        ("9223372036854775807 + self.spec.replicas > 0", "return error for overflow"),
        ("['a', 'a'].transformMapEntry(i, v, {v: i}).size() == 1", "insert failed: key a already exists"),
        ("[0].all(i, v, 1 / v == 1)", "division by zero"),
    ] {
        let found = evaluate(text).unwrap_err();
        assert!(found.starts_with(why), "{text}: {found}");
    }
}

#[test]
fn what_does_not_compile() {
    for (text, why) in [
        ("self.spec.nothing == 1", "undefined field 'nothing'\n | self.spec.nothing == 1\n | .........^"),
        ("self.spec.free.x == 1", "undefined field 'x'"),
        ("self.metadata.labels['a'] == 'b'", "undefined field 'labels'"),
        ("spec.name == ''", "undeclared reference to 'spec' (in container '')\n | spec.name == ''\n | ^"),
        ("self.spec.replicas == 'x'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.spec.replicas == 1.0", "found no matching overload for '_==_' applied to '(int, double)'"),
        ("self.spec.name.size(1) == 1", "found no matching overload for 'size' applied to 'string.(int)'"),
        ("self.spec.name.foo()", "undeclared reference to 'foo' (in container '')"),
        ("self.spec.names.all(n, n)", "found no matching overload for '_&&_' applied to '(bool, string)'"),
        ("self.spec.names.exists(n, n > 5)", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("self.spec.replicas.all(x, true)", "expression of type 'int' cannot be range of a comprehension"),
        ("self.spec.name.x == ''", "type 'string' does not support field selection"),
        ("self.spec.name.matches('(')", "invalid matches argument"),
        ("[1, 'a'].size() == 2", "expected type 'int' but found 'string'"),
        ("self.spec.", "Syntax error: "),
        ("@budget == 1", "Syntax error: "),
        ("self.spec.labels.foo.bar == 1", "type 'string' does not support field selection"),
        ("[1].all(i, i, true)", "Syntax error: duplicate variable name: i"),
        ("[1].all(i, 1, true)", "Syntax error: argument must be a simple name"),
        ("self.spec.parts.all(i, part, part.nothing == i)", "undefined field 'nothing'"),
        ("[1].all(i, v, v)", "found no matching overload for '_&&_' applied to '(bool, int)'"),
        ("'a' in self.spec.replicas", "found no matching overload for '@in' applied to '(string, int)'"),
    ] {
        let found = evaluate(text).unwrap_err();
        assert!(found.starts_with("compilation failed: ERROR: <input>:1:") && found.contains(why), "{text}: {found}");
    }
    for (text, wanted, why) in [
        ("1 + 1", Wanted::Bool, "must evaluate to bool but got int"),
        ("true", Wanted::String, "must evaluate to string but got bool"),
        ("1", Wanted::StringOrNull, "must evaluate to one of [string null_type] but got int"),
        ("dyn(true)", Wanted::Bool, "must evaluate to bool but got dyn"),
    ] {
        assert_eq!(Program::compile(text, &[], wanted).unwrap_err().to_string(), why);
    }
    assert!(Program::compile("null", &[], Wanted::StringOrNull).is_ok());
}

/// What an expression over any object costs, if it can be evaluated.
fn cost(text: &str, any: &Json) -> Result<i64, Failure> {
    let program = Program::compile(text, &[("any", Kind::Any)], Wanted::Bool).unwrap();
    let mut left = TOTAL_LIMIT;
    let found = program.run(&[("any", Value::plain(any))], &mut left);
    assert_eq!(found.as_ref().err() == Some(&Failure::Expensive), left == -1, "{text}");
    found.map(|_| TOTAL_LIMIT - left)
}

/// What would take gigabytes, or minutes, is charged before it is done.
#[test]
fn much_is_not_made_of_little() {
    let numbers = numbers_to(20_000);
    let empty = vec![json!(""); 20_000];
    let large = json!({ "text": "x".repeat(200_000), "items": numbers, "empty": empty });
    for text in [
        // Copies.
        "any.text.replace('x', any.text).size() > 0",
        "any.text.replace('', any.text, 100000).size() > 0",
        "any.empty.join(any.text).size() > 0",
        "any.items.map(i, any.text).size() > 0",
        "any.items.map(i, [any.text]).size() > 0",
        "any.items.map(i, {'a': any.text}).size() > 0",
        // Everything with everything.
        "sets.contains(any.items, any.items)",
        "sets.equivalent(any.items, any.items)",
        "sets.intersects(any.items, any.items.map(i, i + 20000))",
        "any.items.distinct().size() > 0",
        "any.items.all(i, any.items + any.items != [])",
        "any.items.all(i, any.items.sum() > 0)",
        "any.items.all(i, any.items.isSorted())",
        "any.items.all(i, any.items.max() > 0 && any.items.min() == 0)",
        "any.items.all(i, any.items.sort().size() > 0)",
        "any.items.all(i, lists.range(100000).size() > 0)",
        "any.items.all(i, any.items.slice(0, 20000).size() > 0)",
        // Long texts, again and again.
        "any.items.all(i, any.text.size() > 0 && size(any.text) > 0)",
        "any.items.all(i, bytes(any.text) != b'')",
        "any.items.all(i, any.text <= any.text)",
        "any.items.all(i, !isURL(any.text))",
        "any.items.all(i, any.text.find('y') == '')",
        "any.items.all(i, any.text.findAll('y', 1).size() == 0)",
        // A regular expression for each item.
        "any.items.all(i, 'x'.find('[^x]{100}' + string(i)) == '')",
        "any.items.all(i, !'x'.matches('[^x]{100}' + string(i)))",
    ] {
        assert_eq!(cost(text, &large), Err(Failure::Expensive), "{text}");
    }
    // What rules do every day costs little.
    let small = json!({ "items": numbers_to(100), "text": "x".repeat(1000), "names": ["a", "b", "c"] });
    for (text, most) in [
        ("any.items.all(a, a >= 0 && a < 100)", 2_000),
        ("any.items.all(a, any.items.exists_one(b, a == b))", 200_000),
        ("any.names.map(n, n + 'x').join(',').replace('x', 'y').size() == 8", 200),
        ("sets.contains(any.items, [1, 2]) && any.items.distinct().size() == 100", 11_000),
        ("any.text.matches('^x+$') && any.text.find('x') == 'x'", 1_000),
        ("['b', 'a'].sort() == ['a', 'b'] && lists.range(3).sum() == 3", 200),
    ] {
        let found = cost(text, &small);
        assert!(found.as_ref().is_ok_and(|cost| *cost <= most), "{text}: {found:?}");
    }
    assert!(cost("['a', 'b'].sum() == 'ab'", &small).is_err());
    let mut object = object();
    object["spec"]["set"] = (0..20_000).map(|n| Json::from(n.to_string())).collect();
    for text in ["(self.spec.set + self.spec.set).size() > 0", "self.spec.set == self.spec.set.reverse()"] {
        let program = Program::compile(text, &variables(), Wanted::Bool).unwrap();
        let values = [("self", Value::typed(&object, schema(), true))];
        assert_eq!(program.run(&values, &mut TOTAL_LIMIT.clone()).err(), Some(Failure::Expensive), "{text}");
    }
}

fn numbers_to(end: usize) -> Vec<Json> {
    (0..end).map(Json::from).collect()
}

#[test]
fn no_expression_runs_for_ever() {
    let many: Vec<Json> = (0..300).map(Json::from).collect();
    let long = json!({ "items": many, "text": "x".repeat(100_000) });
    for text in [
        "any.items.all(a, any.items.all(b, any.items.all(c, a + b + c >= 0)))",
        "any.items.map(a, any.items.map(b, any.items.map(c, [a, b, c]))).size() == 0",
        "any.items.all(a, any.text + any.text != '')",
        "any.items.all(a, any.text.matches('^x*y?x*$'))",
        "any.items.all(a, any.items.all(b, any.items == any.items))",
        "any.items.map(a, any.text).join().size() == 0",
        "any.items.all(i, a, any.items.all(j, b, any.items.all(k, c, a + b + c >= 0)))",
        "any.items.transformMap(i, a, any.items.transformMap(j, b, b)).size() == 0",
        "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, any.items.all(c, any.items.all(d, true))))",
    ] {
        assert_eq!(cost(text, &long), Err(Failure::Expensive), "{text}");
    }
    let doubled = format!("{}.size() > 0", "['x'].map(x, x + x)[0]".to_owned() + &".replace('x', 'xx')".repeat(40));
    let program = Program::compile(&doubled, &[], Wanted::Bool).unwrap();
    assert_eq!(program.run(&[], &mut TOTAL_LIMIT.clone()).map(|_| ()), Err(Failure::Expensive));
    let nested = (0..22).fold("['x']".to_owned(), |list, _| format!("[{list}].map(x, [x, x])"));
    let program = Program::compile(&format!("{nested}.size() > 0"), &[], Wanted::Bool).unwrap();
    assert_eq!(program.run(&[], &mut TOTAL_LIMIT.clone()).map(|_| ()), Err(Failure::Expensive));
}

#[test]
fn length_is_bounded() {
    let check = |length: usize, expect: Option<&str>| {
        let text = format!("'{}' == ''", "é".repeat(length - "'' == ''".len()));
        let error = Program::compile(&text, &[], Wanted::Bool).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expect);
    };
    check(100_000, None);
    let what = "expression code point size exceeds limit: size: 100001, limit 100000";
    check(100_001, Some(&format!("compilation failed: ERROR: <input>:-1:0: {what}")));
}

/// However deep an expression is nested, it is refused or evaluated.
#[test]
fn depth_is_bounded() {
    for depth in [10, 30, 60, 200, 5000] {
        let text = format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        let nested = (0..depth.min(500)).fold("true".to_owned(), |inner, _| format!("[1].all(x, {inner})"));
        let sum = vec!["1"; depth].join(" + ") + " > 0";
        let chosen = "true ? ".repeat(depth) + "true" + &" : true".repeat(depth);
        for text in [
            text,
            nested,
            sum,
            chosen,
            "a".to_owned() + &".b".repeat(depth),
            "[".repeat(depth) + &"]".repeat(depth),
            format!("{}true", "!".repeat(depth * 2)),
            vec!["true"; depth].join(" && "),
        ] {
            let on_small_stack = std::thread::Builder::new().stack_size(2 << 20);
            let run = on_small_stack.spawn(move || {
                let program = Program::compile(&text, &[], Wanted::Bool);
                program.is_ok_and(|program| program.run(&[], &mut TOTAL_LIMIT.clone()).is_ok())
            });
            run.unwrap().join().unwrap();
        }
    }
}

/// Says yes to whoever is called `editor`, and to paths.
struct OnlyEditor;

impl Authorizer for OnlyEditor {
    fn decide(&self, account: Option<(&str, &str)>, verb: &str, check: &Check) -> Decision {
        let allowed = match check {
            Check::Path(path) => path == "/healthz" && verb == "get",
            Check::Resource { group, resource, subresource, namespace, name } => {
                account == Some(("default", "editor"))
                    && verb == "create"
                    && [group, resource, subresource, namespace, name] == ["apps", "deployments", "scale", "a", "web"]
            }
        };
        Decision { allowed, reason: if allowed { "they may".to_owned() } else { String::new() } }
    }
}

#[test]
fn what_somebody_may_do() {
    let variables = [("authorizer", Kind::Authorizer), ("authorizer.requestResource", Kind::ResourceCheck)];
    let authorizer: Arc<dyn Authorizer> = Arc::new(OnlyEditor);
    let asked = Check::Resource {
        group: "apps".into(),
        resource: "deployments".into(),
        subresource: "scale".into(),
        namespace: "a".into(),
        name: "web".into(),
    };
    let values = [
        ("authorizer", Value::authorizer(Arc::clone(&authorizer))),
        ("authorizer.requestResource", Value::resource_check(authorizer, asked)),
    ];
    let run = |text: &str| {
        let program = Program::compile(text, &variables, Wanted::Bool).map_err(|error| error.to_string())?;
        program.run(&values, &mut TOTAL_LIMIT.clone()).map_err(|error| error.to_string()).map(|found| found.as_bool())
    };
    let question =
        ".group('apps').resource('deployments').subresource('scale').namespace('a').name('web').check('create')";
    let editor = format!("authorizer.serviceAccount('default', 'editor'){question}");
    for (text, allowed) in [
        (format!("{editor}.allowed()"), true),
        (format!("{editor}.reason() == 'they may' && !authorizer.path('/').check('get').errored()"), true),
        (format!("authorizer{question}.allowed()"), false),
        ("authorizer.path('/healthz').check('get').allowed()".to_owned(), true),
        ("authorizer.requestResource.check('create').allowed()".to_owned(), false),
        ("authorizer.requestResource.check('create').error() == ''".to_owned(), true),
        ("authorizer.group('').resource('pods').fieldSelector('a=b').check('get').allowed()".to_owned(), false),
    ] {
        assert_eq!(run(&text), Ok(Some(allowed)), "{text}");
    }
    for (text, why) in [
        ("authorizer.serviceAccount('default', 'A').path('/x').check('get').allowed()", "Invalid service account name"),
        ("authorizer.path(' ').check('get').allowed()", "path must not be empty"),
        ("authorizer.group('').check('get').allowed()", "found no matching overload for 'check'"),
        // Each question takes its part of the budget.
        ("[1, 2, 3].all(x, !authorizer.requestResource.check('get').allowed())", "actual cost limit exceeded"),
    ] {
        let found = run(text).unwrap_err();
        assert!(found.contains(why), "{text}: {found}");
    }
}

#[test]
fn built_in_kinds_and_custom_ones_are_checked_by_their_types() {
    let deployment = ApiType::of_kind("apps/v1", "Deployment").unwrap();
    let variables = [("object", Kind::Builtin(deployment)), ("params", Kind::Custom(schema()))];
    for text in [
        "object.spec.replicas > 1 && object.metadata.labels.all(k, k != '') && object.kind == 'Deployment'",
        "object.spec.template.spec.containers.all(c, c.image.startsWith('x') && c.resources.limits['cpu'] == '1')",
        "object.metadata.namespace == 'x' && has(object.spec.strategy.rollingUpdate)",
        "params.spec.replicas == 1 && params.metadata.annotations['a'] == 'b' && params.spec.a__dash__b__dot__c == ''",
    ] {
        assert_eq!(Program::compile(text, &variables, Wanted::Bool).map(|_| ()), Ok(()), "{text}");
    }
    for (text, why) in [
        ("object.spec.replica > 1", "undefined field 'replica'"),
        ("object.spec.replicas > '1'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("object.spec.template.spec.containers.all(c, c.images == '')", "undefined field 'images'"),
        ("params.spec.nothing == 1", "undefined field 'nothing'"),
    ] {
        let found = Program::compile(text, &variables, Wanted::Bool).map(|_| ()).unwrap_err().to_string();
        assert!(found.contains(why), "{text}: {found}");
    }
}
