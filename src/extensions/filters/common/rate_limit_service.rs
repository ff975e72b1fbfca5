//! The rate limit service (`envoy.service.ratelimit.v3.RateLimitService`), as HTTP and network filters ask it.

use std::{rc::Rc, time::Duration};

use xds_protos::envoy::{
    config::ratelimit::v3::RateLimitServiceConfig,
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
        rate_limit_service_client::RateLimitServiceClient,
    },
};

use crate::{
    config::{BuildCx, ConfigResult},
    extensions::grpc_service::Target,
    server::Worker,
    tracing::Span,
};

/// Envoy's default for the service's answer.
pub const TIMEOUT: Duration = Duration::from_millis(20);

/// Reads `rate_limit_service`.
pub fn service(proto: RateLimitServiceConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Target> {
    coverage!(cx, proto => RateLimitServiceConfig {
        supported { grpc_service }
        ignored { transport_api_version: "there is only V3" }
    });
    cx.required("grpc_service", grpc_service, Target::build)
}

const METHOD: &str = "envoy.service.ratelimit.v3.RateLimitService.ShouldRateLimit";

/// Asks; none when the service does not answer within `timeout` (0 waits for ever), or with an error. `parent` is the
/// span of the request it is about.
pub async fn ask(
    service: &Target,
    question: RateLimitRequest,
    timeout: Duration,
    worker: Rc<Worker>,
    parent: Option<&Span>,
) -> Option<RateLimitResponse> {
    let mut client = RateLimitServiceClient::new(service.channel(worker));
    if let Some(limit) = service.max_message {
        client = client.max_decoding_message_size(limit);
    }
    let timeout = Some(timeout).filter(|timeout| !timeout.is_zero());
    let mut request = service.request(question, timeout);
    let span = service.span(parent, METHOD, &mut request, false);
    let answer = span.answer_of(timeout, client.should_rate_limit(request)).await?;
    let over = answer.overall_code == Code::OverLimit as i32;
    span.tag("ratelimit_status", if over { "over_limit" } else { "ok" });
    Some(answer)
}
