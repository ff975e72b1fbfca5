//! A token's three parts, taken apart and read; nothing in it is trusted yet.

use std::fmt;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::status::Status;

/// Base64url, padded or not, as Envoy reads it.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A token that could be read.
#[derive(Debug)]
pub(super) struct Token {
    pub alg: Algorithm,
    /// Empty for none.
    pub kid: String,
    pub header: Map<String, Value>,
    pub payload: Map<String, Value>,
    /// The payload as it stands in the token.
    pub payload_text: String,
    /// What was signed: header, dot, payload.
    pub signed: String,
    pub signature: Vec<u8>,
    /// Empty for none, like the other texts.
    pub iss: String,
    pub sub: String,
    pub audiences: Vec<String>,
    /// Seconds of Unix time; 0 for none.
    pub nbf: u64,
    pub exp: u64,
}

macro_rules! algorithms {
    ($($name:ident)*) => {
        /// `alg`
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(clippy::upper_case_acronyms)] // These are their names.
        pub(super) enum Algorithm { $(#[allow(missing_docs)] $name),* }

        impl Algorithm {
            /// By its name in a header.
            pub(super) fn parse(name: &str) -> Option<Self> {
                match name { $(stringify!($name) => Some(Self::$name),)* _ => None }
            }

            /// Its name.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
        }
    };
}

algorithms! { HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA }

impl Token {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut parts = text.split('.');
        let (Some(header_text), Some(payload_text), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Status::BadFormat);
        };
        if [header_text, payload_text, signature]
            .iter()
            .any(|part| part.is_empty())
        {
            return Err(Status::BadFormat);
        }
        let header = BASE64URL.decode(header_text).map_err(|_| Status::HeaderBadBase64)?;
        let header = parse_object(&header).ok_or(Status::HeaderBadJson)?;
        let alg = header.get("alg").and_then(Value::as_str).ok_or(Status::HeaderBadAlg)?;
        let alg = Algorithm::parse(alg).ok_or(Status::HeaderUnknownAlg)?;
        let kid = text_of(&header, "kid", Status::HeaderBadKid)?;
        let payload = BASE64URL.decode(payload_text).map_err(|_| Status::PayloadBadBase64)?;
        let payload = parse_object(&payload).ok_or(Status::PayloadBadJson)?;
        let iss = text_of(&payload, "iss", Status::IssNotString)?;
        let sub = text_of(&payload, "sub", Status::SubNotString)?;
        number_of(&payload, "iat", Status::IatNotInteger, Status::IatOutOfRange)?;
        let nbf = number_of(&payload, "nbf", Status::NbfNotInteger, Status::NbfOutOfRange)?;
        let exp = number_of(&payload, "exp", Status::ExpNotInteger, Status::ExpOutOfRange)?;
        text_of(&payload, "jti", Status::JtiNotString)?;
        let audiences = audiences(payload.get("aud"))?;
        Ok(Self {
            alg,
            kid,
            signature: BASE64URL.decode(signature).map_err(|_| Status::SignatureBadBase64)?,
            signed: format!("{header_text}.{payload_text}"),
            payload_text: payload_text.to_owned(),
            header,
            payload,
            iss,
            sub,
            audiences,
            nbf,
            exp,
        })
    }

    /// Whether it is valid at `now`, give or take `skew`; all in seconds.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if self.nbf > now.saturating_add(skew) {
            return Err(Status::NotYetValid);
        }
        if self.exp > 0 && now > self.exp.saturating_add(skew) {
            return Err(Status::Expired);
        }
        Ok(())
    }
}

/// A JSON object in which no key stands twice: two readers might take a different one of them.
pub(super) fn parse_object(text: &[u8]) -> Option<Map<String, Value>> {
    struct Unique;

    impl<'de> Visitor<'de> for Unique {
        type Value = Map<String, Value>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object without duplicate keys")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = Map::new();
            while let Some((key, value)) = access.next_entry::<String, Value>()? {
                if map.insert(key, value).is_some() {
                    return Err(de::Error::custom("a key stands twice"));
                }
            }
            Ok(map)
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(text);
    let map = reader.deserialize_map(Unique).ok()?;
    reader.end().ok().map(|()| map)
}

fn text_of(object: &Map<String, Value>, key: &str, wrong: Status) -> Result<String, Status> {
    match object.get(key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong),
    }
}

fn number_of(object: &Map<String, Value>, key: &str, wrong: Status, outside: Status) -> Result<u64, Status> {
    match object.get(key) {
        None => Ok(0),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Ok(whole),
            // A fraction is cut off. What is too large for 64 bits was caught by the comparison.
            (None, Some(real)) if (0.0..u64::MAX as f64).contains(&real) => Ok(real as u64),
            _ => Err(outside),
        },
        Some(_) => Err(wrong),
    }
}

fn audiences(claim: Option<&Value>) -> Result<Vec<String>, Status> {
    match claim {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => all
            .iter()
            .map(|v| v.as_str().map(str::to_owned).ok_or(Status::AudNotString))
            .collect(),
        Some(_) => Err(Status::AudNotString),
    }
}
