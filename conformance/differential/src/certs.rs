//! The certificates cases may name, made afresh for each run and written as PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Leaves: file name, issuing authority, subject, subject alternative names.
const LEAVES: &[(&str, &str, &str, &[&str])] = &[
    (
        "server",
        "ca",
        "server",
        &["example.test", "*.example.test", "127.0.0.1"],
    ),
    ("other", "ca", "other", &["other.test"]),
    (
        "spiffe",
        "ca",
        "spiffe",
        &["spiffe://cluster.local/ns/default/sa/backend"],
    ),
    (
        "client",
        "ca",
        "client",
        &["client.test", "spiffe://cluster.local/ns/default/sa/client"],
    ),
    ("alice", "ca", "alice", &["spiffe://cluster.local/ns/default/sa/alice"]),
    ("bob", "ca", "bob", &["spiffe://cluster.local/ns/default/sa/bob"]),
    (
        "foreign",
        "ca",
        "foreign",
        &["spiffe://elsewhere.test/ns/default/sa/alice"],
    ),
    (
        "expiredalice",
        "ca",
        "alice",
        &["spiffe://cluster.local/ns/default/sa/alice"],
    ),
    ("expired", "ca", "expired", &["example.test"]),
    ("future", "ca", "future", &["example.test"]),
    ("revoked", "ca", "revoked", &["example.test"]),
    ("wrongusage", "ca", "wrongusage", &["example.test"]),
    ("stranger", "otherca", "stranger", &["client.test"]),
];

/// The serial number of `revoked`, which `ca.crl` lists.
const REVOKED: u64 = 4711;

/// The folder with `NAME.pem` and `NAME.key` of each leaf and authority.
pub struct Certs {
    pub dir: PathBuf,
}

impl Certs {
    /// Makes `ca`, `otherca` with their CRLs, and all leaves below `dir`.
    pub fn make(dir: &Path) -> Result<Certs> {
        std::fs::create_dir_all(dir)?;
        let certs = Certs { dir: dir.to_owned() };
        for ca in ["ca", "otherca"] {
            let issuer = certs.authority(ca)?;
            for (name, by, subject, sans) in LEAVES.iter().filter(|leaf| leaf.1 == ca) {
                certs
                    .leaf(&issuer, name, subject, sans)
                    .with_context(|| format!("{name} by {by}"))?;
            }
            certs.revocations(&issuer, ca)?;
        }
        Ok(certs)
    }

    fn authority(&self, name: &str) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        self.write(name, &params.self_signed(&key)?.pem(), &key)?;
        Ok(Issuer::new(params, key))
    }

    fn leaf(&self, issuer: &Issuer<'_, KeyPair>, name: &str, subject: &str, sans: &[&str]) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match name {
            "expired" | "expiredalice" => params.not_after = date_time_ymd(2020, 1, 1),
            "future" => params.not_before = date_time_ymd(2090, 1, 1),
            "revoked" => params.serial_number = Some(SerialNumber::from(REVOKED)),
            "wrongusage" => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
            _ => {}
        }
        for san in sans {
            params.subject_alt_names.push(if san.contains("://") {
                SanType::URI((*san).try_into()?)
            } else if let Ok(ip) = san.parse() {
                SanType::IpAddress(ip)
            } else {
                SanType::DnsName((*san).try_into()?)
            });
        }
        self.write(name, &params.signed_by(&key, issuer)?.pem(), &key)
    }

    /// `NAME.crl`, in which `ca` revokes the certificate of that name.
    fn revocations(&self, issuer: &Issuer<'_, KeyPair>, name: &str) -> Result<()> {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(self.dir.join(format!("{name}.crl")), list.signed_by(issuer)?.pem()?)?;
        Ok(())
    }

    fn write(&self, name: &str, pem: &str, key: &KeyPair) -> Result<()> {
        std::fs::write(self.dir.join(format!("{name}.pem")), pem)?;
        std::fs::write(self.dir.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Certificate chain and key of `name`.
    pub fn pair(&self, name: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let cert = CertificateDer::from_pem_file(self.dir.join(format!("{name}.pem")))
            .with_context(|| format!("no certificate {name:?}"))?;
        let key = PrivateKeyDer::from_pem_file(self.dir.join(format!("{name}.key")))?;
        Ok((vec![cert], key))
    }

    /// Trust in `ca` alone.
    pub fn roots(&self) -> Result<Arc<rustls::RootCertStore>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.dir.join("ca.pem"))?)?;
        Ok(Arc::new(roots))
    }
}
