//! `Decompressor` -> [`Config`].

use http::HeaderName;
use xds_protos::{
    envoy::{
        config::core::v3::RuntimeFeatureFlag as FlagProto,
        extensions::filters::http::decompressor::v3::{
            Decompressor as Proto,
            decompressor::{CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig},
        },
    },
    google::protobuf::BoolValue,
};

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::compression::{self, Decompressor, Library},
    runtime::RuntimeFeatureFlag,
    stats::{Scope, Stats},
};

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.decompressor.<library>.<encoding>.<direction>.` statistics
    pub(super) struct DecompressorStats {
        counter decompressed, "Bodies that were decompressed";
        counter not_decompressed, "Bodies that were not";
        counter total_uncompressed_bytes, "Bytes after";
        counter total_compressed_bytes, "Bytes before";
    }
}

/// The filter's configuration.
pub(super) struct Config {
    pub library: Library<dyn Decompressor>,
    pub request: Direction,
    pub response: Direction,
    /// `advertise_accept_encoding`
    pub advertise: bool,
    /// Trailers that tell the bytes before and after.
    pub trailers: Option<(HeaderName, HeaderName)>,
    /// Of the library's errors.
    pub scope: Scope,
}

/// One direction.
pub(super) struct Direction {
    pub enabled: RuntimeFeatureFlag,
    pub ignore_no_transform: bool,
    pub stats: Stats<DecompressorStats>,
}

impl Config {
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { decompressor_library, request_direction_config, response_direction_config }
        });
        let library = cx.required("decompressor_library", decompressor_library, compression::decompressor)?;
        let prefix = format!(
            "{}decompressor.{}.{}",
            cx.http_prefix,
            library.name,
            library.encoding.stats_prefix()
        );
        let trailer = |what: &str| {
            let name = format!("x-envoy-decompressor-{}-{what}-bytes", library.name);
            HeaderName::try_from(name.to_ascii_lowercase()).ok()
        };
        let request = request_direction_config.unwrap_or_default();
        let (request, advertise) = cx.field("request_direction_config", |cx| {
            coverage!(cx, request => RequestDirectionConfig { supported { common_config, advertise_accept_encoding } });
            let advertise = advertise_accept_encoding.is_none_or(|v| v.value);
            Ok((
                Direction::build(common_config, &format!("{prefix}.request"), cx)?,
                advertise,
            ))
        })?;
        let response = response_direction_config.unwrap_or_default();
        let response = cx.field("response_direction_config", |cx| {
            coverage!(cx, response => ResponseDirectionConfig { supported { common_config } });
            Direction::build(common_config, &format!("{prefix}.response"), cx)
        })?;
        Ok(Self {
            trailers: trailer("compressed").zip(trailer("uncompressed")),
            library,
            request,
            response,
            advertise,
            scope: cx.server.stats.scope(&format!("{prefix}.decompressor_library")),
        })
    }
}

impl Direction {
    fn build(proto: Option<CommonDirectionConfig>, prefix: &str, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = proto.unwrap_or_default();
        coverage!(cx, proto => CommonDirectionConfig { supported { enabled, ignore_no_transform_header } });
        // A flag without default is on, for this filter.
        let enabled = enabled.map(|flag| FlagProto {
            default_value: flag.default_value.or(Some(BoolValue { value: true })),
            ..flag
        });
        Ok(Self {
            enabled: RuntimeFeatureFlag::build_or(enabled, true, cx)?,
            ignore_no_transform: ignore_no_transform_header,
            stats: cx.server.stats.scope(prefix).block(),
        })
    }
}
