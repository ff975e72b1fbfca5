//! What went wrong in a handshake, in the words of BoringSSL as Envoy logs them:
//! `TLS_error:|<code>:SSL routines:OPENSSL_internal:<REASON>[:<detail>]:TLS_error_end`.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::{
    params::Side,
    stats::SslCounters,
    validation::{VerifyFailure, describe_error},
};
use crate::net::errno_text;

/// Why a handshake failed, as `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` and its upstream twin print it. Empty when the
/// peer just went away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub String);

/// Number of the SSL library within an error code.
const LIB_SSL: u32 = 16 << 24;
/// Reasons of alerts that came from the peer are this plus the alert.
const ALERTS: u32 = 1000;

const VERIFY_FAILED: (u32, &str) = (125, "CERTIFICATE_VERIFY_FAILED");
const NO_CERTIFICATE: (u32, &str) = (192, "PEER_DID_NOT_RETURN_A_CERTIFICATE");

impl HandshakeError {
    /// There is no context yet: a secret has not come.
    pub(super) fn not_ready() -> Self {
        Self("TLS error: Secret is not supplied by SDS".into())
    }

    /// Puts an I/O error of a handshake into words, and counts it.
    pub(super) fn new(error: &io::Error, side: Side, counters: &SslCounters) -> Self {
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(error) => Self::tls(error, side, counters),
            // Errors of the socket are counted where sockets are.
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self(String::new()),
            None => Self(format!("TLS_error:|{}:TLS_error_end", errno_text(error))),
        }
    }

    /// The same for an error of rustls.
    pub(super) fn tls(error: &Error, side: Side, counters: &SslCounters) -> Self {
        let stats = counters.block.local();
        let ((code, reason), detail) = match error {
            Error::InvalidCertificate(e) => (VERIFY_FAILED, detail(e)),
            Error::NoCertificatesPresented => {
                stats.fail_verify_no_cert.inc();
                let detail = "peer did not provide required client certificate";
                (NO_CERTIFICATE, Some(detail.to_owned()))
            }
            // Plain HTTP is what speaks to a TLS port by mistake.
            Error::InvalidMessage(InvalidMessage::InvalidContentType) if side == Side::Server => {
                stats.connection_error.inc();
                ((156, "HTTP_REQUEST"), None)
            }
            other => {
                stats.connection_error.inc();
                (reason_of(other), None)
            }
        };
        let detail = detail.map(|d| format!(":{d}")).unwrap_or_default();
        Self(format!(
            "TLS_error:|{}:SSL routines:OPENSSL_internal:{reason}{detail}:TLS_error_end",
            LIB_SSL + code
        ))
    }
}

fn detail(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::Other(other) => other.0.downcast_ref::<VerifyFailure>().map(|f| f.text.clone()),
        other => describe_error(other),
    }
}

/// BoringSSL's number and name of a reason.
fn reason_of(error: &Error) -> (u32, &'static str) {
    match error {
        Error::AlertReceived(alert) => alert_of(*alert),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => (184, "NO_SHARED_CIPHER"),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => (240, "UNSUPPORTED_PROTOCOL"),
        Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NoEcPointFormatsInCommon) => {
            (258, "NO_SHARED_GROUP")
        }
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => {
            (253, "NO_COMMON_SIGNATURE_ALGORITHMS")
        }
        Error::NoApplicationProtocol => (276, "NO_APPLICATION_PROTOCOL"),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            (247, "WRONG_VERSION_NUMBER")
        }
        Error::InvalidMessage(_) => (137, "DECODE_ERROR"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => (223, "UNEXPECTED_MESSAGE"),
        Error::DecryptError => (143, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
        Error::PeerSentOversizedRecord => (139, "ENCRYPTED_LENGTH_TOO_LONG"),
        Error::PeerMisbehaved(_) => (223, "UNEXPECTED_MESSAGE"),
        _ => (168, "HANDSHAKE_FAILURE_ON_CLIENT_HELLO"),
    }
}

fn alert_of(alert: AlertDescription) -> (u32, &'static str) {
    let name = match alert {
        AlertDescription::CloseNotify => "SSLV3_ALERT_CLOSE_NOTIFY",
        AlertDescription::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        AlertDescription::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        AlertDescription::RecordOverflow => "TLSV1_ALERT_RECORD_OVERFLOW",
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::NoCertificate => "SSLV3_ALERT_NO_CERTIFICATE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::InappropriateFallback => "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
        AlertDescription::UserCanceled => "TLSV1_ALERT_USER_CANCELLED",
        AlertDescription::NoRenegotiation => "TLSV1_ALERT_NO_RENEGOTIATION",
        AlertDescription::UnsupportedExtension => "TLSV1_ALERT_UNSUPPORTED_EXTENSION",
        AlertDescription::UnrecognisedName => "TLSV1_ALERT_UNRECOGNIZED_NAME",
        AlertDescription::BadCertificateStatusResponse => "TLSV1_ALERT_BAD_CERTIFICATE_STATUS_RESPONSE",
        AlertDescription::BadCertificateHashValue => "TLSV1_ALERT_BAD_CERTIFICATE_HASH_VALUE",
        AlertDescription::UnknownPSKIdentity => "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY",
        AlertDescription::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => return (252, "UNKNOWN_ALERT_TYPE"),
    };
    (ALERTS + u32::from(u8::from(alert)), name)
}
