//! `%COALESCE({"operators": [..]})%`: the first of several commands that has a value.

use serde_json::Value;

use super::command::Command;

/// Reads the JSON; errors in Envoy's words.
pub(super) fn parse(arguments: &str) -> Result<Vec<Command>, String> {
    let json: Value = serde_json::from_str(arguments)
        .map_err(|e| format!("COALESCE: failed to parse JSON configuration: JSON supplied is not valid. {e}"))?;
    let Some(operators) = json.get("operators") else {
        return Err("COALESCE: JSON configuration must contain 'operators' array".to_owned());
    };
    let Some(operators) = operators.as_array() else {
        return Err(
            "COALESCE: 'operators' must be an array: key 'operators' missing or not an array from lines 1-1".to_owned(),
        );
    };
    if operators.is_empty() {
        return Err("COALESCE: 'operators' array must not be empty".to_owned());
    }
    operators
        .iter()
        .enumerate()
        .map(|(index, entry)| {
            operator(entry).map_err(|e| format!("COALESCE: failed to parse operator at index {index}: {e}"))
        })
        .collect()
}

fn operator(entry: &Value) -> Result<Command, String> {
    let missing = |key: &str, kind: &str| format!("key '{key}' missing or not {kind} from lines 1-1");
    let build = |command: &str, arguments: &str, length| {
        Command::build(command, arguments, length).map_err(|e| match e.starts_with("Not supported field") {
            true => format!("unknown command: '{command}'"),
            false => e,
        })
    };
    let fields = match entry {
        Value::String(command) => return build(command, "", None),
        Value::Object(fields) => fields,
        _ => {
            return Err(
                "operator entry must be either a string (command name) or an object with 'command' field".to_owned(),
            );
        }
    };
    let Some(command) = fields.get("command").and_then(Value::as_str) else {
        return Err(format!(
            "operator object must have 'command' field: {}",
            missing("command", "a string")
        ));
    };
    let arguments = match fields.get("param") {
        None => "",
        Some(Value::String(text)) => text,
        Some(_) => {
            return Err(format!(
                "'param' field must be a string: {}",
                missing("param", "a string")
            ));
        }
    };
    let length = match fields.get("max_length").map(Value::as_i64) {
        None => None,
        Some(None) => {
            return Err(format!(
                "'max_length' field must be an integer: {}",
                missing("max_length", "an integer")
            ));
        }
        Some(Some(n)) => Some(
            usize::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .ok_or("'max_length' must be a positive integer")?,
        ),
    };
    build(command, arguments, length)
}
