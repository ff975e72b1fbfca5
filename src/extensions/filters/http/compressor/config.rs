//! `Compressor` -> [`Config`]: what is compressed in which direction.

use std::sync::Arc;

use http::StatusCode;
use xds_protos::{
    envoy::{
        config::core::v3::RuntimeFeatureFlag as FlagProto,
        extensions::filters::http::compressor::v3::{
            Compressor as Proto, CompressorOverrides, CompressorPerRoute, ResponseDirectionOverrides,
            compressor::{CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig},
            compressor_per_route::Override,
        },
    },
    google::protobuf::{BoolValue, UInt32Value},
};

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::compression::{self, Compressor, Library},
    matching::StringMatcher,
    runtime::RuntimeFeatureFlag,
    stats::Stats,
};

/// Content types that are compressed when none are configured.
const DEFAULT_TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
];

/// Shorter bodies are not worth it.
const MIN_CONTENT_LENGTH: u32 = 30;

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.compressor.<library>.<encoding>.[request.|response.]` statistics
    pub(super) struct DirectionStats {
        counter compressed, "Bodies that were compressed";
        counter not_compressed, "Messages that were not";
        counter total_uncompressed_bytes, "Bytes before";
        counter total_compressed_bytes, "Bytes after";
        counter content_length_too_small, "Bodies too short to be worth it";
    }
}

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.compressor.<library>.<encoding>.` statistics of `accept-encoding`
    pub(super) struct AcceptStats {
        counter no_accept_header, "Requests without accept-encoding";
        counter header_identity, "Requests that want no encoding";
        counter header_compressor_used, "Requests that want this encoding";
        counter header_compressor_overshadowed, "Requests that prefer another compressor of the chain";
        counter header_wildcard, "Requests that take any encoding";
        counter header_not_valid, "Requests that want an encoding nobody here has";
        counter not_compressed_etag, "Responses left alone because of their etag";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub library: Arc<Library<dyn Compressor>>,
    /// None: requests are left alone.
    pub request: Option<Direction>,
    /// Counts requests even if they are left alone.
    pub request_stats: Stats<DirectionStats>,
    pub response: Response,
    pub choose_first: bool,
}

/// What both directions have.
pub(super) struct Direction {
    pub enabled: RuntimeFeatureFlag,
    pub min_content_length: u64,
    pub types: ContentTypes,
    pub stats: Stats<DirectionStats>,
}

/// Which content types are compressed.
pub(super) enum ContentTypes {
    /// Lower-case, by the letter.
    Listed(Vec<String>),
    Matchers(Vec<StringMatcher>),
}

/// The response's direction.
pub(super) struct Response {
    pub direction: Direction,
    pub disable_on_etag: bool,
    pub weaken_etag: bool,
    pub remove_accept_encoding: bool,
    pub uncompressible: Vec<u32>,
    pub status_header: bool,
    pub accept: Stats<AcceptStats>,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported {
                content_length, content_type, disable_on_etag_header, remove_accept_encoding_header, runtime_enabled,
                compressor_library, request_direction_config, response_direction_config, choose_first,
            }
        });
        let library = cx.required("compressor_library", compressor_library, compression::compressor)?;
        let prefix = format!(
            "{}compressor.{}.{}",
            cx.http_prefix,
            library.name,
            library.encoding.stats_prefix()
        );
        let request = cx.opt("request_direction_config", request_direction_config, |proto, cx| {
            coverage!(cx, proto => RequestDirectionConfig { supported { common_config } });
            Direction::build(common_config.unwrap_or_default(), &format!("{prefix}.request"), cx)
        })?;
        let response = match response_direction_config {
            Some(proto) => cx.field("response_direction_config", |cx| {
                Response::build(proto, &prefix, true, cx)
            })?,
            // The deprecated fields.
            None => {
                let proto = ResponseDirectionConfig {
                    common_config: Some(CommonDirectionConfig {
                        enabled: runtime_enabled,
                        min_content_length: content_length,
                        content_type,
                        content_type_matcher: Vec::new(),
                    }),
                    disable_on_etag_header,
                    remove_accept_encoding_header,
                    ..Default::default()
                };
                Response::build(proto, &prefix, false, cx)?
            }
        };
        Ok(Self {
            library: Arc::new(library),
            request,
            request_stats: cx.server.stats.scope(&format!("{prefix}.request")).block(),
            response,
            choose_first,
        })
    }
}

