//! What tracers report: spans out of OTLP and Zipkin requests, and names for their random ids.
//!
//! A collector is an upstream like any other. Requests that carry spans are shown once for each form they come in,
//! however the spans were batched; the spans stand beside them, without times. Ids are named after the spans that
//! have them, so that who is whose parent, and what an upstream was told, can be compared.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::text;

static ID: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b([0-9a-f]{32}|[0-9a-f]{16})\b").ok());

/// The spans in the body of a request, if it is one of a tracer.
pub fn decode(path: &str, body: &[u8]) -> Option<Value> {
    let path = path.split('?').next().unwrap_or(path);
    if path.ends_with("trace.v1.TraceService/Export") {
        return otlp(body.get(5..)?);
    }
    if path.ends_with("/v1/traces") {
        return otlp(body);
    }
    if !path.ends_with("/api/v2/spans") {
        return None;
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(spans)) => Some(spans.into_iter().map(zipkin_json).collect()),
        _ => Some(
            fields(body)?
                .iter()
                .filter(|f| f.0 == 1)
                .filter_map(|f| zipkin_proto(f.1.bytes()))
                .collect(),
        ),
    }
}

/// Takes the spans out of the requests of a collector.
pub fn gather(requests: Vec<Value>) -> Value {
    let (mut forms, mut spans): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for mut request in requests {
        let Some(map) = request.as_object_mut() else { continue };
        if let Some(Value::Array(found)) = map.shift_remove("spans") {
            spans.extend(found);
            if let Some(Value::Object(headers)) = map.get_mut("headers") {
                for framing in ["content-length", "transfer-encoding"] {
                    headers.shift_remove(framing);
                }
                if let Some(agent) = headers.get_mut("user-agent") {
                    let text = agent[0].as_str().unwrap_or_default();
                    *agent = text.split('/').next().unwrap_or_default().into();
                }
            }
        }
        if !forms.contains(&request) {
            forms.push(request);
        }
    }
    json!({"requests": forms, "spans": spans})
}

