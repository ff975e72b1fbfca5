//! What one side did with a case, as one JSON value with everything volatile taken out.

use std::sync::LazyLock;

use anyhow::Result;
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::case::{BodyCompare, Case, RequestFields};
use crate::distribution;
use crate::substitute::Scope;

static UUID: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b").ok());

/// What may be an address that a stateful session wrote.
static BASE64: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("[A-Za-z0-9+/]{16,}={0,2}").ok());

/// Takes ports, paths, prefixes and times out of what one side said.
pub struct Normalizer {
    ports: Vec<(u16, String)>,
    pattern: Option<Regex>,
    prefix: String,
    dirs: [String; 2],
}

impl Normalizer {
    pub fn new(scope: &Scope) -> Result<Normalizer> {
        let mut ports = vec![(scope.port, "{port}".to_owned()), (scope.admin, "{admin}".to_owned())];
        let named = scope.upstreams.iter().map(|(n, p)| (*p, format!("{{{n}}}")));
        let extra = scope.extra.iter().map(|(n, p)| (*p, format!("{{extra:{n}}}")));
        ports.extend(named.chain(extra));
        let alternatives: Vec<String> = ports.iter().map(|(p, _)| p.to_string()).collect();
        Ok(Normalizer {
            pattern: Some(Regex::new(&format!(r"\b({})\b", alternatives.join("|")))?),
            ports,
            prefix: scope.prefix.clone(),
            dirs: [scope.dir.display().to_string(), scope.certs.display().to_string()],
        })
    }

    pub fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (dir, name) in self.dirs.iter().zip(["{dir}", "{certs}"]) {
            out = out.replace(dir, name);
        }
        out = out
            .replace(&format!("{}_", self.prefix), "")
            .replace(&self.prefix, "CASE");
        if let Some(uuid) = UUID.as_ref() {
            out = uuid.replace_all(&out, "<uuid>").into_owned();
        }
        if let Some(base64) = BASE64.as_ref() {
            let name = |c: &regex::Captures<'_>| self.session(&c[0]).unwrap_or_else(|| c[0].to_owned());
            out = base64.replace_all(&out, name).into_owned();
        }
        if let Some(pattern) = &self.pattern {
            let name = |c: &regex::Captures<'_>| {
                let port = self.ports.iter().find(|(p, _)| p.to_string() == c[1]);
                port.map_or_else(|| c[1].to_owned(), |(_, n)| n.clone())
            };
            out = pattern.replace_all(&out, name).into_owned();
        }
        out
    }

    /// What a stateful session's base64 says, if it names one of the ports: the address, and whether it expires.
    fn session(&self, token: &str) -> Option<String> {
        let bytes = crate::substitute::from_base64(token);
        let said = String::from_utf8_lossy(&bytes);
        let (before, after) = said.split_once("127.0.0.1:")?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (port, rest) = after.split_at(digits);
        let (_, name) = self.ports.iter().find(|(p, _)| p.to_string() == port)?;
        let kind = if before.is_empty() { "address" } else { "session" };
        let expires = if rest.is_empty() { "" } else { " that expires" };
        Some(format!("<{kind} of {name}{expires}>"))
    }

    /// The same through a whole value.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(s) => *s = self.text(s),
            Value::Number(n) => {
                if let Some((_, name)) = self.ports.iter().find(|(p, _)| n.as_u64() == Some(u64::from(*p))) {
                    *value = name.clone().into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|v| self.value(v)),
            Value::Object(map) => {
                for (key, v) in std::mem::take(map) {
                    let mut v = v;
                    if matches!(key.as_str(), "headers" | "trailers") {
                        volatile_headers(&mut v);
                    }
                    self.value(&mut v);
                    map.insert(self.text(&key), v);
                }
            }
            _ => {}
        }
    }
}

/// Headers whose value differs from run to run keep their shape only.
fn volatile_headers(headers: &mut Value) {
    let Value::Object(map) = headers else { return };
    for (name, values) in map {
        let shape = match name.to_ascii_lowercase().as_str() {
            "date" => "<date>",
            "x-envoy-upstream-service-time" => "<ms>",
            "x-envoy-expected-rq-timeout-ms" => {
                round_up(values);
                continue;
            }
            _ => continue,
        };
        for value in values.as_array_mut().into_iter().flatten() {
            let well_formed = match value.as_str() {
                Some(v) if shape == "<ms>" => v.parse::<u64>().is_ok(),
                Some(v) => v.ends_with(" GMT"),
                None => false,
            };
            if well_formed {
                *value = shape.into();
            }
        }
    }
}

/// A retry tells what is left of the timeout, some milliseconds less than the whole.
fn round_up(values: &mut Value) {
    for value in values.as_array_mut().into_iter().flatten() {
        if let Some(ms) = value
            .as_str()
            .and_then(|v| v.parse::<u64>().ok())
            .filter(|ms| *ms > 1000)
        {
            *value = (ms.div_ceil(500) * 500).to_string().into();
        }
    }
}

