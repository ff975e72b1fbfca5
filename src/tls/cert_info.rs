//! A certificate in the forms that logs, XFCC, RBAC and `/certs` read.

use std::{fmt::Write, net::IpAddr};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, x509::X509Name};

use crate::http::stream_info::{Cert, CertInfo};

/// A certificate chain for a connection's facts; its fields are read when they are asked for.
pub(super) fn lazy(chain: Vec<CertificateDer<'static>>) -> Cert {
    Cert::new(chain, read)
}

/// Takes the leaf of a chain apart. What cannot be read stays empty.
pub(super) fn read(chain: &[CertificateDer<'static>]) -> CertInfo {
    let Some(leaf) = chain.first() else {
        return CertInfo::default();
    };
    let mut info = CertInfo {
        sha256: hex(digest::digest(&digest::SHA256, leaf).as_ref()),
        sha1: hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf).as_ref()),
        chain_sha256: each(chain, |c| hex(digest::digest(&digest::SHA256, c).as_ref())),
        chain_sha1: each(chain, |c| {
            hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, c).as_ref())
        }),
        chain_serials: each(chain, |c| {
            X509Certificate::from_der(c).map_or_else(|_| String::new(), |(_, c)| serial(&c))
        }),
        url_encoded_pem: url_encode(&pem(leaf)),
        url_encoded_chain: url_encode(&chain.iter().map(|c| pem(c)).collect::<String>()),
        ..CertInfo::default()
    };
    let Ok((_, cert)) = X509Certificate::from_der(leaf) else {
        return info;
    };
    info.subject = rfc2253(cert.subject());
    info.issuer = rfc2253(cert.issuer());
    info.serial = serial(&cert);
    info.not_before = cert.validity().not_before.timestamp();
    info.not_after = cert.validity().not_after.timestamp();
    for name in general_names(&cert) {
        match name {
            GeneralName::DNSName(dns) => info.dns_sans.push((*dns).to_owned()),
            GeneralName::URI(uri) => info.uri_sans.push((*uri).to_owned()),
            GeneralName::OtherName(_, value) => info.other_names.extend(other_name(value)),
            GeneralName::RFC822Name(email) => info.email_sans.push((*email).to_owned()),
            GeneralName::IPAddress(bytes) => info.ip_sans.extend(ip(bytes)),
            _ => {}
        }
    }
    info
}

fn each(chain: &[CertificateDer<'static>], text: impl Fn(&CertificateDer<'static>) -> String) -> String {
    chain.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The text of an other name, when its value is one of ASN.1's kinds of text.
fn other_name(value: &[u8]) -> Option<String> {
    let (_, outer) = x509_parser::der_parser::der::parse_der(value).ok()?;
    let inner = match outer.content.as_slice() {
        Ok(bytes) if outer.header.is_contextspecific() => x509_parser::der_parser::der::parse_der(bytes).ok()?.1,
        _ => outer,
    };
    inner.as_str().ok().map(str::to_owned)
}

/// The certificate that has issued the leaf of `chain`, among the rest of it and those that are trusted.
pub(super) fn issuer(chain: &[CertificateDer<'static>], trusted: &[CertificateDer<'static>]) -> CertInfo {
    let parsed = |der: &CertificateDer<'static>| {
        X509Certificate::from_der(der)
            .ok()
            .map(|(_, c)| c.issuer().as_raw().to_vec())
    };
    let Some(name) = chain.first().and_then(parsed) else {
        return CertInfo::default();
    };
    let found = chain
        .iter()
        .skip(1)
        .chain(trusted)
        .find(|der| X509Certificate::from_der(der).is_ok_and(|(_, c)| c.subject().as_raw() == name.as_slice()));
    found.map_or_else(CertInfo::default, |der| read(std::slice::from_ref(der)))
}

/// The subject alternative names of a certificate.
pub(super) fn general_names<'a, 'c>(cert: &'a X509Certificate<'c>) -> &'a [GeneralName<'c>] {
    match cert.subject_alternative_name() {
        Ok(Some(san)) => &san.value.general_names,
        _ => &[],
    }
}

/// An IP SAN as text; none for a length no address has.
pub(super) fn ip(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
    .map(|ip| ip.to_string())
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn serial(cert: &X509Certificate<'_>) -> String {
    let bytes = cert.raw_serial();
    let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    match &bytes[first..] {
        [] => "0".into(),
        bytes => hex(bytes),
    }
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

fn url_encode(pem: &str) -> String {
    let mut out = String::with_capacity(pem.len() + pem.len() / 8);
    for c in pem.chars() {
        match c {
            '\n' => out.push_str("%0A"),
            ' ' => out.push_str("%20"),
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            c => out.push(c),
        }
    }
    out
}

/// A distinguished name as OpenSSL prints it with `XN_FLAG_RFC2253`: last part first, control characters and
/// everything beyond ASCII as `\XX`.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let value = attribute.attr_value();
                    match short_name(&attribute.attr_type().to_id_string()) {
                        Some(key) => match attribute.as_str() {
                            Ok(text) => format!("{key}={}", escape(text)),
                            Err(_) => format!("{key}={}", escape(&String::from_utf8_lossy(value.data))),
                        },
                        None => format!("{}=#{}", attribute.attr_type(), hex(value.data).to_uppercase()),
                    }
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

/// OpenSSL's short name of an attribute.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.65" => "pseudonym",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(b));
            }
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            0x20..=0x7e => out.push(char::from(b)),
            b => {
                let _ = write!(out, "\\{b:02X}");
            }
        }
    }
    out
}
