//! What `filter_chain_matcher` may ask, and what it leads to: the name of a filter chain.

use std::sync::Arc;

use xds_protos::google::protobuf::{Any, StringValue};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    matching::tree::MatchTarget,
};

/// The target of filter chain matchers.
pub(super) struct ChainNames;

impl MatchTarget for ChainNames {
    type Action = Arc<str>;

    fn allows(&self, input: &str) -> Result<(), String> {
        let network = ["network.v3.", "ssl.v3.", "environment_variable.v3."]
            .iter()
            .any(|kind| input.starts_with(&format!("envoy.extensions.matching.common_inputs.{kind}")));
        // Of the network's inputs this is one of streams alone.
        match network && !input.ends_with(".DynamicMetadataInput") {
            true => Ok(()),
            false => Err(format!(
                "Didn't find a registered implementation for type URL: '{input}'"
            )),
        }
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<str>> {
        if config.type_name() != "google.protobuf.StringValue" {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                config.type_name()
            )));
        }
        Ok(unpack::<StringValue>(&config, cx)?.value.into())
    }
}
