//! Handshakes between both sides over loopback, with certificates made here.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tokio::net::{TcpListener, TcpStream};
use xds_protos::envoy::{
    config::{
        bootstrap::v3::Bootstrap,
        core::v3::{DataSource, data_source::Specifier},
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret,
        SubjectAltNameMatcher, TlsCertificate, UpstreamTlsContext, common_tls_context::ValidationContextType,
        secret::Type, subject_alt_name_matcher,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::*;
use crate::{config::BuildCx, http::stream_info::TlsInfo, server::ServerContext};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(ca: &Ca, edit: impl FnOnce(&mut CertificateParams)) -> TlsCertificate {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(7_u64));
    edit(&mut params);
    let cert = params.signed_by(&key, ca).unwrap();
    TlsCertificate {
        certificate_chain: inline(&cert.pem()),
        private_key: inline(&key.serialize_pem()),
        ..TlsCertificate::default()
    }
}

fn dns(name: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = SanType::DnsName(name.try_into().unwrap());
    move |params| params.subject_alt_names.push(name)
}

fn inline(pem: &str) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineString(pem.to_owned())),
        ..DataSource::default()
    })
}

fn trust(ca: &Ca) -> CertificateValidationContext {
    CertificateValidationContext {
        trusted_ca: inline(&ca.pem()),
        ..CertificateValidationContext::default()
    }
}

fn server() -> Arc<ServerContext> {
    use clap::Parser;
    let cli = crate::cli::Cli::try_parse_from(["nuncio", "--concurrency", "1"]).unwrap();
    ServerContext::new(Bootstrap::default(), &cli).unwrap()
}

fn common(certificates: Vec<TlsCertificate>, validation: Option<CertificateValidationContext>) -> CommonTlsContext {
    CommonTlsContext {
        tls_certificates: certificates,
        validation_context_type: validation.map(ValidationContextType::ValidationContext),
        ..CommonTlsContext::default()
    }
}

fn downstream(common: CommonTlsContext, require: bool, server: &Arc<ServerContext>) -> Arc<ServerTls> {
    let proto = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(xds_protos::google::protobuf::BoolValue { value: require }),
        ..DownstreamTlsContext::default()
    };
    let mut cx = BuildCx::new(server);
    cx.listener_prefix = Some("listener.test.".into());
    ServerTls::build(&xds_protos::any::pack(&proto), &mut cx).unwrap()
}

fn upstream(common: CommonTlsContext, sni: &str, server: &Arc<ServerContext>) -> Arc<ClientTls> {
    let proto = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: sni.into(),
        ..UpstreamTlsContext::default()
    };
    let scope = server.stats.scope("cluster.test.");
    ClientTls::build(&xds_protos::any::pack(&proto), &scope, &mut BuildCx::new(server)).unwrap()
}

type Outcome = Result<TlsInfo, String>;

/// One handshake; a byte each way makes TLS 1.3 clients notice what the server thinks of them.
async fn shake(server: &ServerTls, client: &ClientTls) -> (Outcome, Outcome) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let (mut stream, info) = server.accept(tcp).await.map_err(|e| e.0)?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        let _ = stream.read_u8().await;
        Ok(info)
    };
    let connecting = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut stream, info) = client.connect(tcp, ClientOptions::default()).await.map_err(|e| e.0)?;
        stream.read_u8().await.map_err(|e| e.to_string())?;
        stream.write_all(b"y").await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        Ok(info)
    };
    tokio::join!(accepting, connecting)
}

