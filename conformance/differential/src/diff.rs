//! Where two outcomes differ.

use regex::Regex;
use serde_json::Value;

use crate::distribution;

/// One place where the sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// E.g. `responses[0].headers.server`.
    pub path: String,
    pub envoy: String,
    pub nuncio: String,
}

/// Every difference, in the order of Envoy's outcome; paths matching `ignore` are left out.
pub fn differences(envoy: &Value, nuncio: &Value, ignore: &[Regex]) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(envoy), Some(nuncio), &mut found);
    found.retain(|d| !ignore.iter().any(|i| i.is_match(&d.path)));
    found
}

fn walk(path: &str, envoy: Option<&Value>, nuncio: Option<&Value>, found: &mut Vec<Difference>) {
    if envoy == nuncio {
        return;
    }
    match (envoy, nuncio) {
        (Some(Value::Object(a)), Some(Value::Object(b))) if path.ends_with(".drawn") => {
            found.extend(distribution::differences(path, a, b));
        }
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                walk(&join(path, key), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(k, _)| !a.contains_key(*k)) {
                walk(&join(path, key), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                walk(&format!("{path}[{i}]"), a.get(i), b.get(i), found);
            }
        }
        _ => found.push(Difference {
            path: path.to_owned(),
            envoy: show(envoy),
            nuncio: show(nuncio),
        }),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

fn show(value: Option<&Value>) -> String {
    match value {
        None => "(absent)".into(),
        Some(Value::Bool(true)) => "(present)".into(),
        Some(Value::Array(list)) if list.len() == 1 && list[0].is_string() => show(list.first()),
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_values_have_no_difference() {
        let value = json!({"a": [1, {"b": "c"}]});
        assert_eq!(differences(&value, &value.clone(), &[]), vec![]);
    }

    #[test]
    fn each_difference_names_its_path() {
        let envoy = json!({"a": [1, 2], "b": {"c": "x"}, "only": "e"});
        let nuncio = json!({"a": [1], "b": {"c": "y"}, "more": 7});
        let paths: Vec<String> = differences(&envoy, &nuncio, &[]).into_iter().map(|d| d.path).collect();
        assert_eq!(paths, ["a[1]", "b.c", "only", "more"]);
    }

    #[test]
    fn ignored_paths_are_left_out() {
        let ignore = [Regex::new(r"^b\.").unwrap()];
        assert_eq!(
            differences(&json!({"b": {"c": 1}}), &json!({"b": {"c": 2}}), &ignore),
            vec![]
        );
    }
}
