//! Changes of query parameters.

use xds_protos::{
    envoy::config::core::v3::{KeyValueAppend, KeyValueMutation, KeyValuePair, key_value_append::KeyValueAppendAction},
    google::protobuf::value::Kind,
};

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{Format, FormatCx},
    http::{RequestHead, StreamInfo},
    matching::QueryParameters,
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

    fn apply(&self, parameters: &mut QueryParameters, cx: &FormatCx<'_>) {
        use KeyValueAppendAction as Action;
        let (key, value, action) = match self {
            Self::Remove(key) => {
                parameters.remove(key);
                return;
            }
            Self::Append { key, value, action } => (key, value, action),
        };
        let exists = parameters.contains(key);
        match action {
            Action::AddIfAbsent if exists => return,
            Action::OverwriteIfExists if !exists => return,
            _ => {}
        }
        let mut text = Vec::new();
        value.write(&mut text, cx);
        match action {
            Action::AppendIfExistsOrAdd => parameters.add(key, encoded(&text)),
            _ => parameters.set(key, encoded(&text)),
        }
    }
}

/// Changes the query of a request's path.
pub(super) fn mutate(mutations: &[QueryMutation], head: &mut RequestHead, info: &StreamInfo) {
    if mutations.is_empty() || head.path.is_none() {
        return;
    }
    let mut parameters = QueryParameters::decoded_of(head);
    let cx = FormatCx {
        request: Some(head),
        response: None,
        info,
    };
    for mutation in mutations {
        mutation.apply(&mut parameters, &cx);
    }
    parameters.write_to(head);
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
