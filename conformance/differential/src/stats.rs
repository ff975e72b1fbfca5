//! Stats of a case, read from the admin port.

use anyhow::Result;
use regex::Regex;
use serde_json::{Map, Value};

use crate::outcome::Normalizer;
use crate::proxy::Proxy;

/// The values of the stats whose name (without the case's prefix) matches one of `patterns`.
/// Zero and absent are the same: whether a name exists is asked by cases that compare names.
pub async fn read(proxy: &Proxy, patterns: &[Regex], prefix: Option<&str>, normal: &Normalizer) -> Result<Value> {
    let mut values = Map::new();
    if patterns.is_empty() {
        return Ok(Value::Object(values));
    }
    let path = match prefix {
        Some(prefix) => format!("/stats?filter={prefix}"),
        None => "/stats".to_owned(),
    };
    let (_, text) = proxy.get(&path).await?;
    let mut lines: Vec<(String, &str)> = text
        .lines()
        .filter_map(|l| l.split_once(": "))
        .map(|(name, value)| (normal.text(name), value))
        .collect();
    lines.sort();
    for (name, value) in lines {
        if value == "0" || !patterns.iter().any(|p| p.is_match(&name)) {
            continue;
        }
        // A histogram is filled at the next flush, whenever that is.
        if value == "No recorded values" || value.starts_with("P0(") {
            continue;
        }
        let value = value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from);
        values.insert(name, value);
    }
    Ok(Value::Object(values))
}
