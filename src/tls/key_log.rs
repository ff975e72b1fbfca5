//! `TlsKeyLog`: session secrets in NSS format, for looking into captured traffic.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::{Mutex, PoisonError},
};

use rustls::KeyLog;
use xds_protos::envoy::extensions::transport_sockets::tls::v3::TlsKeyLog as Proto;

use super::cert_info::hex;
use crate::config::{BuildCx, ConfigResult};

/// An open key log. Writing blocks its worker: it is a means of debugging.
#[derive(Debug)]
pub(super) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    /// Opens the file for appending.
    pub fn build(proto: Proto, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => Proto {
            supported { path }
            rejected {
                local_address_range: "key logs of some addresses only",
                remote_address_range: "key logs of some addresses only",
            }
        });
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| cx.error_at("path", format!("unable to open file '{path}': {e}")))?;
        Ok(Self(Mutex::new(file)))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "cannot write the TLS key log");
        }
    }
}
