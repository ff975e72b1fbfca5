//! `x-forwarded-client-cert`: telling the upstream who the client is, in five modes and two formats.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use xds_protos::{
    envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
        ForwardClientCertConfig, ForwardClientCertDetails as Mode, ForwardClientCertFormat as Format,
        SetCurrentClientCertDetails as Proto,
    },
    google::protobuf::Any,
    prost::Name,
    xds::r#type::matcher::v3::Matcher as MatcherProto,
};

use super::{HcmConfig, mutate::append};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    formatter::percent_decode,
    http::{RequestHead, StreamInfo, stream_info::TlsInfo},
    matching::tree::{MatchCx, MatchTarget, Matcher},
};

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What is done with the header: by a matcher's choice, or always the same.
#[derive(Debug)]
pub struct Xfcc {
    always: Forwarding,
    matcher: Option<Matcher<Forwarding>>,
}

/// `ForwardClientCertConfig`
#[derive(Debug)]
struct Forwarding {
    mode: Mode,
    details: CertDetails,
}

impl Forwarding {
    fn build(mode: i32, details: Option<Proto>, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        Ok(Self {
            mode: Mode::try_from(mode).unwrap_or_default(),
            details: cx
                .opt("set_current_client_cert_details", details, CertDetails::build)?
                .unwrap_or_default(),
        })
    }
}

impl Xfcc {
    /// Builds `forward_client_cert_details`, `set_current_client_cert_details` and `forward_client_cert_matcher`.
    pub(super) fn build(
        mode: i32,
        details: Option<Proto>,
        matcher: Option<MatcherProto>,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        Ok(Self {
            always: Forwarding::build(mode, details, cx)?,
            matcher: cx.opt("forward_client_cert_matcher", matcher, |m, cx| {
                Matcher::build(m, &mut Target, cx)
            })?,
        })
    }
}

/// Whose matcher it is.
struct Target;

impl MatchTarget for Target {
    type Action = Forwarding;

    fn allows(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn action(&mut self, name: String, config: Any, cx: &mut BuildCx<'_>) -> ConfigResult<Forwarding> {
        if config.type_name() != ForwardClientCertConfig::full_name() {
            return Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                config.type_name()
            )));
        }
        let proto: ForwardClientCertConfig = unpack(&config, cx)?;
        coverage!(cx, proto => ForwardClientCertConfig {
            supported { forward_client_cert_details, set_current_client_cert_details }
        });
        Forwarding::build(forward_client_cert_details, set_current_client_cert_details, cx)
    }
}

/// `set_current_client_cert_details`: what of the client's certificate is told, besides `By` and `Hash`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertDetails {
    subject: bool,
    cert: bool,
    chain: bool,
    dns: bool,
    uri: bool,
    issuer: bool,
    json: bool,
}

