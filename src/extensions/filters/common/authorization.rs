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
    tracing::Span,
};

/// Tag of what the service has said.
pub const STATUS: &str = "ext_authz_status";
/// It has nothing against the request.
pub const ALLOWED: &str = "ext_authz_ok";
/// It has.
pub const DENIED: &str = "ext_authz_unauthorized";

const METHOD: &str = "envoy.service.auth.v3.Authorization.Check";

/// Asks; none when there is no answer in time, or an error. `parent` is the span of the request it is about.
pub async fn ask(
    target: &Target,
    question: CheckRequest,
    worker: Rc<Worker>,
    parent: Option<&Span>,
) -> Option<CheckResponse> {
    let mut client = AuthorizationClient::new(target.channel(worker));
    if let Some(limit) = target.max_message {
        client = client.max_decoding_message_size(limit);
    }
    let mut request = target.request(question, target.timeout);
    let span = target.span(parent, METHOD, &mut request, false);
    let answer = span.answer_of(target.timeout, client.check(request)).await?;
    let allowed = answer.status.as_ref().is_none_or(|status| status.code == 0);
    span.tag(STATUS, if allowed { ALLOWED } else { DENIED });
    Some(answer)
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
