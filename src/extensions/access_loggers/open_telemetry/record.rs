//! A stream as a log record: body and attributes are formats within OTLP values.

use std::time::UNIX_EPOCH;

use xds_protos::opentelemetry::proto::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};

use super::proto::LogRecord;
use crate::{
    access_log::LogCx,
    config::{BuildCx, ConfigResult},
    formatter::{Commands, Format, FormatCx},
};

/// What records are made of.
#[derive(Debug, Default)]
pub(super) struct RecordFormat {
    body: Option<Template>,
    attributes: Vec<(String, Template)>,
}

/// An OTLP value whose texts are formats.
#[derive(Debug)]
enum Template {
    Text(Format),
    List(Vec<Template>),
    Map(Vec<(String, Template)>),
}

impl RecordFormat {
    pub(super) fn build(
        body: Option<AnyValue>,
        attributes: Option<KeyValueList>,
        commands: &Commands,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let attributes = cx.opt("attributes", attributes, |list, cx| pairs(list, commands, cx))?;
        Ok(Self {
            body: cx.opt("body", body, |body, cx| Template::build(body, commands, cx))?,
            attributes: attributes.unwrap_or_default(),
        })
    }

    pub(super) fn record(&self, cx: &LogCx<'_>) -> LogRecord {
        let info = cx.info;
        let format = FormatCx {
            request: cx.request,
            response: cx.response,
            info,
        };
        let since_epoch = info.start_time.duration_since(UNIX_EPOCH).unwrap_or_default();
        LogRecord {
            time_unix_nano: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
            body: self.body.as_ref().map(|b| b.value(&format)),
            attributes: values(&self.attributes, &format),
            trace_id: info.trace_id.as_deref().and_then(unhex).unwrap_or_default(),
            span_id: info.span_id.as_deref().and_then(unhex).unwrap_or_default(),
        }
    }
}

impl Template {
    fn build(proto: AnyValue, commands: &Commands, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        match proto.value {
            Some(Value::StringValue(text)) => Format::parse_with(&text, commands, cx).map(Self::Text),
            Some(Value::ArrayValue(ArrayValue { values })) => cx
                .each("values", values, |v, cx| Self::build(v, commands, cx))
                .map(Self::List),
            Some(Value::KvlistValue(list)) => pairs(list, commands, cx).map(Self::Map),
            _ => Err(cx.error(
                "Only string values, nested key value lists and array values are supported in OpenTelemetry access log \
                 format.",
            )),
        }
    }

    fn value(&self, cx: &FormatCx<'_>) -> AnyValue {
        let value = match self {
            Self::Text(format) => {
                let mut text = Vec::new();
                format.write(&mut text, cx);
                // A proto string is UTF-8, a header need not be.
                Value::StringValue(String::from_utf8_lossy(&text).into_owned())
            }
            Self::List(list) => Value::ArrayValue(ArrayValue {
                values: list.iter().map(|t| t.value(cx)).collect(),
            }),
            Self::Map(map) => Value::KvlistValue(KeyValueList {
                values: values(map, cx),
            }),
        };
        AnyValue { value: Some(value) }
    }
}

fn pairs(list: KeyValueList, commands: &Commands, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<(String, Template)>> {
    cx.each("values", list.values, |pair, cx| {
        let template = cx.field("value", |cx| {
            Template::build(pair.value.unwrap_or_default(), commands, cx)
        })?;
        Ok((pair.key, template))
    })
}

fn values(pairs: &[(String, Template)], cx: &FormatCx<'_>) -> Vec<KeyValue> {
    let pair = |(key, template): &(String, Template)| KeyValue {
        key: key.clone(),
        value: Some(template.value(cx)),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let byte = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}
