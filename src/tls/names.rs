//! One table between rustls' numbers and the names that OpenSSL, and so Envoy, has for them.

use rustls::{
    CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme, SupportedCipherSuite,
    crypto::{SupportedKxGroup, aws_lc_rs as provider},
};

/// A name and its place in its table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub index: usize,
    pub name: &'static str,
}

pub(super) const VERSIONS: &[(ProtocolVersion, &str)] = &[
    (ProtocolVersion::TLSv1_2, "TLSv1.2"),
    (ProtocolVersion::TLSv1_3, "TLSv1.3"),
];

/// In the order in which a server prefers them: AES-128 first, because SHA-384 makes handshakes dearer.
pub(super) const CIPHERS: &[(CipherSuite, &str)] = &[
    (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256"),
    (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384"),
    (
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
];

/// Names of suites that BoringSSL knows and rustls has not: lists may contain them beside others.
pub(super) const OTHER_CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-RSA-AES256-SHA384",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "AES128-SHA256",
    "AES256-SHA256",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
    "DES-CBC3-SHA",
];

pub(super) const CURVES: &[(NamedGroup, &str)] = &[
    (NamedGroup::X25519, "X25519"),
    (NamedGroup::secp256r1, "P-256"),
    (NamedGroup::secp384r1, "P-384"),
    (NamedGroup::X25519MLKEM768, "X25519MLKEM768"),
];

/// Curves that BoringSSL knows and rustls has not.
pub(super) const OTHER_CURVES: &[&str] = &["P-224", "P-521", "X25519Kyber768Draft00", "MLKEM1024"];

pub(super) const SIGALGS: &[(SignatureScheme, &str)] = &[
    (SignatureScheme::ECDSA_NISTP256_SHA256, "ecdsa_secp256r1_sha256"),
    (SignatureScheme::RSA_PSS_SHA256, "rsa_pss_rsae_sha256"),
    (SignatureScheme::RSA_PKCS1_SHA256, "rsa_pkcs1_sha256"),
    (SignatureScheme::ECDSA_NISTP384_SHA384, "ecdsa_secp384r1_sha384"),
    (SignatureScheme::RSA_PSS_SHA384, "rsa_pss_rsae_sha384"),
    (SignatureScheme::RSA_PKCS1_SHA384, "rsa_pkcs1_sha384"),
    (SignatureScheme::RSA_PSS_SHA512, "rsa_pss_rsae_sha512"),
    (SignatureScheme::RSA_PKCS1_SHA512, "rsa_pkcs1_sha512"),
    (SignatureScheme::ECDSA_NISTP521_SHA512, "ecdsa_secp521r1_sha512"),
    (SignatureScheme::ED25519, "ed25519"),
];

/// Signature algorithms that BoringSSL knows and rustls has not.
pub(super) const OTHER_SIGALGS: &[&str] = &["rsa_pkcs1_sha1", "ecdsa_sha1"];

fn find<K: PartialEq + Copy>(table: &'static [(K, &'static str)], key: K) -> Option<Named> {
    let index = table.iter().position(|(k, _)| *k == key)?;
    Some(Named {
        index,
        name: table[index].1,
    })
}

pub(super) fn version(version: ProtocolVersion) -> Option<Named> {
    find(VERSIONS, version)
}

pub(super) fn cipher(suite: CipherSuite) -> Option<Named> {
    find(CIPHERS, suite)
}

pub(super) fn curve(group: NamedGroup) -> Option<Named> {
    find(CURVES, group)
}

pub(super) fn sigalg(scheme: SignatureScheme) -> Option<Named> {
    find(SIGALGS, scheme)
}

/// The suite of a name.
pub(super) fn suite(name: &str) -> Option<SupportedCipherSuite> {
    let (id, _) = CIPHERS.iter().find(|(_, n)| *n == name)?;
    provider::ALL_CIPHER_SUITES.iter().find(|s| s.suite() == *id).copied()
}

/// The key exchange of a curve's name.
pub(super) fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    let (id, _) = CURVES.iter().find(|(_, n)| *n == name)?;
    provider::ALL_KX_GROUPS.iter().find(|g| g.name() == *id).copied()
}

/// The signature algorithm of a name.
pub(super) fn scheme(name: &str) -> Option<SignatureScheme> {
    SIGALGS.iter().find(|(_, n)| *n == name).map(|(s, _)| *s)
}

/// BoringSSL's name of a group.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}
