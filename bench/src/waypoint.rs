//! One hop of HBONE: tunnels with mutual TLS, a token and an identity checked on every request, requests counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::load::{Seen, Target};
use crate::process::{self, Cpu, Process};
use crate::proxies::{Identity, Ports, Proxy, Setup, waypoint_bootstrap};

const CLIENT: &str = "spiffe://cluster.local/ns/bench/sa/client";
const WAYPOINT: &str = "spiffe://cluster.local/ns/bench/sa/waypoint";

/// Starts a process for it, measures, ends it.
pub fn measure<'a>(
    proxy: &Proxy,
    setup: &Setup,
    target: impl Fn(u16) -> Target<'a>,
    connections: usize,
    tunnels: usize,
) -> Result<(Seen, Cpu)> {
    let ports = Ports::free(proxy.kind)?;
    let (identity, client) = identities()?;
    let (keys, token) = issuer()?;
    let identity = Identity { keys, ..identity };
    let stem = format!("{}-waypoint", proxy.kind.name());
    let config = setup.scratch.join(format!("{stem}.yaml"));
    fs::write(&config, waypoint_bootstrap(proxy.kind, setup, ports, &identity))?;
    let client_file = setup.scratch.join("client.pem");
    let token_file = setup.scratch.join("token");
    fs::write(&client_file, client)?;
    fs::write(&token_file, token)?;
    let log = setup.scratch.join(format!("{stem}.out"));
    let mut process = Process::start(proxy.kind.name(), proxy.envoy_command(setup.core, &config), &log)?;
    let arguments = [
        format!("--connections={connections}"),
        format!("--tunnels={tunnels}"),
        format!("--identity={}", client_file.display()),
        format!("--token={}", token_file.display()),
    ];
    let load = |seconds| {
        let target = Target {
            seconds,
            ..target(ports.tls)
        };
        target.own("load-hbone", &arguments)
    };
    let listens = || std::net::TcpStream::connect(("127.0.0.1", ports.tls)).is_ok();
    process::wait_until(&mut process, Duration::from_secs(20), listens)
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let before = process.cpu()?;
    let seen = load(target(ports.tls).seconds)?;
    Ok((seen, process.cpu()?.since(before)))
}

/// The waypoint's identity, and a client's certificate with its key, PEM; both from an authority that is made here.
fn identities() -> Result<(Identity, String)> {
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Its name must differ from those that it signs, or they look self-signed.
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    let authority = params.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(params, authority_key);
    let issue = |name: &str| -> Result<(String, String)> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (certificate, key) = issue(WAYPOINT)?;
    let (client, client_key) = issue(CLIENT)?;
    let identity = Identity {
        authority,
        certificate,
        key,
        keys: String::new(),
        client: CLIENT.to_string(),
    };
    Ok((identity, format!("{client}{client_key}")))
}

/// A key set, and a token that its key has signed.
fn issuer() -> Result<(String, String)> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    // An uncompressed point: a 4, then both coordinates.
    let point = key.public_key().as_ref();
    let coordinate = |range| -> Result<String> { Ok(URL_SAFE_NO_PAD.encode(point.get(range).context("a point")?)) };
    let keys = serde_json::json!({"keys": [{
        "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "bench",
        "x": coordinate(1..33)?, "y": coordinate(33..65)?,
    }]});
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(serde_json::json!({"alg": "ES256", "kid": "bench", "typ": "JWT"})),
        part(serde_json::json!({"iss": "bench", "sub": "client", "exp": 4_102_444_800_u64})),
    );
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes())?;
    Ok((
        keys.to_string(),
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)),
    ))
}
