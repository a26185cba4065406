//! All options of a recipe, for people and for programs.

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use toml::{Table, Value};

use super::flags::shown;
use super::{Opt, Options, Read, names};

/// An option as the book and `margay list --options` tell it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Tables and key in a recipe.
    pub key: String,
    /// Flags of `margay compress`.
    pub flags: Vec<String>,
    /// The default, in words where it is no value.
    pub default: Option<String>,
    /// Least and greatest number of the flag.
    pub range: Option<[f64; 2]>,
    /// All values, where there are few.
    pub choices: Vec<String>,
    /// What it means.
    pub about: &'static str,
}

/// Every option, in the order of the declarations.
pub fn listed<T: Options>(defaults: &Table) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    for option in T::options() {
        let flag = option.flag.map(|flag| format!("--{flag}"));
        // Another flag of the same key.
        if let Some(last) = listed.last_mut().filter(|last| last.key == option.path()) {
            last.flags.extend(flag);
            continue;
        }
        let stored = option.usual(defaults).map(shown).filter(|text| !text.is_empty());
        listed.push(Listed {
            key: option.path(),
            flags: flag.into_iter().collect(),
            default: option.shown.map(str::to_owned).or(stored),
            range: option.range,
            choices: option.choices,
            about: option.about,
        });
    }
    listed
}

/// A JSON schema (draft 2020-12) of recipes.
pub fn schema<T: Options>(defaults: &Table) -> Json {
    let mut root = object();
    for option in T::options() {
        let mut table = &mut root;
        for name in names(&option.table) {
            table =
                table["properties"].as_object_mut().expect("an object").entry(name).or_insert_with(object);
        }
        table["properties"][option.key] = property(&option, option.usual(defaults));
    }
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("A recipe of margay");
    root
}

fn object() -> Json {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

/// The schema of one value.
fn property(option: &Opt, default: Option<&Value>) -> Json {
    let mut property = Map::new();
    property.insert("description".to_owned(), json!(option.about));
    let kind = match default {
        // A word such as `auto` may stand for a number.
        Some(_) if option.range.is_some() && option.value.is_some_and(|name| name.contains('|')) => {
            json!(["number", "string"])
        }
        Some(Value::Integer(_)) => json!("integer"),
        Some(Value::Float(_)) => json!("number"),
        Some(Value::Boolean(_)) => json!("boolean"),
        Some(Value::String(_)) => json!("string"),
        None if matches!(option.read, Read::Switch(_)) => json!("boolean"),
        _ => Json::Null,
    };
    if !kind.is_null() {
        property.insert("type".to_owned(), kind);
    }
    if let Some(default) = default.filter(|value| value.as_str() != Some("")) {
        property.insert("default".to_owned(), json!(default));
    }
    if !option.choices.is_empty() && option.choices.iter().all(|choice| choice.parse::<f64>().is_err()) {
        property.insert("enum".to_owned(), json!(option.choices));
    }
    if let Some([least, most]) = option.range {
        let scale = if option.points { 100.0 } else { 1.0 };
        property.insert("minimum".to_owned(), json!(least / scale));
        property.insert("maximum".to_owned(), json!(most / scale));
    }
    Json::Object(property)
}
