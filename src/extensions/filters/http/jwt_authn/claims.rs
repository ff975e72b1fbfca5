//! Claims on their way into headers and dynamic metadata.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use xds_protos::{
    envoy::extensions::filters::http::jwt_authn::v3::JwtClaimToHeader,
    google::protobuf::{self as pb, value::Kind},
};

use crate::config::{BuildCx, ConfigResult};

/// `JwtClaimToHeader`
#[derive(Debug)]
pub(super) struct ClaimHeader {
    pub header: HeaderName,
    /// The claim's name, then the names in it.
    path: Vec<String>,
}

impl ClaimHeader {
    pub fn build(proto: JwtClaimToHeader, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => JwtClaimToHeader { supported { header_name, claim_name, claim_path } });
        let path = match (claim_name.is_empty(), claim_path.is_empty()) {
            (false, true) => claim_name.split('.').map(str::to_owned).collect(),
            (true, false) => claim_path.into_iter().map(|segment| segment.key).collect(),
            _ => return Err(cx.error("exactly one of claim_name and claim_path must be set")),
        };
        Ok(Self {
            header: HeaderName::try_from(header_name.as_str())
                .map_err(|_| cx.error_at("header_name", "value does not match regex pattern"))?,
            path,
        })
    }

    /// The header's value; none for a claim that is missing, empty or null.
    pub fn value(&self, payload: &Map<String, Value>) -> Option<HeaderValue> {
        let (first, rest) = self.path.split_first()?;
        let mut claim = payload.get(first)?;
        for name in rest {
            claim = claim.as_object()?.get(name)?;
        }
        let text = match claim {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Bool(b) => b.to_string(),
            // Numbers are doubles to Envoy; those that 64 bits hold are written without a fraction.
            Value::Number(number) => match number.as_f64()? {
                whole if whole.fract() == 0.0 && (0.0..u64::MAX as f64).contains(&whole) => format!("{whole:.0}"),
                real => format!("{real:.6}"),
            },
            nested => STANDARD.encode(nested.to_string()),
        };
        HeaderValue::try_from(text).ok().filter(|v| !v.is_empty())
    }
}

/// The payload as a header has it.
pub(super) fn payload_header(text: &str, padded: bool) -> Option<HeaderValue> {
    let bare = text.trim_end_matches('=');
    let padding = match bare.len() % 4 {
        2 => "==",
        3 => "=",
        _ => "",
    };
    HeaderValue::try_from(match padded {
        true => format!("{bare}{padding}"),
        false => text.to_owned(),
    })
    .ok()
}

/// A JSON object as dynamic metadata has it. `split`: claims that are lists of words in one text.
pub(super) fn metadata(object: &Map<String, Value>, split: &[String]) -> pb::Value {
    let field = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) if split.contains(key) => words(text),
            other => convert(other),
        };
        (key.clone(), value)
    };
    kind(Kind::StructValue(pb::Struct {
        fields: object.iter().map(field).collect(),
    }))
}

fn words(text: &str) -> pb::Value {
    let word = |w: &str| kind(Kind::StringValue(w.to_owned()));
    kind(Kind::ListValue(pb::ListValue {
        values: text.split(' ').filter(|w| !w.is_empty()).map(word).collect(),
    }))
}

fn convert(value: &Value) -> pb::Value {
    kind(match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(all) => Kind::ListValue(pb::ListValue {
            values: all.iter().map(convert).collect(),
        }),
        Value::Object(object) => return metadata(object, &[]),
    })
}

fn kind(kind: Kind) -> pb::Value {
    pb::Value { kind: Some(kind) }
}
