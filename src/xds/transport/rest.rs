//! REST subscriptions: POST a `DiscoveryRequest` as JSON, wait, and again.

use std::{fmt, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::{sync::mpsc, time::Instant};
use xds_protos::{
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    google::rpc::Status,
    load::{LoadOptions, Syntax, UnknownFields, typed},
    prost::{Message, Name},
    prost_reflect::{DynamicMessage, SerializeOptions},
};

use super::dial;
use crate::{
    server::Worker,
    xds::{
        Names,
        handler::FetchFailure,
        service,
        source::RestSource,
        watch::{Attempts, Command, NewWatch, Watch, ended},
        wire,
    },
};

/// A response longer than this is not read: no configuration is.
const MAX_RESPONSE: usize = 512 << 20;

/// Why a request brought nothing.
#[derive(Debug)]
enum Failure {
    /// It was not answered with 200 in time.
    Connection(String),
    /// The answer is no `DiscoveryResponse`.
    Unreadable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(reason) | Self::Unreadable(reason) => f.write_str(reason),
        }
    }
}

/// Runs one subscription until its guard is dropped.
pub(in crate::xds) async fn run(
    source: RestSource,
    watch: NewWatch,
    mut commands: mpsc::UnboundedReceiver<Command>,
    worker: Rc<Worker>,
) {
    let type_url = watch.type_url.clone();
    let Some(path) = service::of(&type_url).and_then(|s| s.rest) else {
        tracing::error!(type_url, "there is no REST discovery service for this type");
        return;
    };
    let mut request = DiscoveryRequest {
        node: Some(worker.server.node.as_ref().clone()),
        type_url,
        resource_names: match &watch.names {
            Names::Wildcard | Names::Namespace(_) => Vec::new(),
            Names::One(name) => vec![name.clone()],
        },
        ..DiscoveryRequest::default()
    };
    let mut watch = Watch::new(watch, Attempts::Requests, &worker.server);
    loop {
        watch.attempted();
        let answer = {
            let mut answer = std::pin::pin!(fetch(&source, path, &request, &worker));
            loop {
                tokio::select! {
                    answer = &mut answer => break answer,
                    () = due(watch.deadline()) => watch.failed(FetchFailure::Timeout),
                    () = ended(&mut commands) => return,
                }
            }
        };
        apply(answer, &mut request, &mut watch, &worker);
        let mut next = std::pin::pin!(tokio::time::sleep(source.refresh_delay));
        loop {
            tokio::select! {
                () = &mut next => break,
                () = due(watch.deadline()) => watch.failed(FetchFailure::Timeout),
                () = ended(&mut commands) => return,
            }
        }
    }
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn apply(
    answer: Result<DiscoveryResponse, Failure>,
    request: &mut DiscoveryRequest,
    watch: &mut Watch,
    worker: &Rc<Worker>,
) {
    request.error_detail = None;
    let response = match answer {
        Ok(response) => response,
        Err(failure) => {
            tracing::warn!(type_url = request.type_url, "REST update failed: {failure}");
            watch.failed(match failure {
                Failure::Connection(reason) => FetchFailure::Connection(reason),
                Failure::Unreadable(reason) => FetchFailure::Rejected(reason),
            });
            return;
        }
    };
    let server = &worker.server;
    let version = response.version_info;
    let decoded = wire::decode_all(&request.type_url, response.resources, &version);
    let mut rejected = decoded.rejected;
    let complete = rejected.is_empty();
    rejected.extend(watch.state_of_the_world(&version, &decoded.resources, complete, server));
    server.xds.inventory.note(
        &request.type_url,
        decoded.resources.iter(),
        &[],
        &rejected,
        watch.names == Names::Wildcard,
    );
    if rejected.is_empty() {
        request.version_info = version;
        return;
    }
    let message = wire::error_detail(&request.type_url, &rejected);
    tracing::warn!(type_url = request.type_url, "REST update rejected: {message}");
    request.error_detail = Some(Status {
        code: tonic::Code::Internal as i32,
        message,
        details: Vec::new(),
    });
}

async fn fetch(
    source: &RestSource,
    path: &'static str,
    request: &DiscoveryRequest,
    worker: &Rc<Worker>,
) -> Result<DiscoveryResponse, Failure> {
    let body = to_json(request).map_err(Failure::Connection)?;
    let request = http::Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .body(Bytes::from(body))
        .map_err(|e| Failure::Connection(e.to_string()))?;
    let answer = dial::request(worker, &source.cluster, request, MAX_RESPONSE);
    let (status, body) = within(source.request_timeout, answer)
        .await
        .map_err(Failure::Connection)?;
    if status != StatusCode::OK {
        return Err(Failure::Connection(format!("response status {status}")));
    }
    let options = LoadOptions {
        unknown_fields: UnknownFields::Allow,
    };
    typed(&String::from_utf8_lossy(&body), Syntax::Json, &options).map_err(|e| Failure::Unreadable(e.to_string()))
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err("request timeout".to_owned()))
}

/// As Envoy writes it: proto field names, defaults left out.
fn to_json(request: &DiscoveryRequest) -> Result<Vec<u8>, String> {
    let descriptor = xds_protos::message(&DiscoveryRequest::full_name()).ok_or("no descriptor")?;
    let message = DynamicMessage::decode(descriptor, request.encode_to_vec().as_slice()).map_err(|e| e.to_string())?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = serde_json::Serializer::new(Vec::new());
    message
        .serialize_with_options(&mut json, &options)
        .map_err(|e| e.to_string())?;
    Ok(json.into_inner())
}
