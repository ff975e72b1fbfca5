//! `original_ip_detection_extensions`: who the client is, when neither the peer nor counting `x-forwarded-for` tells.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, StatusCode};
use ipnet::IpNet;
use xds_protos::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::http::original_ip_detection::{
        custom_header::v3::CustomHeaderConfig,
        xff::v3::{XffConfig, XffTrustedCidrs},
    },
    r#type::v3::HttpStatus,
};

use super::mutate::X_FORWARDED_FOR;
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, plain, unpack},
    http::LocalReply,
    net::{Address, cidr_range},
};

/// One extension; the first that finds an address decides.
pub enum IpDetection {
    /// `envoy.http.original_ip_detection.xff`
    Xff {
        /// Entries of proxies to skip, from the right.
        hops: usize,
        /// Or the proxies by their addresses; the peer must be one of them.
        proxies: Option<Vec<IpNet>>,
        /// Whether the peer is appended to `x-forwarded-for`.
        append: bool,
    },
    /// `envoy.http.original_ip_detection.custom_header`
    Header {
        /// The header.
        name: HeaderName,
        /// Whether the address may be an internal one.
        trusted: bool,
        /// What requests without it are answered.
        reject: Option<StatusCode>,
    },
}

/// What the extensions found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Detected {
    /// The client; none: the peer.
    pub address: Option<IpAddr>,
    /// Whether it may be an internal one.
    pub trusted: bool,
    /// Whether the peer is appended to `x-forwarded-for`.
    pub append: bool,
}

impl IpDetection {
    /// Builds an extension.
    pub fn build(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
        let any = plain(typed_config.unwrap_or_default(), cx)?;
        cx.field("typed_config", |cx| match any.type_name() {
            "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig" => xff(unpack(&any, cx)?, cx),
            "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig" => {
                custom_header(unpack(&any, cx)?, cx)
            }
            _ => Err(cx.error(format!("Original IP detection extension not found: '{name}'"))),
        })
    }

    fn detect(&self, headers: &HeaderMap, peer: &Address) -> Result<Detected, StatusCode> {
        let (address, trusted, append) = match self {
            Self::Xff { hops, proxies, append } => {
                let all = headers.get(X_FORWARDED_FOR).and_then(|v| v.to_str().ok());
                let address = match proxies {
                    None => all.and_then(|all| all.rsplit(',').nth(*hops)?.trim().parse().ok()),
                    Some(proxies) => all.and_then(|all| behind(proxies, all, peer)),
                };
                (address, all.is_some_and(|all| !all.contains(',')), *append)
            }
            Self::Header { name, trusted, reject } => {
                let value = headers.get(name).and_then(|v| v.to_str().ok());
                let address = value.and_then(|v| v.trim().parse().ok());
                if let (None, Some(status)) = (address, reject) {
                    return Err(*status);
                }
                (address, *trusted, false)
            }
        };
        Ok(Detected {
            address,
            trusted: trusted && address.is_some(),
            append,
        })
    }
}

/// Asks the extensions in order; an error is the answer to a request that one of them refuses.
pub(super) fn detect(all: &[IpDetection], headers: &HeaderMap, peer: &Address) -> Result<Detected, Box<LocalReply>> {
    let mut detected = Detected::default();
    for extension in all {
        detected = extension
            .detect(headers, peer)
            .map_err(|status| Box::new(LocalReply::new(status, "", "rejecting_because_detection_failed")))?;
        if detected.address.is_some() {
            break;
        }
    }
    Ok(detected)
}

/// The last address that is no known proxy's; the first of all when they all are.
fn behind(proxies: &[IpNet], all: &str, peer: &Address) -> Option<IpAddr> {
    let is_proxy = |ip: &IpAddr| proxies.iter().any(|net| net.contains(ip));
    if !peer.ip().is_some_and(|ip| is_proxy(&ip)) {
        return None;
    }
    let mut last = None;
    for entry in all.rsplit(',') {
        let ip = entry.trim().parse().ok()?;
        if !is_proxy(&ip) {
            return Some(ip);
        }
        last = Some(ip);
    }
    last
}

fn xff(proto: XffConfig, cx: &mut BuildCx<'_>) -> ConfigResult<IpDetection> {
    coverage!(cx, proto => XffConfig { supported { xff_num_trusted_hops, xff_trusted_cidrs, skip_xff_append } });
    if xff_num_trusted_hops > 0 && xff_trusted_cidrs.is_some() {
        return Err(cx.error("Cannot set both xff_num_trusted_hops and xff_trusted_cidrs"));
    }
    Ok(IpDetection::Xff {
        hops: xff_num_trusted_hops as usize,
        proxies: cx.opt("xff_trusted_cidrs", xff_trusted_cidrs, |proto, cx| {
            coverage!(cx, proto => XffTrustedCidrs { supported { cidrs } });
            cx.each("cidrs", cidrs, cidr_range)
        })?,
        append: skip_xff_append.is_some_and(|skip| !skip.value),
    })
}

fn custom_header(proto: CustomHeaderConfig, cx: &mut BuildCx<'_>) -> ConfigResult<IpDetection> {
    coverage!(cx, proto => CustomHeaderConfig {
        supported { header_name, allow_extension_to_set_address_as_trusted, reject_with_status }
    });
    let name = HeaderName::try_from(header_name.to_ascii_lowercase());
    Ok(IpDetection::Header {
        name: name.map_err(|_| cx.error_at("header_name", format!("invalid header name '{header_name}'")))?,
        trusted: allow_extension_to_set_address_as_trusted,
        reject: reject_with_status.map(|HttpStatus { code }| {
            let code = u16::try_from(code).ok().filter(|code| (400..=511).contains(code));
            code.and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::FORBIDDEN)
        }),
    })
}

#[cfg(test)]
mod tests;
