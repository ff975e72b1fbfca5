//! Header mutation: `*_headers_to_add`, `*_headers_to_remove` of a route, virtual host or route configuration.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use xds_protos::envoy::config::{
    common::mutation_rules::v3::{HeaderMutation, header_mutation},
    core::v3::{HeaderValue as ProtoHeader, HeaderValueOption, header_value_option::HeaderAppendAction},
};

use crate::{
    config::{BuildCx, ConfigError, ConfigResult},
    formatter::{Commands, Format, FormatCx},
    http::{RequestHead, StreamInfo, inline_headers},
};

/// Mutations of one level: all removals, then all additions, whose values are formatted before any of them is set.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutations {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Debug, Clone)]
pub(super) struct Addition {
    pub(super) name: HeaderName,
    value: Value,
    pub(super) action: HeaderAppendAction,
    keep_empty: bool,
}

#[derive(Debug, Clone)]
enum Value {
    Literal(HeaderValue),
    Format(Format),
}

impl HeaderMutations {
    /// Builds the mutations of one level. `fields` are the names of the two fields, for errors.
    pub fn build(
        fields: (&str, &str),
        add: Vec<HeaderValueOption>,
        remove: Vec<String>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        Ok(Self {
            add: cx.each(fields.0, add, Addition::build)?.into(),
            remove: cx
                .each(fields.1, remove, |name, cx| removable(&name, cx))?
                .into_iter()
                .flatten()
                .collect(),
        })
    }

    /// Builds additions whose values may use the commands of extensions.
    pub fn build_additions(
        field: &str,
        add: Vec<HeaderValueOption>,
        commands: &Commands,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        Ok(Self {
            add: cx
                .each(field, add, |proto, cx| Addition::build_with(proto, commands, cx))?
                .into(),
            remove: Box::default(),
        })
    }

    /// Builds the mutations of a list of `HeaderMutation`. Removals run before additions.
    pub fn build_list(field: &str, list: Vec<HeaderMutation>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for (i, proto) in list.into_iter().enumerate() {
            cx.item(field, i, |cx| {
                coverage!(cx, proto => HeaderMutation { supported { action } });
                match action {
                    Some(header_mutation::Action::Append(a)) => add.push(Addition::build(a, cx)?),
                    Some(header_mutation::Action::Remove(name)) => remove.extend(removable(&name, cx)?),
                    Some(header_mutation::Action::RemoveOnMatch(_)) => {
                        return Err(cx.error_at("remove_on_match", "not supported here"));
                    }
                    None => return Err(cx.error_at("action", "value is required")),
                }
                Ok(())
            })?;
        }
        Ok(Self {
            add: add.into(),
            remove: remove.into(),
        })
    }

    /// Runs all of them on a request.
    pub fn run(&self, head: &mut RequestHead, info: &StreamInfo) {
        if self.is_empty() {
            return;
        }
        self.remove(&mut head.headers);
        let cx = FormatCx {
            request: Some(head),
            response: None,
            info,
        };
        self.evaluate(&head.headers, &cx).apply(&mut head.headers);
        inline_headers::join_request(&mut head.headers);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Takes off the headers to remove; the first half of a mutation.
    pub fn remove(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// The values to set, in order, for headers as they are now. Borrows nothing of `cx`, whose heads may then be changed.
    pub fn evaluate(&self, headers: &HeaderMap, cx: &FormatCx<'_>) -> Evaluated<'_> {
        let mut values = SmallVec::new();
        for addition in &self.add {
            let Some(value) = addition.value(cx) else {
                continue;
            };
            let exists = || headers.contains_key(&addition.name);
            let overwrite = match addition.action {
                HeaderAppendAction::AppendIfExistsOrAdd => false,
                HeaderAppendAction::AddIfAbsent if exists() => continue,
                HeaderAppendAction::AddIfAbsent => false,
                HeaderAppendAction::OverwriteIfExists if !exists() => continue,
                HeaderAppendAction::OverwriteIfExists | HeaderAppendAction::OverwriteIfExistsOrAdd => true,
            };
            values.push((&addition.name, value, overwrite));
        }
        Evaluated(values)
    }
}

/// Formatted additions of one level, ready to be set.
pub struct Evaluated<'m>(SmallVec<[(&'m HeaderName, HeaderValue, bool); 4]>);

