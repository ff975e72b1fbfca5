//! Placeholders of a case, replaced for one side.
//!
//! `{{port:NAME}}` port of an upstream, `{{port}}` of the case's listener, `{{admin}}` of the admin
//! listener, `{{extra:NAME}}` a further free port, `{{cluster:NAME}}` the cluster's full name,
//! `{{case}}` the prefix, `{{dir}}` a scratch folder, `{{certs}}` the certificates,
//! `{{repeat:TEXT:N}}` TEXT N times, `{{session:NAME}}` the base64 of an upstream's address and `{{session:NAME:SECONDS}}`
//! that of a session cookie that expires then. A string that is nothing but a port becomes a number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// The values of the placeholders for one case on one side.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    pub prefix: String,
    pub port: u16,
    pub admin: u16,
    pub upstreams: BTreeMap<String, u16>,
    pub extra: BTreeMap<String, u16>,
    pub dir: PathBuf,
    pub certs: PathBuf,
}

impl Scope {
    /// A copy of `value` with each placeholder replaced, in keys as well.
    pub fn apply(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(s) => self.text(s)?,
            Value::Array(items) => Value::Array(items.iter().map(|v| self.apply(v)).collect::<Result<_>>()?),
            Value::Object(map) => {
                let mut out = Map::new();
                for (k, v) in map {
                    let key = match self.text(k)? {
                        Value::String(s) => s,
                        other => other.to_string(),
                    };
                    out.insert(key, self.apply(v)?);
                }
                Value::Object(out)
            }
            other => other.clone(),
        })
    }

    fn text(&self, text: &str) -> Result<Value> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after
                .split_once("}}")
                .with_context(|| format!("unclosed {{{{ in {text:?}"))?;
            out.push_str(before);
            // These are structural: `config` puts the template's objects there.
            if matches!(name, "hcm" | "access_log") {
                out.push_str(&format!("{{{{{name}}}}}"));
            } else {
                let value = self.value(name)?;
                if before.is_empty() && after.is_empty() && out.is_empty() && is_port(name) {
                    return Ok(Value::from(value.parse::<u16>()?));
                }
                out.push_str(&value);
            }
            rest = after;
        }
        out.push_str(rest);
        Ok(Value::String(out))
    }

    fn value(&self, name: &str) -> Result<String> {
        let port = |map: &BTreeMap<String, u16>, key: &str| {
            map.get(key)
                .map(u16::to_string)
                .with_context(|| format!("nothing has the name {key:?}"))
        };
        Ok(match name.split_once(':') {
            None => match name {
                "port" => self.port.to_string(),
                "admin" => self.admin.to_string(),
                "case" => self.prefix.clone(),
                "dir" => self.dir.display().to_string(),
                "certs" => self.certs.display().to_string(),
                _ => bail!("unknown placeholder {name:?}"),
            },
            Some(("port", key)) => port(&self.upstreams, key)?,
            Some(("extra", key)) => port(&self.extra, key)?,
            Some(("cluster", key)) => format!("{}_{key}", self.prefix),
            Some(("session", arguments)) => {
                let (name, expires) = match arguments.split_once(':') {
                    None => (arguments, None),
                    Some((name, expires)) => (name, Some(expires.parse()?)),
                };
                session(&format!("127.0.0.1:{}", port(&self.upstreams, name)?), expires)
            }
            Some(("repeat", arguments)) => {
                let (text, n) = arguments.rsplit_once(':').context("repeat wants TEXT:N")?;
                text.repeat(n.parse()?)
            }
            Some(_) => bail!("unknown placeholder {name:?}"),
        })
    }
}

/// An address as stateful sessions write it: plain, or as a message of address and expiry.
fn session(address: &str, expires: Option<u64>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut rest) = expires {
        bytes.extend([0x0a, address.len() as u8]);
        bytes.extend(address.as_bytes());
        bytes.push(0x10);
        while rest >= 0x80 {
            bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
    } else {
        bytes.extend(address.as_bytes());
    }
    base64(&bytes)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes of a base64 text, as far as it is one.
pub fn from_base64(text: &str) -> Vec<u8> {
    let (mut out, mut word, mut bits) = (Vec::new(), 0_u32, 0);
    for value in text.bytes().map_while(|b| ALPHABET.iter().position(|a| *a == b)) {
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits) as u8);
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |w, (i, b)| w | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn is_port(name: &str) -> bool {
    matches!(name, "port" | "admin") || name.starts_with("port:") || name.starts_with("extra:")
}

/// The names of `{{extra:NAME}}` in a case.
pub fn extra_names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(s) => {
            for part in s.split("{{extra:").skip(1) {
                if let Some((name, _)) = part.split_once("}}") {
                    found.push(name.to_owned());
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|v| extra_names(v, found)),
        Value::Object(map) => map.values().for_each(|v| extra_names(v, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        Scope {
            prefix: "topic_case".into(),
            port: 1234,
            upstreams: BTreeMap::from([("up".to_owned(), 5678)]),
            ..Scope::default()
        }
    }

    #[test]
    fn a_lone_port_is_a_number_and_one_within_text_is_text() {
        let got = scope().apply(&json!({"a": "{{port:up}}", "b": "x:{{port}}"})).unwrap();
        assert_eq!(got, json!({"a": 5678, "b": "x:1234"}));
    }

    #[test]
    fn keys_names_and_repetitions_are_replaced() {
        let got = scope().apply(&json!({"{{cluster:up}}": "{{repeat:ab:2}}"})).unwrap();
        assert_eq!(got, json!({"topic_case_up": "abab"}));
    }

    #[test]
    fn sessions_are_addresses_in_base64() {
        let got = |name: &str| scope().apply(&json!(name)).unwrap();
        assert_eq!(got("{{session:up}}"), json!("MTI3LjAuMC4xOjU2Nzg="));
        assert_eq!(got("{{session:up:300}}"), json!("Cg4xMjcuMC4wLjE6NTY3OBCsAg=="));
    }

    #[test]
    fn structural_placeholders_stay_and_unknown_ones_fail() {
        assert_eq!(scope().apply(&json!(["{{hcm}}"])).unwrap(), json!(["{{hcm}}"]));
        assert!(scope().apply(&json!("{{nothing}}")).is_err());
        assert!(scope().apply(&json!("{{port:nobody}}")).is_err());
    }
}