/// Gives the ids of an outcome names; those of the case itself are left as they are.
pub fn name_ids(outcome: &mut Value, case: &str) {
    let mut spans: Vec<Value> = Vec::new();
    let upstreams = outcome["upstreams"].as_object().into_iter().flat_map(|m| m.values());
    for found in upstreams.filter_map(|u| u["spans"].as_array()) {
        spans.extend(found.iter().cloned());
    }
    spans.sort_by_cached_key(|span| {
        let mut span = span.clone();
        for key in ["trace", "id", "parent"] {
            span[key] = Value::Null;
        }
        span.sort_all_objects();
        span.to_string()
    });
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (i, span) in spans.iter().enumerate() {
        for (key, kind) in [("trace", "trace"), ("id", "span")] {
            if let Some(id) = span[key].as_str().filter(|id| !case.contains(id)) {
                names.entry(id.to_owned()).or_insert(format!("<{kind} {}>", i + 1));
            }
        }
    }
    rename(outcome, &names, case);
    if let Some(upstreams) = outcome["upstreams"].as_object_mut() {
        for spans in upstreams
            .values_mut()
            .filter_map(|u| u.get_mut("spans")?.as_array_mut())
        {
            spans.iter_mut().for_each(Value::sort_all_objects);
            spans.sort_by_cached_key(Value::to_string);
        }
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>, case: &str) {
    match value {
        Value::String(s) => {
            if let Some(pattern) = ID.as_ref() {
                let name = |c: &regex::Captures<'_>| match names.get(&c[1]) {
                    Some(name) => name.clone(),
                    None if case.contains(&c[1]) => c[1].to_owned(),
                    None => format!("<{} bits>", c[1].len() * 4),
                };
                *s = pattern.replace_all(s, name).into_owned();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| rename(v, names, case)),
        Value::Object(map) => map.values_mut().for_each(|v| rename(v, names, case)),
        _ => {}
    }
}

fn otlp(body: &[u8]) -> Option<Value> {
    let mut spans = Vec::new();
    for (_, of_resource) in fields(body)?.into_iter().filter(|f| f.0 == 1) {
        let parts = fields(of_resource.bytes())?;
        let resource = parts.iter().find(|f| f.0 == 1).and_then(|f| fields(f.1.bytes()));
        let mut resource = resource.map(|fields| attributes(&fields, 1)).unwrap_or_default();
        if let Some(version) = resource.get_mut("telemetry.sdk.version") {
            *version = "<version>".into();
        }
        let schema: Vec<Value> = parts.iter().filter(|f| f.0 == 3).map(|f| f.1.text()).collect();
        for (_, of_scope) in parts.iter().filter(|f| f.0 == 2) {
            let scope = fields(of_scope.bytes())?;
            let mut name: Vec<Value> = Vec::new();
            for (tag, value) in scope
                .iter()
                .filter(|f| f.0 == 1)
                .filter_map(|f| fields(f.1.bytes()))
                .flatten()
            {
                name.push(if tag == 1 { value.text() } else { "<version>".into() });
            }
            for (_, span) in scope.iter().filter(|f| f.0 == 2) {
                let mut span = otlp_span(span.bytes())?;
                span["resource"] = Value::Object(resource.clone());
                if !schema.is_empty() {
                    span["schema"] = schema.clone().into();
                }
                if !name.is_empty() {
                    span["scope"] = name.clone().into();
                }
                spans.push(span);
            }
        }
    }
    Some(spans.into())
}

fn otlp_span(bytes: &[u8]) -> Option<Value> {
    let fields = fields(bytes)?;
    let (mut start, mut end) = (0, 0);
    let mut span = json!({"name": "", "kind": 0});
    for (tag, value) in &fields {
        match tag {
            1 => span["trace"] = value.hex(),
            2 => span["id"] = value.hex(),
            3 => span["state"] = value.text(),
            4 => span["parent"] = value.hex(),
            5 => span["name"] = value.text(),
            6 => span["kind"] = value.number().into(),
            7 => start = value.number(),
            8 => end = value.number(),
            9 => {}
            15 => {
                let status = self::fields(value.bytes())?;
                let code = status.iter().find(|f| f.0 == 3).map_or(0, |f| f.1.number());
                span["status"] = code.into();
            }
            11 => {
                let event = self::fields(value.bytes())?;
                let name = event.iter().find(|f| f.0 == 2).map(|f| f.1.text());
                push(&mut span, "events", name.unwrap_or_default());
            }
            other => span[format!("field {other}")] = value.text(),
        }
    }
    span["tags"] = Value::Object(attributes(&fields, 9));
    timed(
        &mut span,
        start / 1000,
        end.saturating_sub(start) / 1000,
        start > 0 && end >= start,
    );
    Some(span)
}

fn attributes(fields: &[(u64, Wire<'_>)], tag: u64) -> Map<String, Value> {
    let pair = |bytes: &[u8]| {
        let pair = self::fields(bytes)?;
        let key = pair.iter().find(|f| f.0 == 1)?.1.text();
        let value = pair.iter().find(|f| f.0 == 2).and_then(|f| self::fields(f.1.bytes()));
        let value = value
            .unwrap_or_default()
            .first()
            .map_or(Value::Null, |(kind, value)| match kind {
                1 => value.text(),
                2 => (value.number() != 0).into(),
                _ => json!({ format!("kind {kind}"): value.number() }),
            });
        Some((key.as_str()?.to_owned(), value))
    };
    let found = fields.iter().filter(|f| f.0 == tag);
    let mut found: Map<String, Value> = found.filter_map(|f| pair(f.1.bytes())).collect();
    found.sort_keys();
    found
}

fn zipkin_json(mut span: Value) -> Value {
    let mut out = json!({});
    let Some(map) = span.as_object_mut() else { return span };
    for (from, to) in [
        ("traceId", "trace"),
        ("id", "id"),
        ("parentId", "parent"),
        ("name", "name"),
        ("kind", "kind"),
    ] {
        if let Some(value) = map.shift_remove(from) {
            out[to] = value;
        }
    }
    let timestamp = map.shift_remove("timestamp").and_then(|v| v.as_u64());
    let duration = map.shift_remove("duration").and_then(|v| v.as_u64());
    timed(
        &mut out,
        timestamp.unwrap_or_default(),
        duration.unwrap_or_default(),
        duration.is_some(),
    );
    if let Some(Value::Array(annotations)) = map.shift_remove("annotations") {
        for annotation in annotations {
            let stamped = annotation["timestamp"].as_u64().is_some_and(|t| t > 0);
            push(&mut out, "events", json!([annotation["value"], stamped]));
        }
    }
    if let Some(Value::Object(mut tags)) = map.shift_remove("tags") {
        tags.sort_keys();
        out["tags"] = tags.into();
    }
    for (key, value) in std::mem::take(map) {
        out[key] = value;
    }
    if let Some(out) = out.as_object_mut() {
        out.sort_keys();
    }
    out
}

fn zipkin_proto(bytes: &[u8]) -> Option<Value> {
    let fields = fields(bytes)?;
    let mut span = json!({"kind": 0});
    let (mut timestamp, mut duration) = (0, 0);
    let mut tags = Map::new();
    for (tag, value) in &fields {
        match tag {
            1 => span["trace"] = value.hex(),
            // Envoy writes these two backwards.
            2 => span["parent"] = value.backward_hex(),
            3 => span["id"] = value.backward_hex(),
            4 => span["kind"] = value.number().into(),
            5 => span["name"] = value.text(),
            6 => timestamp = value.number(),
            7 => duration = value.number(),
            8 => {
                for (tag, value) in self::fields(value.bytes())? {
                    match tag {
                        1 => span["service"] = value.text(),
                        2 | 3 => span["ip"] = value.hex(),
                        _ => span["port"] = value.number().into(),
                    }
                }
            }
            10 => {
                let annotation = self::fields(value.bytes())?;
                let name = annotation.iter().find(|f| f.0 == 2).map(|f| f.1.text());
                push(&mut span, "events", name.unwrap_or_default());
            }
            11 => {
                let pair = self::fields(value.bytes())?;
                let of = |n| pair.iter().find(|f| f.0 == n).map_or(Value::from(""), |f| f.1.text());
                tags.insert(of(1).as_str()?.to_owned(), of(2));
            }
            other => span[format!("field {other}")] = value.number().into(),
        }
    }
    tags.sort_keys();
    span["tags"] = tags.into();
    timed(&mut span, timestamp, duration, true);
    Some(span)
}

/// Says of times only whether they can be: a start in microseconds after 2020, a duration below a minute.
fn timed(span: &mut Value, start: u64, duration: u64, has_both: bool) {
    let plausible = has_both && start > 1_577_836_800_000_000 && start < 4_102_444_800_000_000 && duration < 60_000_000;
    span["times"] = match plausible {
        true => "plausible".into(),
        false => format!("start {start}, duration {duration}, both {has_both}").into(),
    };
}

fn push(value: &mut Value, key: &str, item: Value) {
    match value[key].as_array_mut() {
        Some(list) => list.push(item),
        None => value[key] = json!([item]),
    }
}

/// A value of protobuf's wire format.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Wire::Bytes(bytes) => bytes,
            Wire::Number(_) => &[],
        }
    }

    fn number(self) -> u64 {
        match self {
            Wire::Number(n) => n,
            Wire::Bytes(_) => 0,
        }
    }

    fn text(self) -> Value {
        match self {
            Wire::Bytes(bytes) => text::show(bytes).into(),
            Wire::Number(n) => n.into(),
        }
    }

    fn backward_hex(self) -> Value {
        self.bytes()
            .iter()
            .rev()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
            .into()
    }

    fn hex(self) -> Value {
        self.bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
            .into()
    }
}

