//! `%METADATA(..)%` (`envoy.formatter.metadata`), which every format has anyway.

use xds_protos::envoy::extensions::formatter::metadata::v3::Metadata;

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{CommandParser, CommandParserFactory, Extended},
};

/// The extension.
pub struct Factory;

impl CommandParserFactory for Factory {
    const NAME: &'static str = "envoy.formatter.metadata";
    type Proto = Metadata;

    fn build(&self, proto: Metadata, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        coverage!(cx, proto => Metadata { supported {} });
        Ok(Box::new(Parser))
    }
}

struct Parser;

impl CommandParser for Parser {
    fn parse(&self, _: &str, _: &str, _: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        None
    }
}
