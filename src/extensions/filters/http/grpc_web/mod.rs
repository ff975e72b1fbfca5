//! gRPC-Web (`envoy.filters.http.grpc_web`): browsers, which see no trailers, speak with gRPC services.

mod filter;
mod text;
mod trailers;

use std::sync::Arc;

use xds_protos::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;

use crate::{
    config::{BuildCx, ConfigResult},
    http::filter::{HttpFilterConfig, HttpFilterFactory},
};

/// The extension.
pub struct Factory;

impl HttpFilterFactory for Factory {
    const NAME: &'static str = "envoy.filters.http.grpc_web";
    type Proto = GrpcWeb;
    type RouteProto = GrpcWeb;

    fn build(&self, proto: GrpcWeb, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
        coverage!(cx, proto => GrpcWeb { supported {} });
        Ok(Arc::new(filter::GrpcWebFilter))
    }
}

#[cfg(test)]
mod tests;
