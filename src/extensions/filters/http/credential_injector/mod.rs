//! Credentials for upstreams (`envoy.filters.http.credential_injector`): a secret in a header of each request.

mod filter;

use std::sync::Arc;

use http::{HeaderName, header};
use xds_protos::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::{
            filters::http::credential_injector::v3::CredentialInjector as Proto,
            http::injected_credentials::generic::v3::Generic,
        },
    },
    prost::Name,
};

use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    extensions::filters::common::generic_secret::GenericSecret,
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.credential_injector";
    type Proto = Proto;
    type RouteProto = Proto;

    fn build(&self, proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => Proto { supported { overwrite, allow_request_without_credential, credential } });
        Ok(Arc::new(filter::CredentialInjector(Arc::new(filter::Config {
            overwrite,
            allow_without: allow_request_without_credential,
            credential: cx.required("credential", credential, Credential::build)?,
            stats: cx
                .server
                .stats
                .scope(&format!("{}credential_injector", cx.http_prefix))
                .block(),
        }))))
    }
}

/// `envoy.http.injected_credentials.generic`: a secret, and where it goes.
pub(super) struct Credential {
    pub header: HeaderName,
    pub prefix: String,
    pub secret: Arc<GenericSecret>,
}

impl Credential {
    fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
        let any = plain(typed_config.unwrap_or_default(), cx)?;
        if any.type_name() != Generic::full_name() {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                any.type_name()
            )));
        }
        cx.field("typed_config", |cx| {
            let proto = unpack::<Generic>(&any, cx)?;
            coverage!(cx, proto => Generic { supported { credential, header, header_value_prefix } });
            Ok(Self {
                header: match header.as_str() {
                    "" => header::AUTHORIZATION,
                    name => HeaderName::try_from(name.to_ascii_lowercase())
                        .map_err(|_| cx.error_at("header", "not a valid header name"))?,
                },
                prefix: header_value_prefix,
                secret: cx.required("credential", credential, GenericSecret::subscribe)?,
            })
        })
    }
}