impl Evaluated<'_> {
    /// Sets the headers: those that overwrite first, then those that are added.
    pub fn apply(self, headers: &mut HeaderMap) {
        let (overwrite, add): (SmallVec<[_; 4]>, SmallVec<[_; 4]>) = self.0.into_iter().partition(|(_, _, o)| *o);
        for (name, value, _) in overwrite {
            headers.insert(name, value);
        }
        for (name, value, _) in add {
            headers.append(name, value);
        }
    }
}

impl Addition {
    pub(super) fn build(proto: HeaderValueOption, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::build_with(proto, &Commands::default(), cx)
    }

    fn build_with(proto: HeaderValueOption, commands: &Commands, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let mut action = proto.append_action();
        coverage!(cx, proto => HeaderValueOption { supported { header, append, append_action, keep_empty_value } });
        if let Some(append) = append {
            if append_action != HeaderAppendAction::AppendIfExistsOrAdd as i32 {
                return Err(cx.error("Both append and append_action are set and it's not allowed"));
            }
            if !append.value {
                action = HeaderAppendAction::OverwriteIfExistsOrAdd;
            }
        }
        let (name, value) = cx.required("header", header, |proto, cx| {
            coverage!(cx, proto => ProtoHeader {
                supported { key, value }
                ignored { raw_value: "Envoy does not read it here either" }
            });
            if key.starts_with(':') || key.eq_ignore_ascii_case("host") {
                return Err(cx.error_at("key", ":-prefixed or host headers may not be modified"));
            }
            let name = header_name(&key, cx)?;
            let format = cx.field("value", |cx| Format::parse_header(&modern(&value), commands, cx))?;
            let literal = format.as_literal().map(HeaderValue::try_from);
            Ok((
                name,
                match literal {
                    Some(Ok(text)) => Value::Literal(text),
                    Some(Err(_)) => return Err(cx.error_at("value", "invalid header value")),
                    None => Value::Format(format),
                },
            ))
        })?;
        Ok(Self {
            name,
            value,
            action,
            keep_empty: keep_empty_value,
        })
    }

    pub(super) fn value(&self, cx: &FormatCx<'_>) -> Option<HeaderValue> {
        let value = match &self.value {
            Value::Literal(v) => v.clone(),
            Value::Format(format) => {
                let mut text = Vec::with_capacity(32);
                format.write(&mut text, cx);
                HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()?
            }
        };
        (self.keep_empty || !value.is_empty()).then_some(value)
    }
}

/// A header that may be removed; none for a name that no header can have.
pub(super) fn removable(name: &str, cx: &BuildCx<'_>) -> ConfigResult<Option<HeaderName>> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(cx.error(":-prefixed or host headers may not be removed"));
    }
    Ok(HeaderName::try_from(name.to_ascii_lowercase()).ok())
}

/// A header's name in lower case.
pub(super) fn header_name(name: &str, cx: &BuildCx<'_>) -> Result<HeaderName, ConfigError> {
    HeaderName::try_from(name.to_ascii_lowercase()).map_err(|_| cx.error(format!("invalid header name '{name}'")))
}

/// Rewrites the two forms that only header values know: `%UPSTREAM_METADATA(["ns", "key"])%` and
/// `%PER_REQUEST_STATE(name)%`.
fn modern(value: &str) -> String {
    let mut out = value.replace("%PER_REQUEST_STATE(", "%FILTER_STATE(");
    // What stands in the parentheses is the name of an object, printed plain.
    if out.len() != value.len() {
        let mut from = 0;
        while let Some(at) = out[from..].find("%FILTER_STATE(").map(|at| at + from) {
            let Some(end) = out[at..].find(")%").map(|end| end + at) else {
                break;
            };
            if !out[at..end].contains(':') {
                out.insert_str(end, ":PLAIN");
            }
            from = end;
        }
    }
    for command in ["UPSTREAM_METADATA", "DYNAMIC_METADATA"] {
        let start = format!("%{command}([");
        while let Some(at) = out.find(&start) {
            let Some(end) = out[at..].find("])%").map(|end| end + at) else {
                break;
            };
            let keys = out[at + start.len()..end]
                .split(',')
                .map(|k| k.trim().trim_matches('"'));
            let keys = keys.collect::<Vec<_>>().join(":");
            out.replace_range(at..end + 3, &format!("%{command}({keys})%"));
        }
    }
    out
}