/// Applies the way a request wants its body compared.
pub fn shape_body(request: &RequestFields, response: &mut Value, normal: &Normalizer) -> Result<()> {
    let Some(body) = response.get("body").and_then(Value::as_str) else {
        return Ok(());
    };
    let keep = request.lines.as_deref().map(Regex::new).transpose()?;
    let shaped = match request.compare {
        BodyCompare::Ignore => Value::Null,
        BodyCompare::Json => match serde_json::from_str::<Value>(body) {
            Ok(mut json) => {
                drop_keys(&mut json, &request.drop_keys);
                json
            }
            Err(_) => body.into(),
        },
        mode => {
            let body = normal.text(body);
            let lines = body.lines().filter(|l| keep.as_ref().is_none_or(|k| k.is_match(l)));
            match mode {
                BodyCompare::Text if keep.is_none() => return Ok(()),
                BodyCompare::Text => lines.collect::<Vec<_>>().join("\n").into(),
                BodyCompare::Names => as_set(lines.map(name_of)),
                _ => as_set(lines.map(str::to_owned)),
            }
        }
    };
    response["body"] = shaped;
    if request.compare != BodyCompare::Text {
        // The length of what is not compared byte for byte says nothing.
        if let Some(Value::Object(headers)) = response.get_mut("headers") {
            headers.shift_remove("content-length");
        }
    }
    Ok(())
}

/// Lines as keys, so that a difference names only those that one side lacks.
fn as_set(lines: impl Iterator<Item = String>) -> Value {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    let map: Map<String, Value> = lines.into_iter().map(|l| (l, Value::Bool(true))).collect();
    Value::Object(map)
}

/// The part of a stats line that is not its value.
fn name_of(line: &str) -> String {
    if line.starts_with('#') {
        return line.to_owned();
    }
    if let Some(at) = line.rfind('}') {
        return line[..=at].to_owned();
    }
    line.split([':', ' ']).next().unwrap_or(line).to_owned()
}

fn drop_keys(value: &mut Value, keys: &[String]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|v| drop_keys(v, keys)),
        Value::Object(map) => {
            map.retain(|k, _| !keys.iter().any(|dropped| dropped == k));
            map.values_mut().for_each(|v| drop_keys(v, keys));
        }
        _ => {}
    }
}

/// Access-log lines; those that are JSON are compared as JSON, without the time of events. Files are written in order
/// of completion, which of two connections is not fixed: lines are sorted.
pub fn log_lines(text: &str, normal: &Normalizer) -> Value {
    let parse = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(mut json)) => {
            json.sort_keys();
            if let Some(time) = json.get_mut("timestamp").filter(|t| t.is_string()) {
                *time = "<time>".into();
            }
            let mut json = Value::Object(json);
            normal.value(&mut json);
            json
        }
        _ => normal.text(line).into(),
    };
    let mut lines: Vec<Value> = text.lines().map(parse).collect();
    lines.sort_by_cached_key(Value::to_string);
    lines.into()
}

/// Is this outcome what the case claims Envoy does? Says what is not.
pub fn check_expectations(case: &Case, outcome: &Value) -> Result<(), String> {
    let mut index = 0;
    for request in &case.requests {
        for _ in 0..request.repeat.unwrap_or(1) {
            let response = &outcome["responses"][index];
            if let Some(distribution) = &request.distribution {
                distribution::check(&distribution.0, response).map_err(|e| format!("request {index}: {e}"))?;
            }
            if let Some(expect) = &request.expect {
                check(&expect.0, response, outcome).map_err(|e| format!("request {index}: {e}"))?;
            }
            index += 1;
        }
    }
    Ok(())
}

fn check(expect: &crate::case::ExpectFields, response: &Value, outcome: &Value) -> Result<(), String> {
    let last = &response["events"];
    let status = response
        .get("status")
        .or_else(|| last.as_array()?.last()?.get("status"));
    if let Some(want) = expect.status
        && status != Some(&json!(want))
    {
        return Err(format!("expected status {want}, got {response}"));
    }
    let matches = |pattern: &str, text: &str| Regex::new(pattern).map(|r| r.is_match(text)).map_err(|e| e.to_string());
    if let Some(pattern) = &expect.response
        && !matches(pattern, &response.to_string())?
    {
        return Err(format!("expected a response like {pattern:?}, got {response}"));
    }
    if let Some(pattern) = &expect.log {
        let log = outcome["log"].to_string();
        if !matches(pattern, &log)? {
            return Err(format!("expected an access-log line like {pattern:?}, got {log}"));
        }
    }
    Ok(())
}
