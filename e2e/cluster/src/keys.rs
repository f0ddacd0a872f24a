//! Keys and certificates of a cluster, and kubeconfigs that hold them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

/// The certificate authority in `DIR/ca.{crt,key}`; it signs everything of its cluster.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority of a folder, or makes one together with the keys for ServiceAccount tokens.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let key_file = dir.join("ca.key");
        let key = if key_file.exists() {
            KeyPair::from_pem(&read(&key_file)?)?
        } else {
            let key = KeyPair::generate()?;
            write(&key_file, &key.serialize_pem())?;
            write(&dir.join("ca.crt"), &Self::params().self_signed(&key)?.pem())?;
            let tokens = KeyPair::generate()?;
            write(&dir.join("sa.key"), &tokens.serialize_pem())?;
            write(&dir.join("sa.pub"), &tokens.public_key_pem())?;
            key
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            issuer: Issuer::new(Self::params(), key),
        })
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = name("llmd-e2e", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
    }

    /// A path in the folder.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes `FILE.crt` and `FILE.key` for clients and servers, unless they are there.
    pub(crate) fn sign(
        &self,
        file: &str,
        common_name: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> anyhow::Result<()> {
        let certificate = self.dir.join(format!("{file}.crt"));
        if certificate.exists() {
            return Ok(());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name, group);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        write(&self.dir.join(format!("{file}.key")), &key.serialize_pem())?;
        write(&certificate, &signed.pem())
    }

    /// Writes `FILE.conf`, a kubeconfig for the certificate `FILE`, and returns its path.
    pub(crate) fn kubeconfig(&self, file: &str, server: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(format!("{file}.conf"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {
                "server": server,
                "certificate-authority": self.file("ca.crt"),
            }}],
            "users": [{"name": file, "user": {
                "client-certificate": self.file(&format!("{file}.crt")),
                "client-key": self.file(&format!("{file}.key")),
            }}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": file}}],
            "current-context": "e2e",
        });
        write(&path, &serde_yaml::to_string(&config)?)?;
        Ok(path)
    }
}

fn name(common_name: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