impl Direction {
    fn build(proto: CommonDirectionConfig, prefix: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => CommonDirectionConfig {
            supported { enabled, min_content_length, content_type, content_type_matcher }
        });
        let types = if !content_type_matcher.is_empty() {
            ContentTypes::Matchers(cx.each("content_type_matcher", content_type_matcher, StringMatcher::build)?)
        } else if !content_type.is_empty() {
            ContentTypes::Listed(content_type.iter().map(|t| t.to_ascii_lowercase()).collect())
        } else {
            ContentTypes::Listed(DEFAULT_TYPES.map(str::to_owned).into())
        };
        let length = min_content_length.map_or(0, |UInt32Value { value }| value);
        Ok(Self {
            enabled: RuntimeFeatureFlag::build_or(enabled.map(on_by_default), true, cx)?,
            min_content_length: u64::from(if length == 0 { MIN_CONTENT_LENGTH } else { length }),
            types,
            stats: cx.server.stats.scope(prefix).block(),
        })
    }
}

/// A flag without default is on, for this filter.
fn on_by_default(flag: FlagProto) -> FlagProto {
    FlagProto {
        default_value: flag.default_value.or(Some(BoolValue { value: true })),
        ..flag
    }
}

impl ContentTypes {
    /// Whether a body of this content type is compressed; parameters of the type do not matter. Without a type: yes.
    pub fn allow(&self, content_type: Option<&[u8]>) -> bool {
        let Some(value) = content_type else { return true };
        let media = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        match self {
            Self::Listed(types) => types.iter().any(|t| t.as_bytes().eq_ignore_ascii_case(media)),
            Self::Matchers(matchers) => matchers.iter().any(|m| m.matches(media)),
        }
    }
}

impl Response {
    /// `own_names`: statistics are under `response.`
    fn build(
        proto: ResponseDirectionConfig,
        prefix: &str,
        own_names: bool,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        coverage!(cx, proto => ResponseDirectionConfig {
            supported {
                common_config, disable_on_etag_header, weaken_etag_on_compress, remove_accept_encoding_header,
                uncompressible_response_codes, status_header_enabled,
            }
        });
        let names = if own_names {
            format!("{prefix}.response")
        } else {
            prefix.to_owned()
        };
        Ok(Self {
            direction: cx.field("common_config", |cx| {
                Direction::build(common_config.unwrap_or_default(), &names, cx)
            })?,
            disable_on_etag: disable_on_etag_header,
            weaken_etag: weaken_etag_on_compress,
            remove_accept_encoding: remove_accept_encoding_header,
            uncompressible: uncompressible_response_codes,
            status_header: status_header_enabled,
            accept: cx.server.stats.scope(prefix).block(),
        })
    }

    pub fn allows_status(&self, status: StatusCode) -> bool {
        !self.uncompressible.contains(&status.as_u16().into())
    }
}

/// What a route says.
pub(super) struct PerRoute {
    /// Compression of responses is switched on or off.
    pub enabled: Option<bool>,
    pub remove_accept_encoding: Option<bool>,
    pub library: Option<Arc<Library<dyn Compressor>>>,
}

impl PerRoute {
    pub fn build(proto: CompressorPerRoute, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => CompressorPerRoute { supported { r#override } });
        let overrides = match r#override {
            Some(Override::Overrides(overrides)) => overrides,
            Some(Override::Disabled(_)) | None => {
                return Ok(Self {
                    enabled: Some(false),
                    remove_accept_encoding: None,
                    library: None,
                });
            }
        };
        cx.field("overrides", |cx| {
            coverage!(cx, overrides => CompressorOverrides { supported { response_direction_config, compressor_library } });
            let remove = match &response_direction_config {
                Some(ResponseDirectionOverrides {
                    remove_accept_encoding_header,
                }) => remove_accept_encoding_header.map(|v| v.value),
                None => None,
            };
            Ok(Self {
                enabled: response_direction_config.is_some().then_some(true),
                remove_accept_encoding: remove,
                library: cx
                    .opt("compressor_library", compressor_library, compression::compressor)?
                    .map(Arc::new),
            })
        })
    }
}
