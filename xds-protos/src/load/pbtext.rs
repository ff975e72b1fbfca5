//! Protobuf's text format, for `.pb_text` files.

use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::error::{LoadError, Problem};

/// Reads `text` as a message; unknown fields are always errors, as they are in Envoy.
pub(super) fn parse(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, LoadError> {
    DynamicMessage::parse_text_format(descriptor.clone(), text).map_err(|error| LoadError {
        line: 0,
        column: 0,
        path: String::new(),
        problem: Problem::Syntax(format!("not a text protobuf: {error}")),
    })
}
