//! The cluster's certificate authority: made once, kept in the store outside the object API, used by voters only.
//!
//! Voters issue certificates from it for their own API and renew them by themselves. Its dates, and the beginning of what it
//! issues, bind nobody: a voter whose clock is wrong must not make certificates that others refuse.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use podium_store::{
    Guard, Operation, Outcome, StoreError, StoreHandle, Transaction, TransactionId, View,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime};
use tokio::sync::watch;

/// Outside of `/registry/`: no object of the API is there.
const KEY: &str = "/podium/authority";
/// Of a server's certificate.
const SERVER_LIFE: time::Duration = time::Duration::days(365);
/// What is left of it when it is renewed: a third.
const RENEW_BEFORE: time::Duration = time::Duration::days(122);
/// Clocks jump; looking costs nothing.
const LOOK: Duration = Duration::from_secs(60);
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

    /// A certificate for a node's API, by which the node is also a client of others.
    pub(crate) fn issue(&self, names: &ServerNames) -> anyhow::Result<Issued> {
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
        let now = OffsetDateTime::now_utc();
        (parameters.not_before, parameters.not_after) = (beginning()?, now + SERVER_LIFE);
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, &self.key)?;
        let certificate = parameters.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_ecdsa_type(&key)?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        Ok(Issued { certified, until: parameters.not_after })
    }
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

/// A certificate with its key.
pub(crate) struct Issued {
    certified: Arc<CertifiedKey>,
    until: OffsetDateTime,
}

impl Issued {
    /// Whether it is time for another.
    fn is_due(&self, now: OffsetDateTime) -> bool {
        let left = self.until - now;
        left < RENEW_BEFORE || left > SERVER_LIFE
    }
}

/// The certificate that this node shows now.
#[derive(Clone)]
pub(crate) struct Shown(Arc<RwLock<Arc<CertifiedKey>>>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Shown")
    }
}

impl Shown {
    /// Issues the first certificate, and from now on another whenever it ages or its names change.
    pub(crate) fn start(
        authority: Arc<Authority>,
        mut names: watch::Receiver<ServerNames>,
    ) -> anyhow::Result<Self> {
        let mut known = names.borrow_and_update().clone();
        let mut issued = authority.issue(&known)?;
        let shown = Self(Arc::new(RwLock::new(issued.certified.clone())));
        let renewed = shown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    changed = names.changed() => if changed.is_err() { return },
                }
                let wanted = names.borrow_and_update().clone();
                if wanted == known && !issued.is_due(OffsetDateTime::now_utc()) {
                    continue;
                }
                match authority.issue(&wanted) {
                    Ok(new) => {
                        *renewed.0.write().unwrap_or_else(PoisonError::into_inner) =
                            new.certified.clone();
                        (known, issued) = (wanted, new);
                    }
                    Err(error) => {
                        tracing::error!("cannot renew the server's certificate: {error:#}");
                    }
                }
            }
        });
        Ok(shown)
    }

    /// The certificate alone.
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.cert.first().cloned().unwrap_or_else(|| CertificateDer::from(Vec::new()))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The names by which clients reach this node's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerNames {
    /// The node's name.
    pub(crate) node: String,
    /// The machine's own addresses.
    pub(crate) machine: Vec<IpAddr>,
    /// Names and addresses of the cluster's other nodes, which pass connections on to this one.
    pub(crate) others: Vec<String>,
    /// See `others`.
    pub(crate) other_addresses: Vec<IpAddr>,
    /// The address of `default/kubernetes`.
    pub(crate) service: Ipv4Addr,
}

impl ServerNames {
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
        let own = service.into_iter().chain(["localhost", &self.node]).map(str::to_owned);
        Ok(own.chain(self.others.iter().cloned()).collect())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let fixed = [IpAddr::V4(self.service), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        self.machine.iter().chain(&self.other_addresses).copied().chain(fixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_store::EphemeralStore;
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    fn names() -> ServerNames {
        ServerNames {
            node: "n1".to_owned(),
            machine: vec![IpAddr::from([10, 77, 0, 10])],
            others: vec!["n2".to_owned()],
            other_addresses: vec![IpAddr::from([10, 77, 0, 11])],
            service: Ipv4Addr::new(10, 96, 0, 1),
        }
    }

    #[tokio::test]
    async fn a_cluster_has_one_authority_for_ever() {
        let store = EphemeralStore::default();
        let (one, two) = tokio::join!(Authority::obtain(&store), Authority::obtain(&store));
        let (one, two) = (one.expect("one"), two.expect("two"));
        assert_eq!(one.pem(), two.pem());
        assert_eq!(Authority::obtain(&store).await.expect("three").pem(), one.pem());
        assert_eq!(store.local().range("/registry/").count(), 0);
    }

    #[test]
    fn the_server_is_certified_for_every_way_to_reach_it() {
        let issued = Authority::make().expect("made").issue(&names()).expect("issued");
        let (_, certificate) = X509Certificate::from_der(&issued.certified.cert[0]).expect("it");
        let san = certificate.subject_alternative_name().expect("names").expect("names");
        let addresses = san.value.general_names.iter().filter_map(|name| match name {
            GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
        let addresses: Vec<Vec<u8>> = addresses.collect();
        for address in [[10, 77, 0, 10], [10, 77, 0, 11], [10, 96, 0, 1], [127, 0, 0, 1]] {
            assert!(addresses.contains(&address.to_vec()), "{address:?}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_is_left_or_the_clock_was_wrong() {
        let issued = Authority::make().expect("made").issue(&names()).expect("issued");
        let now = OffsetDateTime::now_utc();
        let days = time::Duration::days;
        for (at, due) in [(0, false), (240, false), (244, true), (400, true), (-30, true)] {
            assert_eq!(issued.is_due(now + days(at)), due, "{at}");
        }
    }

    #[tokio::test]
    async fn new_names_get_a_new_certificate() {
        let authority = Arc::new(Authority::make().expect("made"));
        let (sender, receiver) = watch::channel(names());
        let shown = Shown::start(authority, receiver).expect("issued");
        let before = shown.certificate();
        sender.send_modify(|names| names.others.push("n3".to_owned()));
        let renewed = async {
            while shown.certificate() == before {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("renewed");
    }
}
