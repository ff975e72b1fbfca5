//! JSON Web Key Sets, and the check of a token's signature with them.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{self, RsaParameters, UnparsedPublicKey, VerificationAlgorithm},
};
use base64::Engine;
use serde_json::Value;

use super::{
    status::Status,
    token::{Algorithm, BASE64URL, Token, parse_object},
};

/// The keys of a provider; those that cannot be used are left out.
#[derive(Debug)]
pub(super) struct Jwks {
    /// Which set this is; no other has its number.
    pub id: u64,
    keys: Vec<Jwk>,
}

#[derive(Debug)]
struct Jwk {
    /// Empty: the key is for tokens of any `kid`.
    kid: String,
    /// None: for any algorithm of its kind.
    alg: Option<Algorithm>,
    key: Key,
}

enum Key {
    Rsa(PublicKeyComponents<Vec<u8>>),
    /// An uncompressed point.
    Ec(Curve, Vec<u8>),
    Ed25519(Vec<u8>),
    Hmac(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// Keys never go into a log.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "Rsa",
            Self::Ec(..) => "Ec",
            Self::Ed25519(_) => "Ed25519",
            Self::Hmac(_) => "Hmac",
        })
    }
}

impl Jwks {
    /// Reads a key set; an error when there is no usable key in it.
    pub fn parse(text: &[u8]) -> Result<Self, Status> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let set = parse_object(text).ok_or(Status::KeysBadJson)?;
        let keys = set.get("keys").ok_or(Status::KeysMissing)?;
        let keys = keys.as_array().ok_or(Status::KeysNoArray)?;
        let keys: Vec<Jwk> = keys.iter().filter_map(Jwk::parse).collect();
        match keys.is_empty() {
            true => Err(Status::NoValidKeys),
            false => Ok(Self {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                keys,
            }),
        }
    }

    /// Checks a token's signature with each key that may be the one.
    pub fn verify(&self, token: &Token) -> Result<(), Status> {
        let mut candidates = self.keys.iter().filter(|key| key.may_be_of(token)).peekable();
        if candidates.peek().is_none() {
            return Err(Status::NoMatchingKey);
        }
        if token.alg == Algorithm::EdDSA && token.signature.len() != 64 {
            return Err(Status::Ed25519Length);
        }
        match candidates.any(|jwk| jwk.key.verify(token)) {
            true => Ok(()),
            false => Err(Status::VerificationFail),
        }
    }
}

impl Jwk {
    fn may_be_of(&self, token: &Token) -> bool {
        (self.kid.is_empty() || token.kid.is_empty() || self.kid == token.kid)
            && self.alg.is_none_or(|alg| alg == token.alg)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let bytes = |key: &str| BASE64URL.decode(text(key)?).ok().filter(|b| !b.is_empty());
        let alg = match value.get("alg") {
            None => None,
            Some(alg) => Some(Algorithm::parse(alg.as_str()?)?),
        };
        let is_of = |prefixes: &[&str]| alg.is_none_or(|a| prefixes.iter().any(|p| a.name().starts_with(p)));
        let (key, fits) = match text("kty")? {
            "RSA" => (
                Key::Rsa(PublicKeyComponents {
                    n: bytes("n")?,
                    e: bytes("e")?,
                }),
                is_of(&["RS", "PS"]),
            ),
            "EC" => {
                let curve = curve(text("crv"), alg)?;
                (Key::Ec(curve, curve.point(&bytes("x")?, &bytes("y")?)?), is_of(&["ES"]))
            }
            "OKP" if text("crv")? == "Ed25519" => {
                (Key::Ed25519(bytes("x").filter(|x| x.len() == 32)?), is_of(&["EdDSA"]))
            }
            "oct" => (Key::Hmac(bytes("k")?), is_of(&["HS"])),
            _ => return None,
        };
        fits.then(|| Self {
            kid: text("kid").unwrap_or_default().to_owned(),
            alg,
            key,
        })
    }
}

/// The curve by name, or else by algorithm; none when they contradict each other.
fn curve(name: Option<&str>, alg: Option<Algorithm>) -> Option<Curve> {
    let by_name = match name {
        None => None,
        Some("P-256") => Some(Curve::P256),
        Some("P-384") => Some(Curve::P384),
        Some("P-521") => Some(Curve::P521),
        Some(_) => return None,
    };
    let by_alg = match alg {
        Some(Algorithm::ES256) => Some(Curve::P256),
        Some(Algorithm::ES384) => Some(Curve::P384),
        Some(Algorithm::ES512) => Some(Curve::P521),
        _ => None,
    };
    match (by_name, by_alg) {
        (Some(a), Some(b)) if a != b => None,
        (None, None) => Some(Curve::P256),
        (a, b) => a.or(b),
    }
}

impl Curve {
    /// An uncompressed point of these coordinates.
    fn point(self, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
        let size: usize = match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        };
        let mut point = vec![4];
        for coordinate in [x, y] {
            point.extend(std::iter::repeat_n(0, size.checked_sub(coordinate.len())?));
            point.extend_from_slice(coordinate);
        }
        Some(point)
    }
}

impl Key {
    fn verify(&self, token: &Token) -> bool {
        let message = token.signed.as_bytes();
        let verify = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key)
                .verify(message, &token.signature)
                .is_ok()
        };
        match self {
            Self::Rsa(key) => rsa(token.alg).is_some_and(|p| key.verify(p, message, &token.signature).is_ok()),
            Self::Ec(Curve::P256, point) if token.alg == Algorithm::ES256 => {
                verify(&signature::ECDSA_P256_SHA256_FIXED, point)
            }
            Self::Ec(Curve::P384, point) if token.alg == Algorithm::ES384 => {
                verify(&signature::ECDSA_P384_SHA384_FIXED, point)
            }
            Self::Ec(Curve::P521, point) if token.alg == Algorithm::ES512 => {
                verify(&signature::ECDSA_P521_SHA512_FIXED, point)
            }
            Self::Ed25519(key) if token.alg == Algorithm::EdDSA => verify(&signature::ED25519, key),
            Self::Hmac(secret) => hmac_of(token.alg)
                .is_some_and(|alg| hmac::verify(&hmac::Key::new(alg, secret), message, &token.signature).is_ok()),
            _ => false,
        }
    }
}

fn rsa(alg: Algorithm) -> Option<&'static RsaParameters> {
    Some(match alg {
        Algorithm::RS256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn hmac_of(alg: Algorithm) -> Option<hmac::Algorithm> {
    Some(match alg {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}
