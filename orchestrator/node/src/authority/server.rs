//! The certificate that a voter shows as the API's server: for every way to reach it, renewed by itself.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::bail;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::Authority;
use super::renewal::Renewal;

/// Of a server's certificate.
pub(super) const LIFE: time::Duration = time::Duration::days(365);
/// Clocks jump; looking costs nothing.
const LOOK: Duration = Duration::from_secs(60);

/// A certificate with its key.
pub(crate) struct Issued {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) until: OffsetDateTime,
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
        let renewal = Renewal::of(LIFE);
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
                if wanted == known && !renewal.is_due(issued.until, OffsetDateTime::now_utc()) {
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
    pub(super) fn dns(&self) -> anyhow::Result<Vec<String>> {
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

    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let fixed = [IpAddr::V4(self.service), IpAddr::V4(Ipv4Addr::LOCALHOST)];
        self.machine.iter().chain(&self.other_addresses).copied().chain(fixed).collect()
    }
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    use super::*;

    fn names() -> ServerNames {
        ServerNames {
            node: "n1".to_owned(),
            machine: vec![IpAddr::from([10, 77, 0, 10])],
            others: vec!["n2".to_owned()],
            other_addresses: vec![IpAddr::from([10, 77, 0, 11])],
            service: Ipv4Addr::new(10, 96, 0, 1),
        }
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
