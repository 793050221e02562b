//! The cluster's certificate authority: made once, kept in the store outside the object API, used by voters only.
//!
//! Voters issue certificates from it: for their own API ([`server`]), and for nodes as clients ([`node`]). Both are renewed by
//! themselves ([`renewal`]). Its dates, and the beginning of what it issues, bind nobody: a voter whose clock is wrong must
//! not make certificates that others refuse.

mod node;
pub(crate) mod renewal;
mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use podium_api::auth;
use podium_store::{
    Guard, Operation, Outcome, StoreError, StoreHandle, Transaction, TransactionId, View,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime};

pub(crate) use node::LIFE as NODE_LIFE;
pub(crate) use server::{ServerNames, Shown};

use server::Issued;

/// Outside of `/registry/`: no object of the API is there.
const KEY: &str = "/podium/authority";
/// Until the store has a leader.
const RETRY: Duration = Duration::from_millis(100);

/// The cluster's certificate authority.
pub(crate) struct Authority {
    key: KeyPair,
    certificate_pem: String,
}

/// As it is kept: JSON, whose fields may grow.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    certificate: String,
}

impl Authority {
    /// The cluster's authority, which the first voter to ask makes. Waits for a leader if this replica does not have it.
    pub(crate) async fn obtain(store: &dyn StoreHandle) -> anyhow::Result<Self> {
        loop {
            if let Some(authority) = Self::of(&store.local())? {
                return Ok(authority);
            }
            match Self::ensure(store).await {
                Ok(authority) => return authority,
                Err(StoreError::Stopped { reason }) => bail!("the store has stopped: {reason}"),
                Err(error) => tracing::debug!(%error, "the cluster's authority is not known yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn of(view: &View) -> anyhow::Result<Option<Self>> {
        view.get(KEY).map(|record| Self::read(&record.value)).transpose()
    }

    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let kept: Kept = serde_json::from_slice(bytes).context("the cluster's authority")?;
        let key = KeyPair::from_pem(&kept.key).context("the key of the cluster's authority")?;
        Ok(Self { key, certificate_pem: kept.certificate })
    }

    /// There is one for ever: whoever comes second takes the first's.
    async fn ensure(store: &dyn StoreHandle) -> Result<anyhow::Result<Self>, StoreError> {
        match Self::of(&store.read().await?) {
            Ok(None) => {}
            Ok(Some(authority)) => return Ok(Ok(authority)),
            Err(error) => return Ok(Err(error)),
        }
        let made = Self::make().and_then(|made| Ok((serde_json::to_vec(&made.kept())?, made)));
        let (bytes, made) = match made {
            Ok(made) => made,
            Err(error) => return Ok(Err(error)),
        };
        let mut id = [0; 16];
        if let Err(error) = getrandom::fill(&mut id) {
            return Ok(Err(error.into()));
        }
        let transaction = Transaction {
            id: TransactionId(u128::from_le_bytes(id)),
            guards: vec![Guard::Absent(KEY.into())],
            operations: vec![Operation::Put { key: KEY.into(), value: bytes.into() }],
        };
        match store.submit(transaction).await? {
            Outcome::Committed { .. } => Ok(Ok(made)),
            Outcome::Refused { current: Some(record), .. } => Ok(Self::read(&record.value)),
            Outcome::Refused { current: None, .. } => Err(StoreError::Timeout),
        }
    }

    fn make() -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name.push(DnType::CommonName, "podium-cluster");
        (parameters.not_before, parameters.not_after) = (beginning()?, never()?);
        let certificate_pem = parameters.self_signed(&key)?.pem();
        Ok(Self { key, certificate_pem })
    }

    fn kept(&self) -> Kept {
        Kept { key: self.key.serialize_pem(), certificate: self.certificate_pem.clone() }
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

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key)
    }

    /// A certificate for a node's API, by which the node is also a client of others.
    pub(crate) fn issue(&self, names: &ServerNames) -> anyhow::Result<Issued> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(names.dns()?)?;
        parameters.subject_alt_names.extend(names.addresses().into_iter().map(SanType::IpAddress));
        parameters.distinguished_name = subject(&names.node);
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = OffsetDateTime::now_utc();
        (parameters.not_before, parameters.not_after) = (beginning()?, now + server::LIFE);
        let certificate = parameters.signed_by(&key, &self.issuer()?)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_ecdsa_type(&key)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Issued { certified, until: parameters.not_after })
    }
}

/// As the API's authorizer knows a node.
fn subject(node: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, format!("{}{node}", auth::NODE_PREFIX));
    subject.push(DnType::OrganizationName, auth::NODES);
    subject
}

/// Earlier than any machine of the cluster was made.
fn beginning() -> anyhow::Result<OffsetDateTime> {
    Ok(Date::from_calendar_date(2020, Month::January, 1)?.midnight().assume_utc())
}

/// RFC 5280, 4.1.2.5: no date at which it is over.
fn never() -> anyhow::Result<OffsetDateTime> {
    let day = Date::from_calendar_date(9999, Month::December, 31)?;
    Ok(day.with_hms(23, 59, 59)?.assume_utc())
}

#[cfg(test)]
mod tests {
    use podium_store::EphemeralStore;

    use super::*;

    #[tokio::test]
    async fn a_cluster_has_one_authority_for_ever() {
        let store = EphemeralStore::default();
        let (one, two) = tokio::join!(Authority::obtain(&store), Authority::obtain(&store));
        let (one, two) = (one.expect("one"), two.expect("two"));
        assert_eq!(one.pem(), two.pem());
        assert_eq!(Authority::obtain(&store).await.expect("three").pem(), one.pem());
        assert_eq!(store.local().range("/registry/").count(), 0);
    }
}