impl CertDetails {
    pub(super) fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { subject, cert, chain, dns, uri, issuer, format } });
        Ok(Self {
            subject: subject.is_some_and(|v| v.value),
            cert,
            chain,
            dns,
            uri,
            issuer,
            json: match Format::try_from(format) {
                Ok(Format::Text) => false,
                Ok(Format::Json) => true,
                Err(_) => return Err(cx.error_at("format", "value must be one of the defined enum values")),
            },
        })
    }

    fn text(&self, tls: &TlsInfo) -> String {
        let mut parts: Vec<String> = tls.local.uri_sans.iter().map(|uri| format!("By={uri}")).collect();
        if !tls.peer.sha256.is_empty() {
            parts.push(format!("Hash={}", tls.peer.sha256));
        }
        if self.cert && !tls.peer.url_encoded_pem.is_empty() {
            parts.push(format!("Cert=\"{}\"", tls.peer.url_encoded_pem));
        }
        if self.chain && !tls.peer.url_encoded_chain.is_empty() {
            parts.push(format!("Chain=\"{}\"", tls.peer.url_encoded_chain));
        }
        // Names are quoted even when empty, so that their commas cannot end the element.
        let quoted = |name: &str| name.replace('"', "\\\"");
        if self.subject {
            parts.push(format!("Subject=\"{}\"", quoted(&tls.peer.subject)));
        }
        if self.uri {
            parts.extend(tls.peer.uri_sans.iter().map(|u| format!("URI={u}")));
        }
        if self.dns {
            parts.extend(tls.peer.dns_sans.iter().map(|d| format!("DNS={d}")));
        }
        if self.issuer {
            parts.push(format!("Issuer=\"{}\"", quoted(&tls.peer.issuer)));
        }
        parts.join(";")
    }

    /// One element of the list that the header is as JSON.
    fn json(&self, tls: &TlsInfo) -> String {
        let mut element = Map::new();
        let mut set = |key: &str, value: Value| {
            if value.as_str() != Some("") && value.as_array().is_none_or(|a| !a.is_empty()) {
                element.insert(key.to_owned(), value);
            }
        };
        let list = |names: &[String]| Value::from(names.to_vec());
        let pem = |encoded: &str| String::from_utf8_lossy(&percent_decode(encoded)).into_owned();
        set("by", list(&tls.local.uri_sans));
        set("hash", tls.peer.sha256.clone().into());
        if self.cert {
            set("cert", pem(&tls.peer.url_encoded_pem).into());
        }
        if self.chain {
            set("chain", each_certificate(&pem(&tls.peer.url_encoded_chain)));
        }
        if self.subject {
            set("subject", tls.peer.subject.clone().into());
        }
        if self.uri {
            set("uri", list(&tls.peer.uri_sans));
        }
        if self.dns {
            set("dns", list(&tls.peer.dns_sans));
        }
        if self.issuer {
            set("issuer", tls.peer.issuer.clone().into());
        }
        Value::Object(element).to_string()
    }
}

/// Removes, keeps, appends to or replaces the header.
pub(super) fn request(head: &mut RequestHead, info: &StreamInfo, config: &HcmConfig) {
    let xfcc = &config.xfcc;
    let chosen = xfcc
        .matcher
        .as_ref()
        .and_then(|m| m.find(&MatchCx::request(info, head)));
    let Forwarding { mode, details } = chosen.unwrap_or(&xfcc.always);
    if *mode == Mode::AlwaysForwardOnly {
        return;
    }
    let tls = info.connection.tls.as_ref().filter(|t| t.peer_presented);
    let Some(tls) = tls.filter(|_| *mode != Mode::Sanitize) else {
        head.headers.remove(XFCC);
        return;
    };
    match mode {
        Mode::AppendForward if head.headers.contains_key(XFCC) => append_element(head, details, tls),
        Mode::AppendForward | Mode::SanitizeSet => {
            let value = match details.json {
                true => format!("[{}]", details.json(tls)),
                false => details.text(tls),
            };
            match HeaderValue::try_from(value) {
                Ok(value) => head.headers.insert(XFCC, value),
                // What cannot be said must not be said by the client instead.
                Err(_) => head.headers.remove(XFCC),
            };
        }
        Mode::Sanitize | Mode::ForwardOnly | Mode::AlwaysForwardOnly => {}
    }
}

/// An element more, in the format of those that are there: a JSON list gets it inside its brackets.
fn append_element(head: &mut RequestHead, details: &CertDetails, tls: &TlsInfo) {
    let values: Vec<&[u8]> = head.headers.get_all(XFCC).iter().map(HeaderValue::as_bytes).collect();
    let joined = values.join(&b","[..]);
    let list = joined.strip_suffix(b"]").filter(|start| start.starts_with(b"["));
    let Some(list) = list else {
        if let Ok(element) = HeaderValue::try_from(details.text(tls)) {
            append(&mut head.headers, XFCC, b",", &element);
        }
        return;
    };
    let whole = [list, b",", details.json(tls).as_bytes(), b"]"].concat();
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        head.headers.insert(XFCC, value);
    }
}

/// The certificates of a PEM text, each by itself.
fn each_certificate(pem: &str) -> Value {
    pem.split_inclusive("-----END CERTIFICATE-----\n")
        .filter(|p| !p.trim().is_empty())
        .map(str::to_owned)
        .collect()
}
