//! TLS 1.3 with raw identity keys on both sides (RFC 7250).
//!
//! Any key is let in: TLS proves that the other end holds the key that it shows, and what the key may do is decided by
//! what is spoken. No resumption: every connection shows its keys.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use podium_control::forming::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::identity::NodeKey;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Machines that know the token.
    Meet,
    /// Members of the store.
    Store,
    /// A node and a voter.
    Node,
    /// A voter and the node of a pod.
    Streams,
    /// A node and a voter: that the node lives. Apart from everything that may hold up a session.
    Beat,
}

impl Protocol {
    const ALL: [Self; 5] = [Self::Meet, Self::Store, Self::Node, Self::Streams, Self::Beat];

    fn name(self) -> &'static [u8] {
        match self {
            Self::Meet => b"podium-meet/1",
            Self::Store => b"podium-store/1",
            Self::Node => b"podium-node/1",
            Self::Streams => b"podium-streams/1",
            Self::Beat => b"podium-beat/1",
        }
    }
}

/// A connection whose other end has proven its key.
#[derive(Debug)]
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) protocol: Protocol,
    /// The other end's key (SubjectPublicKeyInfo, DER).
    pub(crate) key: Vec<u8>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) remote: SocketAddr,
    /// What only the two ends of this session know.
    pub(crate) exported: [u8; 32],
}

/// A connection for what is spoken elsewhere: bytes both ways, and who is on the other end.
#[derive(Debug)]
pub struct Session {
    /// The bytes.
    pub stream: TlsStream<TcpStream>,
    /// The other end's key (SubjectPublicKeyInfo, DER), proven.
    pub key: Vec<u8>,
    /// The name of that key.
    pub fingerprint: Fingerprint,
    /// Where the other end is.
    pub remote: SocketAddr,
}

impl From<Secured> for Session {
    fn from(secured: Secured) -> Self {
        let Secured { stream, key, fingerprint, remote, .. } = secured;
        Self { stream, key, fingerprint, remote }
    }
}

/// Both sides of TLS for one identity.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    client: ClientConfig,
    patience: Duration,
}

impl Tls {
    pub(crate) fn new(key: &NodeKey, patience: Duration) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let any = Arc::new(AnyKey(provider.clone()));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(any.clone())
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key.certified())));
        server.alpn_protocols = Protocol::ALL.iter().map(|it| it.name().to_vec()).collect();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let resolver = AlwaysResolvesClientRawPublicKeys::new(key.certified());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(any)
            .with_client_cert_resolver(Arc::new(resolver));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), client, patience })
    }

    /// Connects; no time limit of its own.
    pub(crate) async fn connect(&self, to: SocketAddr, protocol: Protocol) -> io::Result<Secured> {
        let stream = TcpStream::connect(to).await?;
        self.tune(&stream);
        let mut client = self.client.clone();
        client.alpn_protocols = vec![protocol.name().to_vec()];
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::IpAddress(to.ip().into());
        let stream = connector.connect(name, stream).await?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(protocol.name()) {
            return Err(io::Error::other("it does not speak what was asked for"));
        }
        let exported = session
            .export_keying_material([0; 32], EXPORT_LABEL, None)
            .map_err(io::Error::other)?;
        let key = shown(session.peer_certificates())?;
        let fingerprint = Fingerprint::of(&key);
        let stream = TlsStream::Client(stream);
        Ok(Secured { stream, protocol, key, fingerprint, remote: to, exported })
    }

    /// The server's side; no time limit of its own.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> io::Result<Secured> {
        self.tune(&stream);
        let stream = self.acceptor.accept(stream).await?;
        let session = stream.get_ref().1;
        let spoken = session.alpn_protocol();
        let protocol = Protocol::ALL.into_iter().find(|it| spoken == Some(it.name()));
        let protocol =
            protocol.ok_or_else(|| io::Error::other("it does not say what it speaks"))?;
        let exported = session
            .export_keying_material([0; 32], EXPORT_LABEL, None)
            .map_err(io::Error::other)?;
        let key = shown(session.peer_certificates())?;
        let fingerprint = Fingerprint::of(&key);
        let stream = TlsStream::Server(stream);
        Ok(Secured { stream, protocol, key, fingerprint, remote, exported })
    }

    /// A peer that lost its power says nothing: the kernel is to notice, and to give up what is unacknowledged.
    fn tune(&self, stream: &TcpStream) {
        let socket = SockRef::from(stream);
        let keepalive = TcpKeepalive::new()
            .with_time(self.patience)
            .with_interval(self.patience / 2)
            .with_retries(3);
        // Without these options a broken connection is only found later.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(self.patience * 2));
    }
}

/// RFC 5705, 4: labels of one's own begin so.
const EXPORT_LABEL: &[u8] = b"EXPORTER-podium-peer-1";

fn shown(keys: Option<&[CertificateDer<'_>]>) -> io::Result<Vec<u8>> {
    let key = keys.and_then(<[_]>::first).map(|key| key.to_vec());
    key.ok_or_else(|| io::Error::other("it shows no key"))
}

/// Lets every key in whose holder signs the handshake.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

impl AnyKey {
    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }

    fn never() -> rustls::Error {
        rustls::Error::General("TLS 1.2 is not spoken".to_owned())
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _key: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _key: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Self::never())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
