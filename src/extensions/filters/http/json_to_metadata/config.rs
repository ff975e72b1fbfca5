//! `JsonToMetadata` -> rules.

use xds_protos::{
    envoy::extensions::filters::http::json_to_metadata::v3::{
        JsonToMetadata as Proto,
        json_to_metadata::{
            KeyValuePair, MatchRules, Rule as RuleProto, Selector, ValueType, key_value_pair::ValueType as ValueOneof,
            selector::Selector as Select,
        },
    },
    google::protobuf::{Value, value::Kind},
};

use crate::{
    config::{BuildCx, ConfigResult},
    matching::RegexMatcher,
    stats::Stats,
};

/// Where metadata goes when a rule does not say.
const DEFAULT_NAMESPACE: &str = "envoy.filters.http.json_to_metadata";

/// Longer texts are no values.
const MOST_VALUE: usize = 8 * 1024;

crate::stats_block! {
    /// Envoy's `json_to_metadata.` statistics
    pub(super) struct JsonStats {
        counter rq_success => "rq.success", "Requests that were read";
        counter rq_mismatched_content_type => "rq.mismatched_content_type", "Requests of another content type";
        counter rq_no_body => "rq.no_body", "Requests without a body";
        counter rq_invalid_json_body => "rq.invalid_json_body", "Requests that are no JSON";
        counter resp_success => "resp.success", "Responses that were read";
        counter resp_mismatched_content_type => "resp.mismatched_content_type", "Responses of another content type";
        counter resp_no_body => "resp.no_body", "Responses without a body";
        counter resp_invalid_json_body => "resp.invalid_json_body", "Responses that are no JSON";
    }
}

/// A filter's rules, or a route's.
pub(super) struct Config {
    pub request: Option<Rules>,
    pub response: Option<Rules>,
    pub stats: Stats<JsonStats>,
}

/// The rules of one direction.
pub(super) struct Rules {
    pub rules: Vec<Rule>,
    types: Vec<String>,
    empty_type: bool,
    type_regex: Option<RegexMatcher>,
}

/// One value.
pub(super) struct Rule {
    /// Keys from the root down.
    pub path: Vec<String>,
    pub present: Option<Assignment>,
    pub missing: Option<Assignment>,
    pub error: Option<Assignment>,
}

/// Where a value goes.
pub(super) struct Assignment {
    pub namespace: String,
    pub key: String,
    /// Instead of the body's value.
    pub value: Option<Value>,
    kind: ValueType,
    /// What is there already stays.
    pub preserve: bool,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { request_rules, response_rules } });
        Ok(Self {
            request: cx.opt("request_rules", request_rules, Rules::build)?,
            response: cx.opt("response_rules", response_rules, Rules::build)?,
            stats: cx.server.stats.scope("json_to_metadata").block(),
        })
    }
}

impl Rules {
    fn build(proto: MatchRules, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => MatchRules {
            supported { rules, allow_content_types, allow_empty_content_type, allow_content_types_regex }
        });
        Ok(Self {
            rules: cx.each("rules", rules, Rule::build)?,
            types: match allow_content_types.is_empty() {
                true => vec!["application/json".to_owned()],
                false => allow_content_types,
            },
            empty_type: allow_empty_content_type,
            type_regex: cx.opt(
                "allow_content_types_regex",
                allow_content_types_regex,
                RegexMatcher::build,
            )?,
        })
    }

    /// Whether bodies of this content type, to the letter, are read.
    pub fn allow(&self, content_type: &[u8]) -> bool {
        if content_type.is_empty() {
            return self.empty_type;
        }
        self.types.iter().any(|t| t.as_bytes() == content_type)
            || self.type_regex.as_ref().is_some_and(|r| r.matches(content_type))
    }
}

impl Rule {
    fn build(proto: RuleProto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => RuleProto { supported { selectors, on_present, on_missing, on_error } });
        if on_present.is_none() && on_missing.is_none() {
            return Err(cx.error("json to metadata filter: neither `on_present` nor `on_missing` set"));
        }
        for (name, assignment) in [("on_missing", &on_missing), ("on_error", &on_error)] {
            if assignment.as_ref().is_some_and(|a| a.value_type.is_none()) {
                return Err(cx.error_at(
                    name,
                    format!("json to metadata filter: cannot specify {name} rule with empty value"),
                ));
            }
        }
        Ok(Self {
            path: cx.each("selectors", selectors, |proto, cx| {
                coverage!(cx, proto => Selector { supported { selector } });
                match selector {
                    Some(Select::Key(key)) => Ok(key),
                    None => Err(cx.error_at("key", "value is required")),
                }
            })?,
            present: cx.opt("on_present", on_present, Assignment::build)?,
            missing: cx.opt("on_missing", on_missing, Assignment::build)?,
            error: cx.opt("on_error", on_error, Assignment::build)?,
        })
    }
}

impl Assignment {
    fn build(proto: KeyValuePair, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let kind = proto.r#type();
        coverage!(cx, proto => KeyValuePair {
            supported { metadata_namespace, key, r#type, preserve_existing_metadata_value, value_type }
        });
        // Read by its accessor.
        let _ = r#type;
        Ok(Self {
            namespace: match metadata_namespace.is_empty() {
                true => DEFAULT_NAMESPACE.to_owned(),
                false => metadata_namespace,
            },
            key,
            value: value_type.map(|ValueOneof::Value(value)| value),
            kind,
            preserve: preserve_existing_metadata_value,
        })
    }

    /// The metadata for a value of the body: none when it cannot be had of it, and then it counts as missing. The
    /// inner none sets nothing: an empty text.
    pub fn convert(&self, json: &serde_json::Value) -> Option<Option<Value>> {
        use serde_json::Value as Json;
        let kind = match (self.kind, json) {
            (_, Json::String(text)) if text.len() > MOST_VALUE => return None,
            (ValueType::ProtobufValue, Json::Bool(b)) => Kind::BoolValue(*b),
            (ValueType::ProtobufValue, Json::Number(n)) => Kind::NumberValue(n.as_f64()?),
            (ValueType::ProtobufValue, Json::String(text)) => Kind::StringValue(text.clone()),
            (ValueType::Number, Json::Bool(b)) => Kind::NumberValue(f64::from(u8::from(*b))),
            (ValueType::Number, Json::Number(n)) => Kind::NumberValue(n.as_f64()?),
            (ValueType::Number, Json::String(text)) => Kind::NumberValue(text.trim().parse().ok()?),
            (ValueType::String, Json::Bool(b)) => Kind::StringValue(u8::from(*b).to_string()),
            (ValueType::String, Json::Number(n)) => Kind::StringValue(match n.as_i64() {
                Some(whole) => whole.to_string(),
                // As C prints doubles.
                None => format!("{:.6}", n.as_f64()?),
            }),
            (ValueType::String, Json::String(text)) if text.is_empty() => return Some(None),
            (ValueType::String, Json::String(text)) => Kind::StringValue(text.clone()),
            (_, Json::Null | Json::Array(_) | Json::Object(_)) => return None,
        };
        Some(Some(Value { kind: Some(kind) }))
    }
}
