//! What makes this machine itself, and the cluster one: the member's id, the cluster's authority, the server's certificate.
//!
//! All of it is on STATE, outside the object API. The member's id is random and never used again; the authority is made by
//! the machine that forms the cluster. The server's certificate is issued anew at every start, for the names and addresses
//! that the machine has then.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use podium_api::auth::certificate::AdminKey;
use podium_api::http::TlsParts;
use podium_store::MemberId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::files;

const AUTHORITY_YEARS: i64 = 10;
const SERVER_YEARS: i64 = 1;
/// Machines' clocks differ, and one that starts may be a little behind.
const BEFORE: time::Duration = time::Duration::days(1);

/// What is on the disk.
pub(crate) struct Identity {
    /// This member of the store.
    pub(crate) member: MemberId,
    /// The cluster's authority.
    pub(crate) authority: Authority,
}

/// The cluster's certificate authority.
pub(crate) struct Authority {
    key: KeyPair,
    certificate_pem: String,
}

impl Identity {
    /// Reads the identity in `folder`, or makes one.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let member = open_member(&folder.join("member"))?;
        let authority =
            Authority::open(&folder.join("authority.key"), &folder.join("authority.crt"))?;
        Ok(Self { member, authority })
    }
}

fn open_member(path: &Path) -> anyhow::Result<MemberId> {
    if let Some(bytes) = files::read(path).with_context(|| path.display().to_string())? {
        let text = String::from_utf8_lossy(&bytes);
        let number = u64::from_str_radix(text.trim(), 16);
        return Ok(MemberId(
            number.with_context(|| format!("{} holds no member's id", path.display()))?,
        ));
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    let member = MemberId(u64::from_le_bytes(bytes));
    files::replace(path, format!("{member}\n").as_bytes())
        .with_context(|| path.display().to_string())?;
    Ok(member)
}

impl Authority {
    fn open(key_file: &PathBuf, certificate_file: &PathBuf) -> anyhow::Result<Self> {
        let read = |path: &PathBuf| files::read(path).with_context(|| path.display().to_string());
        if let (Some(key), Some(certificate)) = (read(key_file)?, read(certificate_file)?) {
            let key = KeyPair::from_pem(std::str::from_utf8(&key)?)
                .context("the cluster authority's key")?;
            return Ok(Self { key, certificate_pem: String::from_utf8(certificate)? });
        }
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "podium-cluster");
        let now = time::OffsetDateTime::now_utc();
        parameters.not_before = now - BEFORE;
        parameters.not_after = now + time::Duration::days(365 * AUTHORITY_YEARS);
        let certificate_pem = parameters.self_signed(&key)?.pem();
        files::replace(certificate_file, certificate_pem.as_bytes())?;
        // Last: an authority is whole when its key is there.
        files::replace(key_file, key.serialize_pem().as_bytes())?;
        Ok(Self { key, certificate_pem })
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate.
    pub(crate) fn der(&self) -> anyhow::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .context("the cluster authority's certificate")
    }

    /// What the API's server shows and trusts: a certificate for this node's names and addresses.
    pub(crate) fn server(
        &self,
        names: &ServerNames<'_>,
        admin: AdminKey,
    ) -> anyhow::Result<TlsParts> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.dns()?)?;
        parameters.subject_alt_names.extend(names.addresses().into_iter().map(SanType::IpAddress));
        parameters
            .distinguished_name
            .push(DnType::CommonName, format!("system:node:{}", names.node));
        parameters.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = time::OffsetDateTime::now_utc();
        parameters.not_before = now - BEFORE;
        parameters.not_after = now + time::Duration::days(365 * SERVER_YEARS);
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key)?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        Ok(TlsParts {
            authority: self.der()?,
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            admin,
        })
    }
}

/// The names by which clients reach this node's API.
pub(crate) struct ServerNames<'a> {
    /// The node's name.
    pub(crate) node: &'a str,
    /// The machine's own addresses.
    pub(crate) machine: &'a [IpAddr],
    /// The address of `default/kubernetes`.
    pub(crate) service: Ipv4Addr,
}

impl ServerNames<'_> {
    fn dns(&self) -> anyhow::Result<Vec<String>> {
        if self.node.is_empty() {
            bail!("the machine has no name");
        }
        let service = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        Ok(service.into_iter().chain(["localhost", self.node]).map(str::to_owned).collect())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let fixed = [IpAddr::V4(self.service), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        self.machine.iter().copied().chain(fixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Identity::open(folder.path()).expect("made");
        let read = Identity::open(folder.path()).expect("read");
        assert_eq!(made.member, read.member);
        assert_eq!(made.authority.pem(), read.authority.pem());
    }

    #[test]
    fn a_damaged_identity_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        Identity::open(folder.path()).expect("made");
        std::fs::write(folder.path().join("member"), "nonsense").expect("write");
        let error = Identity::open(folder.path()).err().expect("no identity");
        assert!(error.to_string().contains("member"), "{error:#}");
    }

    #[test]
    fn the_server_is_certified_for_every_way_to_reach_it() {
        use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
        let folder = tempfile::tempdir().expect("a folder");
        let identity = Identity::open(folder.path()).expect("made");
        let machine = [IpAddr::from([10, 77, 0, 10])];
        let names =
            ServerNames { node: "n1", machine: &machine, service: Ipv4Addr::new(10, 96, 0, 1) };
        let parts = identity.authority.server(&names, AdminKey(Vec::new())).expect("a certificate");
        let (_, certificate) = X509Certificate::from_der(&parts.chain[0]).expect("a certificate");
        let san = certificate.subject_alternative_name().expect("names").expect("names");
        let addresses = san.value.general_names.iter().filter_map(|name| match name {
            GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        let addresses: Vec<Vec<u8>> = addresses.collect();
        for address in [[10, 77, 0, 10], [10, 96, 0, 1], [127, 0, 0, 1]] {
            assert!(addresses.contains(&address.to_vec()), "{address:?}");
        }
    }
}
