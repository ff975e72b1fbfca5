//! `importPublicKey` and `verifySignature`.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// Whether `der` is a public key (`SubjectPublicKeyInfo`) that signatures can be checked with.
pub(super) fn is_public_key(der: &[u8]) -> bool {
    kind(der).is_some()
}

#[derive(Clone, Copy)]
enum Kind {
    Rsa,
    P256,
    P384,
}

/// By the object identifiers within.
fn kind(der: &[u8]) -> Option<Kind> {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
    let (_, key) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(Kind::Rsa),
        "1.2.840.10045.2.1" => match curve?.to_id_string().as_str() {
            "1.2.840.10045.3.1.7" => Some(Kind::P256),
            "1.3.132.0.34" => Some(Kind::P384),
            _ => None,
        },
        _ => None,
    }
}

/// Checks a signature; the error is Envoy's text.
pub(super) fn verify(hash: &str, der: &[u8], signed: &[u8], text: &[u8]) -> Result<(), String> {
    use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
    let hash = hash.to_ascii_lowercase();
    let algorithm: &dyn VerificationAlgorithm = match (kind(der), hash.as_str()) {
        (Some(Kind::Rsa), "sha1") => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (Some(Kind::Rsa), "sha256") => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        (Some(Kind::Rsa), "sha384") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Some(Kind::Rsa), "sha512") => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (Some(Kind::P256), "sha256") => &signature::ECDSA_P256_SHA256_ASN1,
        (Some(Kind::P256), "sha384") => &signature::ECDSA_P256_SHA384_ASN1,
        (Some(Kind::P384), "sha256") => &signature::ECDSA_P384_SHA256_ASN1,
        (Some(Kind::P384), "sha384") => &signature::ECDSA_P384_SHA384_ASN1,
        _ => return Err(format!("{hash} is not supported.")),
    };
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(der) else {
        return Err("Failed to initialize digest verify.".to_owned());
    };
    UnparsedPublicKey::new(algorithm, &*key.subject_public_key.data)
        .verify(text, signed)
        .map_err(|_| "Failed to verify digest. Error code: 0".to_owned())
}
