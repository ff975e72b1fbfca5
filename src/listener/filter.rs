//! Listener filters: what looks at a connection before its filter chain is chosen.
//!
//! They run one after the other, in the order they are listed. What they find is left in the connection's facts and in
//! [`Inspected`]; the filter chain is then chosen by that. All of them together have `listener_filters_timeout`.

use std::{io, sync::Arc};

use futures_util::future::LocalBoxFuture;
use xds_protos::{
    envoy::{
        config::listener::v3::{ListenerFilter as Proto, listener_filter::ConfigType},
        extensions::filters::listener::{original_dst::v3::OriginalDst, proxy_protocol::v3::ProxyProtocol},
    },
    google::protobuf::Any,
    prost::{Message, Name},
    type_url,
};

use super::{Accepted, predicate::Predicate};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain},
    http::{ConnectionInfo, stream_info::Inspected},
};

/// What a listener filter extension is, typed for its author.
pub trait ListenerFilterFactory: Send + Sync + 'static {
    /// Envoy's extension name, for example `envoy.filters.listener.tls_inspector`.
    const NAME: &'static str;
    /// The filter's configuration message.
    type Proto: Message + Name + Default;
    /// Builds the configuration that all connections of a listener share.
    fn build(&self, proto: Self::Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn ListenerFilter>>;
}

/// A listener filter as all connections of a listener use it.
pub trait ListenerFilter: Send + Sync {
    /// Looks at a new connection. An error closes it.
    fn on_accept<'a>(&'a self, cx: &'a mut ListenerFilterCx<'_>) -> LocalBoxFuture<'a, Result<(), Refused>>;
}

/// A connection as listener filters see and change it.
pub struct ListenerFilterCx<'a> {
    /// Its bytes.
    pub accepted: &'a mut Accepted,
    /// Its facts.
    pub info: &'a mut ConnectionInfo,
    /// What was found out so far.
    pub inspected: &'a mut Inspected,
}

/// Why a listener filter closes a connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The client went or broke: `downstream_listener_filter_remote_close`.
    #[error("read: {0}")]
    Io(#[from] io::Error),
    /// The filter does not let it in.
    #[error("refused by a listener filter")]
    Filter,
}

/// A listener filter where it stands in a listener.
pub struct ConfiguredFilter {
    /// `filter_disabled`: connections that it passes over.
    disabled: Option<Predicate>,
    filter: Arc<dyn ListenerFilter>,
}

impl ConfiguredFilter {
    /// Builds the filter of `envoy.config.listener.v3.ListenerFilter`.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { name, config_type, filter_disabled } });
        let any = match config_type {
            Some(ConfigType::TypedConfig(any)) => plain(any, cx)?,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(cx.error_at("config_discovery", "not supported: discovered listener filters"));
            }
            None => Any::default(),
        };
        let server = cx.server.clone();
        let filter = cx.field("typed_config", |cx| match server.registry.find_listener_filter(&any) {
            Some(factory) => factory.build(&any, cx),
            None => Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                any.type_name()
            ))),
        })?;
        Ok(Self {
            disabled: cx.opt("filter_disabled", filter_disabled, Predicate::build)?,
            filter,
        })
    }

    /// The `original_dst` filter that `use_original_dst` stands for.
    pub fn original_dst(cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::by_default::<OriginalDst>("envoy.filters.listener.original_dst", cx)
    }

    /// The `proxy_protocol` filter that `use_proxy_proto` of a filter chain stands for.
    pub fn proxy_protocol(cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Self::by_default::<ProxyProtocol>("envoy.filters.listener.proxy_protocol", cx)
    }

    fn by_default<M: Message + Name>(name: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let any = Any {
            type_url: type_url::<M>(),
            ..Any::default()
        };
        let proto = Proto {
            name: name.to_owned(),
            config_type: Some(ConfigType::TypedConfig(any)),
            ..Proto::default()
        };
        Self::build(proto, cx)
    }

    /// Runs the filter, unless it is disabled for this connection.
    pub async fn run(&self, cx: &mut ListenerFilterCx<'_>) -> Result<(), Refused> {
        if self.disabled.as_ref().is_some_and(|p| p.matches(cx.info)) {
            return Ok(());
        }
        self.filter.on_accept(cx).await
    }
}
