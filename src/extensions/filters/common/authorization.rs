//! The authorization service (`envoy.service.auth.v3.Authorization`), as HTTP and network filters ask it.

use std::rc::Rc;

use xds_protos::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, attribute_context::Peer, authorization_client::AuthorizationClient,
};

use crate::{
    extensions::{access_loggers::grpc::address, grpc_service::Target},
    http::stream_info::CertInfo,
    net::Address,
    server::Worker,
};

/// Asks; none when there is no answer in time, or an error.
pub async fn ask(target: &Target, question: CheckRequest, worker: Rc<Worker>) -> Option<CheckResponse> {
    let mut client = AuthorizationClient::new(target.channel(worker));
    if let Some(limit) = target.max_message {
        client = client.max_decoding_message_size(limit);
    }
    let request = target.request(question, target.timeout);
    let answer = client.check(request);
    let answer = match target.timeout {
        None => answer.await,
        Some(limit) => tokio::time::timeout(limit, answer).await.ok()?,
    };
    answer.ok().map(tonic::Response::into_inner)
}

/// One end of a connection: its address, and who it is by its certificate.
pub fn peer(at: &Address, cert: Option<&CertInfo>) -> Peer {
    Peer {
        address: Some(address(at)),
        principal: cert.map(principal).unwrap_or_default(),
        ..Peer::default()
    }
}

/// The first URI or DNS name, else the subject.
fn principal(cert: &CertInfo) -> String {
    let first = cert.uri_sans.first().or(cert.dns_sans.first());
    first.unwrap_or(&cert.subject).clone()
}
