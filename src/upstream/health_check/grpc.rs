//! gRPC checks: `grpc.health.v1.Health/Check` says SERVING.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use xds_protos::{
    envoy::{
        config::core::v3::health_check::GrpcHealthCheck as Proto,
        data::core::v3::HealthCheckFailureType::{Active, Network},
    },
    prost::Message,
};

use super::{
    HealthCheckConfig,
    client::{CheckError, Connection, Target},
    http::{CHECKER, to_request},
    session::{Verdict, stream_info},
};
use crate::{
    config::{BuildCx, ConfigResult},
    http::{Body, BodyError, Path, RequestHead, Scheme},
    route::HeaderMutations,
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const METHOD_PATH: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;
/// Most bytes of an answer; a status fits in ten.
const MAX_ANSWER: usize = 64 << 10;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc_health_check`
pub struct GrpcCheck {
    authority: String,
    metadata: HeaderMutations,
    timeout: HeaderValue,
    request: Bytes,
}

impl GrpcCheck {
    pub fn build(proto: Proto, timeout: Duration, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { service_name, authority, initial_metadata } });
        let message = HealthCheckRequest { service: service_name }.encode_to_vec();
        let mut request = BytesMut::with_capacity(message.len() + 5);
        request.put_u8(0);
        request.put_u32(u32::try_from(message.len()).unwrap_or(0));
        request.extend_from_slice(&message);
        Ok(Self {
            authority,
            metadata: HeaderMutations::build(("initial_metadata", ""), initial_metadata, Vec::new(), cx)?,
            timeout: timeout_header(timeout),
            request: request.freeze(),
        })
    }

    /// Checks once, over the connection of the last time if it is still there.
    pub async fn run(&self, target: &Target, config: &HealthCheckConfig, kept: &mut Option<Connection>) -> Verdict {
        match self.exchange(target, config, kept).await {
            Ok(true) => Verdict::Healthy { degraded: false },
            Ok(false) => Verdict::failed(Active),
            Err(error) => {
                tracing::debug!(host = %target.host.address, %error, "health check failed");
                Verdict::failed(Network)
            }
        }
    }

    /// Whether the host says that it serves.
    async fn exchange(
        &self,
        target: &Target,
        config: &HealthCheckConfig,
        kept: &mut Option<Connection>,
    ) -> Result<bool, CheckError> {
        let mut connection = match kept.take().filter(Connection::is_open) {
            Some(connection) => connection,
            None => Connection::open(target, true).await?,
        };
        let response = connection.send(to_request(self.head(target), self.body())).await?;
        if config.reuse_connection {
            *kept = Some(connection);
        }
        let is_grpc = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
        // Without its trailers an answer is of no use: what is not gRPC is not read.
        if response.status() != StatusCode::OK || !is_grpc {
            return Ok(false);
        }
        let (mut message, mut trailers) = (Vec::new(), HeaderMap::new());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) if message.len() + data.len() > MAX_ANSWER => return Ok(false),
                Ok(data) => message.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok(trailers.get(GRPC_STATUS).is_some_and(|s| s == "0") && says_serving(&message))
    }

    /// The request's only message, whose length goes unsaid as for any call.
    fn body(&self) -> Body {
        let message = Frame::data(self.request.clone());
        Body::boxed(StreamBody::new(stream::iter([Ok::<_, BodyError>(message)])))
    }

    fn head(&self, target: &Target) -> RequestHead {
        let attributes = target.host.attributes();
        let authority = target.hostname(&attributes.health_check_hostname, &self.authority);
        let mut head = RequestHead {
            method: Method::POST,
            scheme: match target.is_secure() {
                true => Scheme::Https,
                false => Scheme::Http,
            },
            authority: HeaderValue::from_str(authority).ok(),
            path: Path::new(METHOD_PATH),
            protocol: None,
            version: Version::HTTP_2,
            headers: HeaderMap::from_iter([
                (header::TE, HeaderValue::from_static("trailers")),
                (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
                (header::USER_AGENT, CHECKER),
            ]),
            spelling: None,
        };
        self.metadata.run(&mut head, &stream_info(target, Version::HTTP_2));
        head.headers.insert("grpc-timeout", self.timeout.clone());
        head
    }
}

/// Exactly one message, and SERVING in it.
fn says_serving(body: &[u8]) -> bool {
    let Some((&[0, a, b, c, d], message)) = body.split_first_chunk::<5>() else {
        return false;
    };
    usize::try_from(u32::from_be_bytes([a, b, c, d])).is_ok_and(|len| len == message.len())
        && HealthCheckResponse::decode(message).is_ok_and(|r| r.status == SERVING)
}

/// Milliseconds as far as eight digits go, then seconds and so on.
fn timeout_header(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let text = match timeout.as_millis() {
        ms if ms <= MOST => format!("{ms}m"),
        ms if ms / 1000 <= MOST => format!("{}S", ms / 1000),
        ms => format!("{}H", (ms / 3_600_000).min(MOST)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("1S"))
}
