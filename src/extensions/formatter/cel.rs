//! `%CEL(..)%` and `%TYPED_CEL(..)%` with options of their own (`envoy.formatter.cel`).

use std::sync::Arc;

use xds_protos::envoy::extensions::formatter::cel::v3::Cel;

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{CommandParser, CommandParserFactory, Extended},
    matching::cel::{CelExpression, CelOptions},
};

/// The extension.
pub struct Factory;

impl CommandParserFactory for Factory {
    const NAME: &'static str = "envoy.formatter.cel";
    type Proto = Cel;

    fn build(&self, proto: Cel, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        coverage!(cx, proto => Cel { supported { cel_config } });
        CelOptions::build(cel_config, cx).map(|options| Box::new(Parser(options)) as Box<dyn CommandParser>)
    }
}

struct Parser(CelOptions);

impl CommandParser for Parser {
    fn parse(&self, command: &str, arguments: &str, cx: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        let typed = match command {
            "CEL" => false,
            "TYPED_CEL" => true,
            _ => return None,
        };
        let expression = CelExpression::compile(arguments, self.0).map_err(|e| cx.error(e));
        Some(expression.map(|e| Extended::Cel {
            expression: Arc::new(e),
            typed,
        }))
    }
}
