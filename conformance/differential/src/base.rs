//! A base that cases of a topic share: `base: NAME` takes `cases/TOPIC/base/NAME.yaml`, puts the case's `with` in the
//! places that the base names as `{{with:NAME}}`, and merges the rest of the case over it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::config::merge;

/// How deep one value of `with` may stand within another.
const DEPTH: usize = 8;

/// The case with its base, if it names one; `dir` is the folder of its topic.
pub fn expand(mut yaml: Value, dir: &Path) -> Result<Value> {
    let Some(map) = yaml.as_object_mut() else {
        return Ok(yaml);
    };
    let Some(name) = map.shift_remove("base") else {
        return Ok(yaml);
    };
    let own = map.shift_remove("with");
    let name = name.as_str().context("base is no name")?;
    let path = dir.join("base").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut whole: Value = serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())?;
    let mut with = whole
        .as_object_mut()
        .and_then(|base| base.shift_remove("with"))
        .and_then(|defaults| match defaults {
            Value::Object(map) => Some(map),
            _ => None,
        })
        .unwrap_or_default();
    for (name, value) in own.iter().filter_map(Value::as_object).flatten() {
        with.insert(name.clone(), value.clone());
    }
    merge(&mut whole, &yaml);
    fill(&whole, &with, DEPTH)
}

/// A string that is nothing but a name becomes the value, within a list all items of a list; elsewhere it is text.
fn fill(value: &Value, with: &Map<String, Value>, depth: usize) -> Result<Value> {
    Ok(match value {
        Value::String(s) => match whole_name(s) {
            Some(name) => {
                let found = with.get(name).with_context(|| format!("nothing is with {name:?}"))?;
                fill(found, with, depth.checked_sub(1).context("`with` turns in a circle")?)?
            }
            None => Value::String(fill_text(s, with)?),
        },
        Value::Array(items) => {
            let mut out = Vec::new();
            for item in items {
                let spliced = item.as_str().and_then(whole_name).is_some();
                match fill(item, with, depth)? {
                    Value::Array(list) if spliced => out.extend(list),
                    other => out.push(other),
                }
            }
            Value::Array(out)
        }
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, item) in map {
                out.insert(fill_text(key, with)?, fill(item, with, depth)?);
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

fn whole_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("{{with:")?.strip_suffix("}}")?;
    (!name.contains("}}")).then_some(name)
}

fn fill_text(text: &str, with: &Map<String, Value>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{with:") {
        let (name, after) = after.split_once("}}").context("unclosed {{with:")?;
        out.push_str(before);
        match with.get(name).with_context(|| format!("nothing is with {name:?}"))? {
            Value::String(s) => out.push_str(s),
            other => out.push_str(&other.to_string()),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_placed_spliced_and_written_into_text() {
        let with = json!({"list": [1, "{{with:one}}"], "one": {"a": "b"}, "word": "w"});
        let got = fill(
            &json!({"x": [0, "{{with:list}}"], "y": "{{with:one}}", "z": "a {{with:word}} b"}),
            with.as_object().unwrap(),
            DEPTH,
        );
        assert_eq!(
            got.unwrap(),
            json!({"x": [0, 1, {"a": "b"}], "y": {"a": "b"}, "z": "a w b"})
        );
    }

    #[test]
    fn a_circle_and_an_unknown_name_are_errors() {
        let with = json!({"a": "{{with:a}}"});
        assert!(fill(&json!("{{with:a}}"), with.as_object().unwrap(), DEPTH).is_err());
        assert!(fill(&json!("{{with:b}}"), with.as_object().unwrap(), DEPTH).is_err());
    }
}
