//! `%REQ_WITHOUT_QUERY(X?Y):Z%` (`envoy.formatter.req_without_query`): a request header up to its question mark.

use xds_protos::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;

use crate::{
    config::{BuildCx, ConfigResult},
    formatter::{CommandParser, CommandParserFactory, Extended},
};

/// The extension.
pub struct Factory;

impl CommandParserFactory for Factory {
    const NAME: &'static str = "envoy.formatter.req_without_query";
    type Proto = ReqWithoutQuery;

    fn build(&self, proto: ReqWithoutQuery, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        coverage!(cx, proto => ReqWithoutQuery { supported {} });
        Ok(Box::new(Parser))
    }
}

struct Parser;

impl CommandParser for Parser {
    fn parse(&self, command: &str, _: &str, _: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        (command == "REQ_WITHOUT_QUERY").then_some(Ok(Extended::RequestHeaderWithoutQuery))
    }
}
