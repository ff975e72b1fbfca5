//! `%SECRET(name)%` (`envoy.formatter.generic_secret`): a secret as of now.

use std::{collections::HashMap, sync::Arc};

use xds_protos::envoy::extensions::formatter::generic_secret::v3::GenericSecret as Proto;

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::filters::common::generic_secret::GenericSecret,
    formatter::{CommandParser, CommandParserFactory, Extended, LiveText},
};

/// The extension.
pub struct Factory;

impl CommandParserFactory for Factory {
    const NAME: &'static str = "envoy.formatter.generic_secret";
    type Proto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>> {
        coverage!(cx, proto => Proto { supported { secret_configs } });
        let mut secrets = HashMap::new();
        for (name, config) in secret_configs {
            let secret = cx.field("secret_configs", |cx| GenericSecret::subscribe(config, cx))?;
            secrets.insert(name, secret);
        }
        Ok(Box::new(Parser(secrets)))
    }
}

struct Parser(HashMap<String, Arc<GenericSecret>>);

impl CommandParser for Parser {
    fn parse(&self, command: &str, arguments: &str, cx: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        if command != "SECRET" {
            return None;
        }
        Some(match self.0.get(arguments) {
            Some(secret) => Ok(Extended::Text(secret.clone())),
            None => Err(cx.error(format!(
                "SECRET formatter: secret '{arguments}' is not configured in 'secret_configs'"
            ))),
        })
    }
}

impl LiveText for GenericSecret {
    fn get(&self) -> Option<Arc<Vec<u8>>> {
        GenericSecret::get(self)
    }
}