#[tokio::test]
async fn facts_of_a_handshake() {
    let s = server();
    let root = ca("root");
    let mut served = common(vec![issue(&root, dns("a.test"))], None);
    served.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
    let mut asking = common(vec![], Some(trust(&root)));
    asking.alpn_protocols = vec!["http/1.1".into()];
    let server = downstream(served, false, &s);
    let client = upstream(asking, "a.test", &s);
    let (down, up) = shake(&server, &client).await;
    let (down, up) = (down.unwrap(), up.unwrap());
    assert_eq!(down.sni.as_deref(), Some("a.test"));
    assert_eq!(down.alpn.as_deref(), Some("http/1.1"));
    // Envoy's clients speak TLS 1.2 unless they are told otherwise.
    assert_eq!((up.version, up.cipher), ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"));
    assert!(up.peer_presented && up.peer_validated && !down.peer_presented);
    assert_eq!(up.peer.dns_sans, ["a.test"]);
    assert_eq!(up.peer.issuer, "CN=root");
    assert_eq!(up.peer.serial, "07");
    assert_eq!(up.peer.sha256, down.local.sha256);
    assert_eq!(s.stats.counter_value("listener.test.ssl.handshake"), Some(1));
    assert_eq!(s.stats.counter_value("listener.test.ssl.versions.TLSv1.2"), Some(1));
    assert_eq!(s.stats.counter_value("cluster.test.ssl.handshake"), Some(1));
}

#[tokio::test]
async fn client_certificates() {
    let s = server();
    let (root, other) = (ca("root"), ca("other"));
    let served = || vec![issue(&root, dns("a.test"))];
    let server = downstream(common(served(), Some(trust(&root))), true, &s);
    let with = |certificates| upstream(common(certificates, Some(trust(&root))), "a.test", &s);

    let (down, _) = shake(&server, &with(vec![issue(&root, dns("client.test"))])).await;
    let down = down.unwrap();
    assert!(down.peer_presented && down.peer_validated);
    assert_eq!(down.peer.dns_sans, ["client.test"]);

    let (down, up) = shake(&server, &with(vec![])).await;
    assert_eq!(
        down.unwrap_err(),
        "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide \
         required client certificate:TLS_error_end"
    );
    assert!(up.is_err());
    assert_eq!(s.stats.counter_value("listener.test.ssl.fail_verify_no_cert"), Some(1));

    let (down, _) = shake(&server, &with(vec![issue(&other, dns("client.test"))])).await;
    assert!(down.unwrap_err().contains("unable to get local issuer certificate"));
    assert_eq!(s.stats.counter_value("listener.test.ssl.fail_verify_error"), Some(1));

    let expired = issue(&root, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let (down, _) = shake(&server, &with(vec![expired.clone()])).await;
    assert!(down.unwrap_err().contains("certificate has expired"));
    let lenient = CertificateValidationContext {
        allow_expired_certificate: true,
        ..trust(&root)
    };
    let server = downstream(common(served(), Some(lenient)), true, &s);
    let (down, _) = shake(&server, &with(vec![expired])).await;
    assert!(down.unwrap().peer_validated);
}

#[tokio::test]
async fn names_and_revocation() {
    let s = server();
    let root = ca("root");
    let served = || vec![issue(&root, dns("a.test"))];
    let client = |name| {
        let identity = vec![issue(&root, dns(name))];
        upstream(common(identity, Some(trust(&root))), "a.test", &s)
    };
    let matching = CertificateValidationContext {
        match_typed_subject_alt_names: vec![SubjectAltNameMatcher {
            san_type: subject_alt_name_matcher::SanType::Dns as i32,
            matcher: Some(StringMatcher {
                match_pattern: Some(MatchPattern::Exact("good.test".into())),
                ..StringMatcher::default()
            }),
            oid: String::new(),
        }],
        ..trust(&root)
    };
    let server = downstream(common(served(), Some(matching)), false, &s);
    assert!(shake(&server, &client("good.test")).await.0.is_ok());
    let (down, _) = shake(&server, &client("bad.test")).await;
    assert!(down.unwrap_err().contains("verify cert failed: SAN matcher"));
    assert_eq!(s.stats.counter_value("listener.test.ssl.fail_verify_san"), Some(1));

    let revoked = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7_u64),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let crl = CertificateValidationContext {
        crl: inline(&revoked.signed_by(&root).unwrap().pem().unwrap()),
        ..trust(&root)
    };
    let server = downstream(common(served(), Some(crl)), true, &s);
    let (down, _) = shake(&server, &client("good.test")).await;
    assert!(down.unwrap_err().contains("certificate revoked"));
}

#[tokio::test]
async fn certificate_by_server_name() {
    let s = server();
    let root = ca("root");
    let names = ["a.test", "*.b.test"];
    let served = names.map(|name| issue(&root, dns(name))).to_vec();
    let server = downstream(common(served, None), false, &s);
    for (sni, expected) in [("a.test", "a.test"), ("x.b.test", "*.b.test"), ("other.test", "a.test")] {
        let client = upstream(common(vec![], Some(trust(&root))), sni, &s);
        let (down, up) = shake(&server, &client).await;
        assert_eq!(up.unwrap().peer.dns_sans, [expected], "{sni}");
        assert_eq!(down.unwrap().local.dns_sans, [expected], "{sni}");
    }
}

#[tokio::test]
async fn sessions_are_resumed() {
    let s = server();
    let root = ca("root");
    let server = downstream(common(vec![issue(&root, dns("a.test"))], None), false, &s);
    let client = upstream(common(vec![], Some(trust(&root))), "a.test", &s);
    for _ in 0..2 {
        let (down, up) = shake(&server, &client).await;
        assert!(down.is_ok() && up.unwrap().peer_validated);
    }
    assert_eq!(s.stats.counter_value("listener.test.ssl.session_reused"), Some(1));
    assert_eq!(s.stats.counter_value("cluster.test.ssl.session_reused"), Some(1));
}

#[tokio::test]
async fn static_secrets_and_refused_configurations() {
    let s = server();
    let root = ca("root");
    let secret = Secret {
        name: "own".into(),
        r#type: Some(Type::TlsCertificate(issue(&root, dns("a.test")))),
    };
    s.secrets.add_static(secret, &mut BuildCx::new(&s)).unwrap();
    let mut named = common(vec![], None);
    named.tls_certificate_sds_secret_configs = vec![SdsSecretConfig {
        name: "own".into(),
        sds_config: None,
    }];
    let server = downstream(named, false, &s);
    assert!(server.is_ready());
    let listed = certificates(&s);
    assert_eq!(listed.certificates[0].cert_chain[0].serial_number, "07");
    let dump = format!("{:?}", secrets_config_dump(&s));
    assert!(!dump.contains("PRIVATE KEY"));

    let mut mixed = issue(&root, dns("a.test"));
    mixed.private_key = issue(&root, dns("b.test")).private_key;
    let refuse = |common| {
        let proto = DownstreamTlsContext {
            common_tls_context: Some(common),
            ..DownstreamTlsContext::default()
        };
        let built = ServerTls::build(&xds_protos::any::pack(&proto), &mut BuildCx::new(&s));
        built.map(|_| ()).unwrap_err().to_string()
    };
    assert!(refuse(common(vec![mixed], None)).contains("KEY_VALUES_MISMATCH"));
    assert!(refuse(common(vec![], None)).contains("must have a certificate"));
}
