//! `SubjectAltNameMatcher`: one kind of subject alternative name against a string matcher.

use x509_parser::{
    asn1_rs::{Any, FromDer, Oid},
    extensions::GeneralName,
};
use xds_protos::envoy::{
    extensions::transport_sockets::tls::v3::{SubjectAltNameMatcher as Proto, subject_alt_name_matcher::SanType},
    r#type::matcher::v3::{StringMatcher as StringProto, string_matcher::MatchPattern},
};

use crate::{
    config::{BuildCx, ConfigResult},
    matching::StringMatcher,
    tls::cert_info,
};

/// Matches one subject alternative name.
#[derive(Debug)]
pub(in crate::tls) struct SanMatcher {
    kind: SanType,
    /// Of `OTHER_NAME`.
    oid: String,
    /// An exact matcher of a DNS name follows the rules of DNS names, wildcards included.
    exact: Option<String>,
    matcher: StringMatcher,
}

impl SanMatcher {
    /// Builds a typed matcher.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { san_type, matcher, oid } });
        let kind = match SanType::try_from(san_type) {
            Ok(SanType::Unspecified) | Err(_) => {
                return Err(cx.error_at("san_type", "value must be one of the defined types"));
            }
            Ok(kind) => kind,
        };
        if kind == SanType::OtherName && oid.is_empty() {
            return Err(cx.error_at("oid", "an OTHER_NAME matcher needs the OID of the name"));
        }
        let exact = exact_of(matcher.as_ref());
        let matcher = cx.required("matcher", matcher, StringMatcher::build)?;
        Ok(Self {
            kind,
            oid,
            exact,
            matcher,
        })
    }

    /// The deprecated matchers without a type: DNS, URI, e-mail and IP names, as Envoy reads them.
    pub fn untyped(proto: StringProto, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Self>> {
        let exact = exact_of(Some(&proto));
        let matcher = StringMatcher::build(proto, cx)?;
        let kinds = [SanType::Dns, SanType::Uri, SanType::Email, SanType::IpAddress];
        Ok(kinds
            .into_iter()
            .map(|kind| Self {
                kind,
                oid: String::new(),
                exact: exact.clone(),
                matcher: matcher.clone(),
            })
            .collect())
    }

    /// Whether it matches URIs: all that a SPIFFE validator looks at.
    pub fn is_uri(&self) -> bool {
        self.kind == SanType::Uri
    }

    /// Whether a name of a certificate matches.
    pub fn matches(&self, name: &GeneralName<'_>) -> bool {
        match (self.kind, name) {
            (SanType::Dns, GeneralName::DNSName(dns)) => match &self.exact {
                Some(exact) => dns_match(exact, dns),
                None => self.matcher.matches(dns.as_bytes()),
            },
            (SanType::Uri, GeneralName::URI(uri)) => self.matcher.matches(uri.as_bytes()),
            (SanType::Email, GeneralName::RFC822Name(email)) => self.matcher.matches(email.as_bytes()),
            (SanType::IpAddress, GeneralName::IPAddress(bytes)) => {
                cert_info::ip(bytes).is_some_and(|ip| self.matcher.matches(ip.as_bytes()))
            }
            (SanType::OtherName, GeneralName::OtherName(oid, value)) => {
                self.is_oid(oid) && other_name(value).is_some_and(|text| self.matcher.matches(text))
            }
            _ => false,
        }
    }

    fn is_oid(&self, oid: &Oid<'_>) -> bool {
        oid.to_id_string() == self.oid
    }
}

fn exact_of(matcher: Option<&StringProto>) -> Option<String> {
    match matcher?.match_pattern.as_ref()? {
        MatchPattern::Exact(text) => Some(text.clone()),
        _ => None,
    }
}

/// The text of an `OtherName`: the content of the string within its explicit tag.
fn other_name(value: &[u8]) -> Option<&[u8]> {
    let (_, outer) = Any::from_der(value).ok()?;
    match Any::from_der(outer.data) {
        Ok((_, inner)) => Some(inner.data),
        Err(_) => Some(outer.data),
    }
}

/// Whether a name is this text, DNS names by the rules of DNS names.
pub(super) fn equals(name: &GeneralName<'_>, want: &str) -> bool {
    match name {
        GeneralName::DNSName(dns) => dns_match(want, dns),
        GeneralName::URI(text) | GeneralName::RFC822Name(text) => *text == want,
        GeneralName::IPAddress(bytes) => cert_info::ip(bytes).as_deref() == Some(want),
        _ => false,
    }
}

/// Whether a name is a DNS name for this host.
pub(super) fn is_dns(name: &GeneralName<'_>, host: &str) -> bool {
    matches!(name, GeneralName::DNSName(dns) if dns_match(host, dns))
}

/// The names as failure reasons list them.
pub(super) fn list(names: &[GeneralName<'_>]) -> String {
    let texts: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => {
                Some((*text).to_owned())
            }
            GeneralName::IPAddress(bytes) => cert_info::ip(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect();
    texts.join(", ")
}

/// Whether a certificate's DNS name stands for a host: equal, or a wildcard within its first label, which must not
/// be an A-label.
fn dns_match(host: &str, pattern: &str) -> bool {
    if host.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let (Some((first, rest)), Some((label, domain))) = (pattern.split_once('.'), host.split_once('.')) else {
        return false;
    };
    let Some((before, after)) = first.split_once('*') else {
        return false;
    };
    let lower = label.to_ascii_lowercase();
    !first.to_ascii_lowercase().starts_with("xn--")
        && !rest.contains('*')
        && !after.contains('*')
        && rest.eq_ignore_ascii_case(domain)
        && (first == "*"
            || (first.len() <= label.len() + 1
                && lower.starts_with(&before.to_ascii_lowercase())
                && lower.ends_with(&after.to_ascii_lowercase())))
}
