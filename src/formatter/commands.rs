//! Commands that an extension brings (`formatters` of a format): known only to the formats that name it.

use std::{fmt, sync::Arc};

use xds_protos::{
    envoy::config::core::v3::TypedExtensionConfig,
    prost::{Message, Name},
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    matching::cel::CelExpression,
};

/// A text that may change while formats use it.
pub trait LiveText: Send + Sync {
    /// The text as of now; none when there is none.
    fn get(&self) -> Option<Arc<Vec<u8>>>;
}

/// What an extension's command stands for.
#[derive(Clone)]
pub enum Extended {
    /// `%REQ_WITHOUT_QUERY(..)%`
    RequestHeaderWithoutQuery,
    /// An expression.
    Cel {
        /// The expression.
        expression: Arc<CelExpression>,
        /// Whether it keeps its type in JSON.
        typed: bool,
    },
    /// A text from somewhere else.
    Text(Arc<dyn LiveText>),
}

impl fmt::Debug for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestHeaderWithoutQuery => "RequestHeaderWithoutQuery",
            Self::Cel { .. } => "Cel",
            Self::Text(_) => "Text",
        })
    }
}

/// Knows one command by its name.
pub trait CommandParser {
    /// What the command with these arguments stands for; none when it is another extension's.
    fn parse(&self, command: &str, arguments: &str, cx: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>>;
}

/// What an author of a formatter extension writes; a blanket impl erases it for the registry.
pub trait CommandParserFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.formatter.req_without_query`.
    const NAME: &'static str;
    /// The extension's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the parser of its commands.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Box<dyn CommandParser>>;
}

/// The extensions that a format may use besides the commands that are always there.
#[derive(Default)]
pub struct Commands(Vec<Box<dyn CommandParser>>);

impl Commands {
    /// Builds `formatters`. `cx` stands at the message that holds them.
    pub fn build(protos: Vec<TypedExtensionConfig>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        cx.each("formatters", protos, |proto, cx| {
            let TypedExtensionConfig { name, typed_config } = proto;
            let any = plain(typed_config.unwrap_or_default(), cx)?;
            let server = cx.server.clone();
            match server.registry.find_formatter(&any) {
                Some(factory) => factory.build(&any, cx),
                None => Err(cx.error(format!(
                    "Formatter not found: {}",
                    if any.type_name().is_empty() {
                        &name
                    } else {
                        any.type_name()
                    }
                ))),
            }
        })
        .map(Self)
    }

    pub(super) fn find(&self, command: &str, arguments: &str, cx: &mut BuildCx<'_>) -> Option<ConfigResult<Extended>> {
        self.0.iter().find_map(|parser| parser.parse(command, arguments, cx))
    }
}
