//! Query parameters, changed as Envoy changes them: sorted by key, decoded, and put together again.

use std::collections::BTreeMap;

use xds_protos::{
    envoy::config::core::v3::{KeyValueAppend, KeyValueMutation, KeyValuePair, key_value_append::KeyValueAppendAction},
    google::protobuf::value::Kind,
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{RequestHead, StreamInfo},
};

/// `KeyValueMutation`
#[derive(Debug)]
pub(super) enum QueryMutation {
    Append {
        key: String,
        value: Format,
        action: KeyValueAppendAction,
    },
    Remove(String),
}

impl QueryMutation {
    pub fn build(proto: KeyValueMutation, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => KeyValueMutation { supported { append, remove } });
        match (append, remove) {
            (Some(_), remove) if !remove.is_empty() => Err(cx.error("Only one of 'append'/'remove can be specified.")),
            (Some(append), _) => cx.field("append", |cx| Self::append(append, cx)),
            (None, remove) if remove.is_empty() => Err(cx.error("One of 'append'/'remove' must be specified.")),
            (None, remove) => Ok(Self::Remove(remove)),
        }
    }

    fn append(proto: KeyValueAppend, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let does = proto.action();
        coverage!(cx, proto => KeyValueAppend {
            supported { record, action }
            ignored { entry: "record is read" }
        });
        // Read by its accessor.
        let _ = action;
        let Some(record) = record else {
            return Err(cx.error("No record specified for append mutation."));
        };
        cx.field("record", |cx| {
            coverage!(cx, record => KeyValuePair { supported { key, value } });
            let Some(Kind::StringValue(text)) = value.and_then(|v| v.kind) else {
                return Err(cx.error_at("value", "Only string value is allowed for record value."));
            };
            Ok(Self::Append {
                key,
                value: cx.field("value", |cx| Format::parse_omit_empty(&text, cx))?,
                action: does,
            })
        })
    }

    fn apply(&self, params: &mut Params, cx: &FormatCx<'_>) {
        use KeyValueAppendAction as Action;
        let (key, value, action) = match self {
            Self::Remove(key) => {
                params.remove(key);
                return;
            }
            Self::Append { key, value, action } => (key, value, action),
        };
        let exists = params.contains_key(key);
        match action {
            Action::AddIfAbsent if exists => return,
            Action::OverwriteIfExists if !exists => return,
            _ => {}
        }
        let mut text = Vec::new();
        value.write(&mut text, cx);
        let values = params.entry(key.clone()).or_default();
        if *action != Action::AppendIfExistsOrAdd {
            values.clear();
        }
        values.push(encoded(&text));
    }
}

type Params = BTreeMap<String, Vec<String>>;

/// Changes the query of a request's path.
pub(super) fn mutate(mutations: &[QueryMutation], head: &mut RequestHead, info: &StreamInfo) {
    if mutations.is_empty() || head.path.is_none() {
        return;
    }
    let mut params = parse(head.query().unwrap_or_default());
    let cx = FormatCx {
        request: Some(head),
        response: None,
        info,
    };
    for mutation in mutations {
        mutation.apply(&mut params, &cx);
    }
    if let Ok(path) = with_query(head.path_only(), &params).parse() {
        head.path = Some(path);
    }
}

/// The parameters by key. What is encoded and printable is decoded.
fn parse(query: &str) -> Params {
    let mut params = Params::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        params.entry(decoded(key)).or_default().push(decoded(value));
    }
    params
}

/// What is no text once it is decoded stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&b) = bytes.next() {
        let hex = (b == b'%').then(|| bytes.as_slice().get(..2)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                bytes.nth(1);
            }
            None => out.push(b),
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// Everything but letters, digits, `-`, `.` and `_`.
fn encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => out.push(char::from(*b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// The path with these parameters. Envoy writes decoded texts as they are; here those that would break the request
/// line are encoded again.
fn with_query(path: &str, params: &Params) -> String {
    let mut out = path.to_owned();
    let mut delimiter = '?';
    for (key, values) in params {
        for value in values {
            out.push(delimiter);
            push_printable(&mut out, key);
            out.push('=');
            push_printable(&mut out, value);
            delimiter = '&';
        }
    }
    out
}

fn push_printable(out: &mut String, text: &str) {
    for b in text.bytes() {
        match b {
            b'#' => out.push_str("%23"),
            b'!'..=b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
}