/// The fields of a message, in their order.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Wire::Bytes(take(&mut bytes, length)?)
            }
            5 => Wire::Number(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?).into()),
            _ => return None,
        };
        found.push((key >> 3, value));
    }
    Some(found)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_both_kinds() {
        let span = b"\x12\x08\x0a\x02\xab\xcd\x2a\x02ab";
        let scope = [&[0x12, (span.len() - 2) as u8][..], &span[2..]].concat();
        let resource = [&[0x12, scope.len() as u8][..], &scope].concat();
        let whole = [&[0x0a, resource.len() as u8][..], &resource].concat();
        let decoded = decode("/v1/traces", &whole).unwrap();
        assert_eq!(decoded[0]["trace"], "abcd");
        assert_eq!(decoded[0]["name"], "ab");
        let json = br#"[{"traceId":"aa","id":"bb","timestamp":1700000000000000,"duration":5}]"#;
        let decoded = decode("/api/v2/spans", json).unwrap();
        assert_eq!(decoded[0]["trace"], "aa");
        assert_eq!(decoded[0]["times"], "plausible");
    }

    #[test]
    fn ids_are_named_and_keep_their_relations() {
        let mut outcome = json!({"upstreams": {
            "collector": {"spans": [
                {"name": "b", "trace": "00000000000000000000000000000001", "id": "000000000000000a", "parent": "000000000000000b"},
                {"name": "a", "trace": "00000000000000000000000000000001", "id": "000000000000000b"},
            ]},
            "up": {"requests": [{"headers": {"traceparent": ["00-00000000000000000000000000000001-000000000000000a-01"]}}]},
        }});
        name_ids(&mut outcome, "");
        assert_eq!(
            outcome["upstreams"]["up"]["requests"][0]["headers"]["traceparent"][0],
            "00-<trace 1>-<span 2>-01"
        );
        let child = outcome["upstreams"]["collector"]["spans"].as_array().unwrap();
        assert!(child.iter().any(|s| s["name"] == "b" && s["parent"] == "<span 1>"));
    }
}
