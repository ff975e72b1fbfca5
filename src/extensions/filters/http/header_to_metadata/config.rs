//! `Config` -> rules, and what a rule makes of a value.

use base64::{Engine, engine::general_purpose::STANDARD};
use xds_protos::{
    envoy::extensions::filters::http::header_to_metadata::v3::{
        Config as Proto,
        config::{KeyValuePair, Rule as RuleProto, ValueEncode, ValueType},
    },
    google::protobuf::{Value, value::Kind},
    prost::Message,
};

use crate::{
    config::{BuildCx, ConfigResult},
    matching::{HeaderLookup, RegexSubstitution},
};

/// Where metadata goes when a rule does not say.
const DEFAULT_NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

/// Longer values are left out, as in Envoy.
const MOST_VALUE: usize = 8 * 1024;

/// A filter's rules, or a route's, which replace them.
#[derive(Debug)]
pub(super) struct Config {
    pub request: Vec<Rule>,
    pub response: Vec<Rule>,
}

/// One header or cookie.
#[derive(Debug)]
pub(super) struct Rule {
    pub source: Source,
    pub present: Option<Assignment>,
    pub missing: Option<Assignment>,
    /// The header does not go on.
    pub remove: bool,
}

#[derive(Debug)]
pub(super) enum Source {
    Header(HeaderLookup),
    Cookie(String),
}

/// What is set, and to what.
#[derive(Debug)]
pub(super) struct Assignment {
    pub namespace: String,
    pub key: String,
    /// Stands instead of the header's value; empty: that one.
    value: String,
    rewrite: Option<RegexSubstitution>,
    kind: ValueType,
    encoded: bool,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { request_rules, response_rules }
            ignored { stat_prefix: "the filter's own statistics are not kept" }
        });
        Ok(Self {
            request: cx.each("request_rules", request_rules, Rule::build)?,
            response: cx.each("response_rules", response_rules, Rule::build)?,
        })
    }
}

impl Rule {
    fn build(proto: RuleProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => RuleProto { supported { header, cookie, on_header_present, on_header_missing, remove } });
        let source = match (header.as_str(), cookie.as_str()) {
            ("", "") => return Err(cx.error("One of Cookie or Header option needs to be specified")),
            (name, "") => Source::Header(
                HeaderLookup::parse(name).ok_or_else(|| cx.error_at("header", "not a valid header name"))?,
            ),
            ("", _) if remove => return Err(cx.error("Cannot specify remove for cookie")),
            ("", _) => Source::Cookie(cookie),
            _ => return Err(cx.error("Cannot specify both header and cookie")),
        };
        if on_header_present.is_none() && on_header_missing.is_none() {
            return Err(cx.error(format!(
                "header to metadata filter: rule for header '{header}' has neither `on_header_present` nor `on_header_missing` set"
            )));
        }
        if on_header_missing
            .as_ref()
            .is_some_and(|m| m.regex_value_rewrite.is_some())
        {
            return Err(cx.error_at(
                "on_header_missing",
                "Cannot specify on_header_missing.regex_value_rewrite",
            ));
        }
        if on_header_missing.as_ref().is_some_and(|m| m.value.is_empty()) {
            return Err(cx.error_at(
                "on_header_missing",
                "Cannot specify on_header_missing rule with an empty value",
            ));
        }
        Ok(Self {
            source,
            present: cx.opt("on_header_present", on_header_present, Assignment::build)?,
            missing: cx.opt("on_header_missing", on_header_missing, Assignment::build)?,
            remove,
        })
    }
}

impl Assignment {
    fn build(proto: KeyValuePair, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let (kind, encoding) = (proto.r#type(), proto.encode());
        coverage!(cx, proto => KeyValuePair {
            supported { metadata_namespace, key, value, regex_value_rewrite, r#type, encode }
        });
        // Read by their accessors.
        let _ = (r#type, encode);
        if !value.is_empty() && regex_value_rewrite.is_some() {
            return Err(cx.error("Cannot specify both value and regex_value_rewrite"));
        }
        Ok(Self {
            namespace: match metadata_namespace.is_empty() {
                true => DEFAULT_NAMESPACE.to_owned(),
                false => metadata_namespace,
            },
            key,
            value,
            rewrite: cx.opt("regex_value_rewrite", regex_value_rewrite, RegexSubstitution::build)?,
            kind,
            encoded: encoding == ValueEncode::Base64,
        })
    }

    /// The value to set for this header value; none when there is nothing to set.
    pub fn value(&self, header: &[u8]) -> Option<Value> {
        let mut value = match &self.rewrite {
            Some(rewrite) => rewrite.replace_all(header).into_owned(),
            None if !self.value.is_empty() => self.value.clone().into_bytes(),
            None => header.to_vec(),
        };
        if value.is_empty() || value.len() >= MOST_VALUE {
            return None;
        }
        if self.encoded {
            value = STANDARD.decode(value).ok().filter(|v| !v.is_empty())?;
        }
        let text = || String::from_utf8_lossy(&value).into_owned();
        let kind = match self.kind {
            ValueType::String => Kind::StringValue(text()),
            ValueType::Number => Kind::NumberValue(text().trim().parse().ok()?),
            ValueType::ProtobufValue => return Value::decode(value.as_slice()).ok(),
        };
        Some(Value { kind: Some(kind) })
    }
}
