//! JSON objects whose `kind` says which other keys they have: `{"kind": "cosine", "warmup": "5ep", "end": 0}`.
//!
//! serde's own tagged enums forget where in the object a value was wrong; these say it, and may have keys that all
//! kinds share and a kind that may be left out. What is read here is an enum without attributes of its own kind, whose
//! variants all have braces.

use schemars::Schema;
use serde::de::{DeserializeOwned, Error as _, Unexpected};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// The key that says which.
const KIND: &str = "kind";

/// An object of some kind, while it is read.
pub struct Tagged {
    kind: String,
    keys: Map<String, Value>,
    shared: Vec<&'static str>,
}

impl Tagged {
    /// Reads an object, or a word, which is a kind with all else left out.
    ///
    /// # Errors
    /// When it is something else, or has no `kind` and there is no `default`.
    pub fn read<'de, D: Deserializer<'de>>(from: D, default: Option<&str>) -> Result<Self, D::Error> {
        let mut keys = match Value::deserialize(from)? {
            Value::Object(keys) => keys,
            Value::String(kind) => Map::from_iter([(KIND.to_string(), Value::String(kind))]),
            other => return Err(D::Error::invalid_type(unexpected(&other), &"an object")),
        };
        let kind = match (keys.remove(KIND), default) {
            (Some(Value::String(kind)), _) => kind,
            (Some(other), _) => {
                let reason = D::Error::invalid_type(unexpected(&other), &"a string");
                return Err(located(KIND, &reason));
            }
            (None, Some(kind)) => kind.to_string(),
            (None, None) => return Err(D::Error::missing_field(KIND)),
        };
        Ok(Self { kind, keys, shared: Vec::new() })
    }

    /// Takes a key that all kinds have.
    ///
    /// # Errors
    /// When its value is of another type.
    pub fn shared<T: DeserializeOwned, E: serde::de::Error>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, E> {
        self.shared.push(key);
        let Some(value) = self.keys.remove(key) else { return Ok(None) };
        serde_path_to_error::deserialize(value)
            .map(Some)
            .map_err(|error| located(&joined(key, &error.path().to_string()), error.inner()))
    }

    /// What is left, as the keys of the kind: strictly.
    ///
    /// # Errors
    /// When the kind or a key is unknown, or a value is of another type.
    pub fn rest<T: DeserializeOwned, E: serde::de::Error>(self) -> Result<T, E> {
        let Self { kind, keys, shared } = self;
        let known_to_all = shared.iter().chain([&KIND]).map(|key| format!(", `{key}`")).collect::<String>();
        let whole = Value::Object(Map::from_iter([(kind.clone(), Value::Object(keys))]));
        serde_path_to_error::deserialize(whole).map_err(|error| {
            let (path, inner) = (error.path().to_string(), error.inner());
            let message = inner.to_string();
            // The path begins with the kind.
            let path = path.strip_prefix(&format!("{kind}.")).unwrap_or_default();
            let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            match unknown {
                Some(unknown) if path.is_empty() || path == unknown => {
                    let message = message.replace(", there are no fields", ", expected one of");
                    E::custom(format!("{message}{known_to_all}"))
                }
                _ if path.is_empty() => E::custom(message),
                _ => located(path, inner),
            }
        })
    }
}

/// Writes an object of the kind and with the keys of `variant`, after `shared` ones.
///
/// # Errors
/// When a value cannot be written as JSON.
pub fn write<S: Serializer>(
    to: S,
    shared: impl IntoIterator<Item = (&'static str, Value)>,
    variant: &impl Serialize,
) -> Result<S::Ok, S::Error> {
    let variant = serde_json::to_value(variant).map_err(S::Error::custom)?;
    let (kind, keys) = match variant {
        Value::Object(one) => one.into_iter().next().unwrap_or_default(),
        other => (other.as_str().unwrap_or_default().to_string(), Value::Null),
    };
    let mut whole = Map::from_iter([(KIND.to_string(), Value::String(kind))]);
    whole.extend(shared.into_iter().map(|(key, value)| (key.to_string(), value)));
    if let Value::Object(keys) = keys {
        whole.extend(keys);
    }
    whole.serialize(to)
}

/// What makes of a derived schema, which has the keys of all kinds beside a `oneOf` of the kinds' own, what [`Tagged::read`]
/// takes: a closed object for each kind, or the word of one that needs nothing else. `default`, the built-in default's,
/// may leave its `kind` out, as a configuration is laid over that.
pub fn kinds(default: &'static str) -> impl FnMut(&mut Schema) {
    move |schema: &mut Schema| {
        let object = schema.ensure_object();
        for key in ["type", "required", "additionalProperties", "unevaluatedProperties"] {
            object.shift_remove(key);
        }
        let shared = object.shift_remove("properties").unwrap_or(Value::Null);
        let Some(Value::Array(kinds)) = object.get_mut("oneOf") else { return };
        let mut words = Vec::new();
        for kind in kinds.iter_mut() {
            let word = kind["properties"][KIND]["const"].clone();
            if let (Some(own), Value::Object(shared)) = (kind["properties"].as_object_mut(), &shared) {
                own.extend(shared.clone());
            }
            if kind["required"] == json!([KIND]) {
                words.push(word.clone());
            }
            if let Some(required) = kind["required"].as_array_mut()
                && word == default
            {
                required.retain(|key| key != KIND);
            }
            kind["additionalProperties"] = Value::Bool(false);
        }
        kinds.push(json!({ "type": "string", "enum": words }));
    }
}

/// An error at a place within the object.
fn located<E: serde::de::Error>(path: &str, reason: &impl std::fmt::Display) -> E {
    E::custom(format!("at `{path}`: {reason}"))
}

/// The place within an object that an error's message names, if it does, and the rest of the message.
pub fn place(message: &str) -> (Option<&str>, &str) {
    let split = message.strip_prefix("at `").and_then(|rest| rest.split_once("`: "));
    split.map_or((None, message), |(path, rest)| (Some(path), rest))
}

/// The place `deeper` within the place `path`; `.` is the whole.
pub fn joined(path: &str, deeper: &str) -> String {
    match (path, deeper) {
        (".", deeper) => deeper.to_string(),
        (path, ".") => path.to_string(),
        (path, index) if index.starts_with('[') => format!("{path}{index}"),
        (path, key) => format!("{path}.{key}"),
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(value) => match (value.as_u64(), value.as_i64()) {
            (Some(value), _) => Unexpected::Unsigned(value),
            (None, Some(value)) => Unexpected::Signed(value),
            (None, None) => Unexpected::Float(value.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(value) => Unexpected::Str(value),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}
