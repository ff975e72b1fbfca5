//! `TlsKeyLog`: session secrets in NSS format, for looking into captured traffic.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use ipnet::IpNet;
use rustls::KeyLog;
use xds_protos::envoy::extensions::transport_sockets::tls::v3::TlsKeyLog as Proto;

use super::cert_info::hex;
use crate::{
    config::{BuildCx, ConfigResult},
    net::{Stream, cidr_range},
};

/// An open key log. Writing blocks its worker: it is a means of debugging.
#[derive(Debug)]
pub(super) struct KeyLogFile {
    file: Mutex<File>,
    local: Vec<IpNet>,
    remote: Vec<IpNet>,
}

impl KeyLogFile {
    /// Opens the file for appending.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto { supported { path, local_address_range, remote_address_range } });
        let local = cx.each("local_address_range", local_address_range, cidr_range)?;
        let remote = cx.each("remote_address_range", remote_address_range, cidr_range)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| cx.error_at("path", format!("unable to open file '{path}': {e}")))?;
        Ok(Self {
            file: Mutex::new(file),
            local,
            remote,
        })
    }

    /// Whether the secrets of a connection are to be written. Where its addresses are not known, only without ranges.
    pub fn wants(&self, stream: &Stream) -> bool {
        let (local, remote) = match stream {
            Stream::Tcp(tcp) => (tcp.local_addr().ok(), tcp.peer_addr().ok()),
            _ => (None, None),
        };
        within(&self.local, local.map(|a| a.ip())) && within(&self.remote, remote.map(|a| a.ip()))
    }
}

fn within(ranges: &[IpNet], ip: Option<IpAddr>) -> bool {
    ranges.is_empty() || ip.is_some_and(|ip| ranges.iter().any(|range| range.contains(&ip.to_canonical())))
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "cannot write the TLS key log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_within_the_ranges_are_logged() {
        let ranges: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let ip = |text: &str| Some(text.parse().unwrap());
        assert!(within(&ranges, ip("10.1.2.3")));
        assert!(within(&ranges, ip("::ffff:10.1.2.3")));
        assert!(within(&ranges, ip("::1")));
        assert!(!within(&ranges, ip("11.1.2.3")));
        assert!(!within(&ranges, None));
        assert!(within(&[], None));
    }
}
