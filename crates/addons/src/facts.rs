//! The facts of a definition, one a line: what clients and stored objects rest on. Two definitions with the same facts
//! take and show the same objects; descriptions are no facts.

use serde_json::Value;

/// The facts of CustomResourceDefinitions.
pub(crate) fn of(definitions: &[Value]) -> String {
    let mut lines = Vec::new();
    for definition in definitions {
        let spec = &definition["spec"];
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        lines.push(format!("{name}: {} {}", spec["scope"], spec["names"]));
        let versions = spec["versions"].as_array().into_iter().flatten();
        for version in versions {
            let place = format!("{name} {}", version["name"].as_str().unwrap_or_default());
            lines.push(format!("{place}: served {} storage {}", version["served"], version["storage"]));
            lines.push(format!("{place}: subresources {}", version["subresources"]));
            for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
                lines.push(format!("{place}: column {column}"));
            }
            schema(&version["schema"]["openAPIV3Schema"], &place, &mut lines);
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A line for a schema, and the lines of those below it.
fn schema(schema: &Value, place: &str, lines: &mut Vec<String>) {
    let Some(members) = schema.as_object() else { return };
    let mut facts = String::new();
    for (name, value) in members {
        match name.as_str() {
            "description" | "properties" | "items" | "additionalProperties" => {}
            "required" | "enum" => {
                let mut values: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
                values.sort();
                facts.push_str(&format!(" {name}=[{}]", values.join(",")));
            }
            _ => facts.push_str(&format!(" {name}={value}")),
        }
    }
    lines.push(format!("{place}:{facts}"));
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        self::schema(below, &format!("{place} .{name}"), lines);
    }
    self::schema(&schema["items"], &format!("{place} []"), lines);
    self::schema(&schema["additionalProperties"], &format!("{place} {{}}"), lines);
}
