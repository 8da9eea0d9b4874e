//! The JSON Schema (2020-12) of a configuration, by which editors complete keys, explain and check them.
//!
//! It is derived from the specifications themselves: their comments are its descriptions, their defaults its defaults.
//! Ranges stand beside the fields that have them. What no schema can say (that a network has the stages that are asked
//! for, that the parts of a schedule fill a run) is [`Experiment::check`]'s affair.

use super::{Experiment, load};
use crate::error::Result;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::{Map, Value, json};

/// The schema.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(tidy));
    let mut schema = settings.into_generator().into_root_schema_for::<Experiment>();
    schema.insert("title".to_string(), json!("senet configuration"));
    let mut derived = schema.to_value();
    // What it is, before what it says.
    let mut ordered = Map::new();
    if let Some(object) = derived.as_object_mut() {
        for key in [load::SCHEMA, "title", "description"] {
            ordered.extend(object.shift_remove_entry(key));
        }
        ordered.append(object);
    }
    Value::Object(ordered)
}

/// The schema as `configs/schema.json` holds it.
///
/// # Errors
/// None in practice: a schema can be written as JSON.
pub fn text() -> Result<String> {
    Ok(serde_json::to_string_pretty(&schema())? + "\n")
}

/// A configuration may name its schema.
pub(super) fn names_itself(schema: &mut Schema) {
    let property = json!({ "description": "The JSON Schema of this file, for editors.", "type": "string" });
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.shift_insert(0, load::SCHEMA.to_string(), property);
    }
}

/// Leaves out what says nothing to an editor: the widths of Rust's numbers, and the defaults of whole objects, whose
/// keys have their own. Comments become running text.
fn tidy(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    object.shift_remove("format");
    if object.get("default").is_some_and(Value::is_object) {
        object.shift_remove("default");
    }
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = running(text);
    }
}

/// A comment without the ends of its lines and the marks of its links. Drawings stay as they are.
fn running(comment: &str) -> String {
    let paragraph = |text: &str| match text.contains("```") {
        true => text.to_string(),
        false => text.replace('\n', " "),
    };
    let text = comment.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n");
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_comments_defaults_and_ranges() {
        let schema = schema();
        let train = &schema["$defs"]["TrainSpec"]["properties"];
        assert_eq!(train["batch_size"]["default"], 128);
        assert_eq!(
            (&train["batch_size"]["minimum"], &train["batch_size"]["maximum"]),
            (&json!(1), &json!(1_000_000))
        );
        assert_eq!(
            train["batch_size"]["description"],
            "Samples in one forward and backward pass, of all processes together."
        );
        assert_eq!(schema["properties"].as_object().unwrap().keys().next().unwrap(), "$schema");
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn every_kind_is_an_object_of_its_own() {
        let schema = schema();
        let kinds = schema["$defs"]["OptimSpec"]["oneOf"].as_array().unwrap();
        let named: Vec<&Value> = kinds.iter().map(|kind| &kind["properties"]["kind"]["const"]).collect();
        assert_eq!(
            named,
            [&json!("sgd"), &json!("adamw"), &json!("lamb"), &json!("rmsprop-tf"), &Value::Null]
        );
        // Only the built-in default's may be left out.
        assert_eq!((&kinds[0]["required"], &kinds[1]["required"]), (&json!([]), &json!(["kind"])));
        for kind in &kinds[..4] {
            assert_eq!(kind["additionalProperties"], false);
            assert!(kind["properties"]["lr"]["description"].is_string(), "{kind}");
        }
        // Of the schedules, those words stand alone that need no figure.
        let words = schema["$defs"]["ScheduleSpec"]["oneOf"].as_array().unwrap().last().unwrap();
        assert_eq!(words["enum"], json!(["constant", "cosine", "linear", "one-cycle", "plateau"]));
    }

    #[test]
    fn comments_become_running_text() {
        assert_eq!(running("One\ntwo [`Three`].\n\nFour\nfive."), "One two `Three`.\n\nFour five.");
        assert_eq!(running("```text\na\nb\n```"), "```text\na\nb\n```");
    }
}
