//! `x-forwarded-client-cert`: telling the upstream who the client is, in five modes.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use xds_protos::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::ForwardClientCertDetails as Mode;

use super::{HcmConfig, mutate::append};
use crate::http::{ConnectionInfo, RequestHead};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes, keeps, appends to or replaces the header.
pub(super) fn request(head: &mut RequestHead, connection: &ConnectionInfo, config: &HcmConfig) {
    if config.forward_cert == Mode::AlwaysForwardOnly {
        return;
    }
    let mutual = connection.tls.as_ref().is_some_and(|t| t.peer_presented);
    if config.forward_cert == Mode::Sanitize || !mutual {
        head.headers.remove(XFCC);
        return;
    }
    if config.forward_cert == Mode::ForwardOnly {
        return;
    }
    let Some(element) = element(connection, config).and_then(|e| HeaderValue::from_str(&e).ok()) else {
        return;
    };
    match config.forward_cert {
        Mode::AppendForward => append(&mut head.headers, XFCC, b",", &element),
        Mode::SanitizeSet => {
            head.headers.insert(XFCC, element);
        }
        _ => {}
    }
}

fn element(connection: &ConnectionInfo, config: &HcmConfig) -> Option<String> {
    let tls = connection.tls.as_ref()?;
    let details = &config.cert_details;
    let mut parts: Vec<String> = tls.local.uri_sans.iter().map(|uri| format!("By={uri}")).collect();
    if !tls.peer.sha256.is_empty() {
        parts.push(format!("Hash={}", tls.peer.sha256));
    }
    if details.cert && !tls.peer.url_encoded_pem.is_empty() {
        parts.push(format!("Cert=\"{}\"", tls.peer.url_encoded_pem));
    }
    if details.chain && !tls.peer.url_encoded_chain.is_empty() {
        parts.push(format!("Chain=\"{}\"", tls.peer.url_encoded_chain));
    }
    if details.subject.is_some_and(|v| v.value) {
        let mut quoted = String::new();
        // The subject is quoted even when empty, so that its commas cannot end the element.
        let _ = write!(quoted, "Subject=\"{}\"", tls.peer.subject.replace('"', "\\\""));
        parts.push(quoted);
    }
    if details.uri {
        parts.extend(tls.peer.uri_sans.iter().map(|u| format!("URI={u}")));
    }
    if details.dns {
        parts.extend(tls.peer.dns_sans.iter().map(|d| format!("DNS={d}")));
    }
    Some(parts.join(";"))
}
