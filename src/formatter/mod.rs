//! `%COMMAND(arguments):length%` texts compiled to operations: access logs, header mutation, local replies,
//! tracing tags.
//!
//! [`Format::parse`] and [`Format::build`] compile once; [`Format::write`] appends to a buffer and allocates only
//! for JSON.

mod arguments;
mod coalesce;
mod command;
mod commands;
mod date;
mod grpc_status;
mod json;
mod metadata;
mod meters;
mod operators;
mod parse;
mod percent;
mod time;
mod values;

use xds_protos::envoy::config::core::v3::{
    JsonFormatOptions, SubstitutionFormatString as Proto, substitution_format_string,
};

use crate::{
    config::{BuildCx, ConfigResult, read_data_source},
    http::{RequestHead, ResponseHead, StreamInfo},
};
pub use commands::{CommandParser, CommandParserFactory, Commands, Extended, LiveText};
pub use percent::decode as percent_decode;

use command::Command;
use json::Json;

/// What an operator may read.
#[derive(Clone, Copy)]
pub struct FormatCx<'a> {
    /// The request's head; none for TCP and before there is one.
    pub request: Option<&'a RequestHead>,
    /// The response's head, once there is one.
    pub response: Option<&'a ResponseHead>,
    /// The stream.
    pub info: &'a StreamInfo,
}

/// A compiled format: text or JSON.
#[derive(Debug, Clone)]
pub struct Format {
    body: Body,
    omit_empty: bool,
    content_type: Option<String>,
}

#[derive(Debug, Clone)]
enum Body {
    Text(Vec<Op>),
    Json(Json),
}

/// A piece of a text format.
#[derive(Debug, Clone)]
enum Op {
    Literal(Box<str>),
    Command(Command),
}

/// Envoy's access log format when none is given.
pub const DEFAULT_ACCESS_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

impl Format {
    /// Compiles a text format. An unknown operator is an error in Envoy's words.
    pub fn parse(text: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::text(text, false, cx)
    }

    /// Compiles a text format that may use the commands of extensions.
    pub fn parse_with(text: &str, commands: &Commands, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self {
            body: Body::Text(parse::parse(text, &mut Scope { commands, cx })?),
            omit_empty: false,
            content_type: None,
        })
    }

    /// Compiles a text format in which a missing value is nothing instead of `-`: header values.
    pub fn parse_omit_empty(text: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::text(text, true, cx)
    }

    /// [`Self::parse_omit_empty`] of a text that may use the commands of extensions.
    pub fn parse_header(text: &str, commands: &Commands, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let format = Self::parse_with(text, commands, cx)?;
        Ok(Self {
            omit_empty: true,
            ..format
        })
    }

    fn text(text: &str, omit_empty: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let commands = &Commands::default();
        Ok(Self {
            body: Body::Text(parse::parse(text, &mut Scope { commands, cx })?),
            omit_empty,
            content_type: None,
        })
    }

    /// Compiles a `SubstitutionFormatString`: text, text from a source, or JSON.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { omit_empty_values, content_type, formatters, json_format_options, format }
        });
        if let Some(options) = json_format_options {
            coverage!(cx, options => JsonFormatOptions {
                supported {}
                ignored { sort_properties: "properties are always sorted" }
            });
        }
        let commands = &Commands::build(formatters, cx)?;
        let body = match format {
            Some(substitution_format_string::Format::TextFormat(text)) => {
                Body::Text(cx.field("text_format", |cx| parse::parse(&text, &mut Scope { commands, cx }))?)
            }
            Some(substitution_format_string::Format::TextFormatSource(source)) => {
                let bytes = cx.field("text_format_source", |cx| read_data_source(source, cx))?;
                let text = String::from_utf8_lossy(&bytes);
                Body::Text(cx.field("text_format_source", |cx| {
                    parse::parse(&text, &mut Scope { commands, cx })
                })?)
            }
            Some(substitution_format_string::Format::JsonFormat(json)) => {
                Body::Json(cx.field("json_format", |cx| Json::build(json, &mut Scope { commands, cx }))?)
            }
            None => return Err(cx.error_at("format", "value is required")),
        };
        Ok(Self {
            body,
            omit_empty: omit_empty_values,
            content_type: Some(content_type).filter(|c| !c.is_empty()),
        })
    }

    /// Compiles a JSON format, as `json_format` has it.
    pub fn json(
        proto: xds_protos::google::protobuf::Struct,
        omit_empty_values: bool,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        let commands = &Commands::default();
        Ok(Self {
            body: Body::Json(Json::build(proto, &mut Scope { commands, cx })?),
            omit_empty: omit_empty_values,
            content_type: None,
        })
    }

    /// Appends the formatted text. JSON ends with a line feed, text only where the format has one.
    pub fn write(&self, out: &mut Vec<u8>, cx: &FormatCx<'_>) {
        match &self.body {
            Body::Text(ops) => write_text(ops, self.omit_empty, out, cx),
            Body::Json(json) => {
                json.write(self.omit_empty, out, cx);
                out.push(b'\n');
            }
        }
    }

    /// The text when the format has no operator in it.
    pub fn as_literal(&self) -> Option<&str> {
        match &self.body {
            Body::Text(ops) => match ops.as_slice() {
                [] => Some(""),
                [Op::Literal(text)] => Some(text),
                _ => None,
            },
            Body::Json(_) => None,
        }
    }

    /// Whether it writes JSON, which ends with a line feed.
    pub fn is_json(&self) -> bool {
        matches!(self.body, Body::Json(_))
    }

    /// `content_type`, or Envoy's default: `application/json` for JSON, `text/plain` otherwise.
    pub fn content_type(&self) -> &str {
        match (&self.content_type, &self.body) {
            (Some(given), _) => given,
            (None, Body::Json(_)) => "application/json",
            (None, Body::Text(_)) => "text/plain",
        }
    }
}

/// What stands for a missing value.
const UNSPECIFIED: &[u8] = b"-";

fn write_text(ops: &[Op], omit_empty: bool, out: &mut Vec<u8>, cx: &FormatCx<'_>) {
    for op in ops {
        match op {
            Op::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Op::Command(command) => {
                if command.write(out, cx).is_none() && !omit_empty {
                    out.extend_from_slice(UNSPECIFIED);
                }
            }
        }
    }
}

/// What a format is compiled with.
struct Scope<'a, 'b> {
    commands: &'a Commands,
    cx: &'a mut BuildCx<'b>,
}

#[cfg(test)]
mod tests;
