//! How header names are written: `header_key_format`.

use xds_protos::envoy::{
    config::core::v3::http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat},
    extensions::http::header_formatters::preserve_case::v3::{
        PreserveCaseFormatterConfig, preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders,
    },
};

use crate::config::{AnyExt, BuildCx, ConfigResult, unpack};

/// How header names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderCase {
    /// As HTTP/2 has them.
    #[default]
    Lower,
    /// `proper_case_words`: the first letter, and each after what is no letter or digit, in upper case.
    ProperWords,
    /// The `preserve_case` formatter: as the other side spelled them, which is told by the message.
    Preserved {
        /// `formatter_type_on_envoy_headers: PROPER_CASE`
        proper_others: bool,
        /// `forward_reason_phrase`
        reason: bool,
    },
}

impl HeaderCase {
    /// From `header_key_format`.
    pub fn build(proto: HeaderKeyFormat, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => HeaderKeyFormat {
            supported { header_format }
        });
        match header_format {
            None => Err(cx.error("header_format: value is required")),
            Some(HeaderFormat::ProperCaseWords(_)) => Ok(Self::ProperWords),
            Some(HeaderFormat::StatefulFormatter(formatter)) => cx.field("stateful_formatter", |cx| {
                let any = formatter.typed_config.unwrap_or_default();
                if !any.type_name().ends_with(".PreserveCaseFormatterConfig") {
                    return Err(cx.error(format!(
                        "Didn't find a registered implementation for '{}' with type URL: '{}'",
                        formatter.name,
                        any.type_name()
                    )));
                }
                let proto: PreserveCaseFormatterConfig = unpack(&any, cx)?;
                coverage!(cx, proto => PreserveCaseFormatterConfig {
                    supported { forward_reason_phrase, formatter_type_on_envoy_headers }
                });
                Ok(Self::Preserved {
                    proper_others: formatter_type_on_envoy_headers == FormatterTypeOnEnvoyHeaders::ProperCase as i32,
                    reason: forward_reason_phrase,
                })
            }),
        }
    }
}
