//! HTTP GET as probes and hooks need it: one request, only the status counts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use podium_types::k8s::api::core::v1::{Container, HTTPGetAction};
use podium_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
};

/// A request that is ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    tls: bool,
    address: SocketAddr,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
}

impl Request {
    /// What an action of the spec asks for.
    pub(crate) fn from_action(
        action: &HTTPGetAction,
        container: &Container,
        pod_address: Option<IpAddr>,
    ) -> Result<Self, String> {
        let port = port_number(&action.port, container).ok_or("the port is not known")?;
        let named = action.host.as_deref().filter(|host| !host.is_empty());
        let address = match named {
            Some(host) => host.parse().map_err(|_| format!("host {host} is not an address"))?,
            None => pod_address.ok_or("the pod has no address")?,
        };
        let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let address = SocketAddr::new(address, port);
        let headers: Vec<_> = action
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.to_lowercase(), header.value.clone()))
            .collect();
        let host = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.clone());
        Ok(Self {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            address,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            host: host.unwrap_or_else(|| address.to_string()),
            headers: headers.into_iter().filter(|(name, _)| name != "host").collect(),
        })
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.address, self.path)
    }
}

/// Sends the request and returns the status; an error is in the words that kubelet has for it.
pub(crate) async fn get(request: &Request, limit: Duration) -> Result<u16, String> {
    let answer = tokio::time::timeout(limit, send(request)).await;
    let wrap = |cause: String| format!("Get \"{}\": {cause}", request.url());
    match answer {
        Ok(result) => result.map_err(wrap),
        Err(_) => Err(wrap(
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned(),
        )),
    }
}

/// The port that an action names by number or by the name of a container's port.
pub(crate) fn port_number(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .and_then(|port| u16::try_from(port.container_port).ok())
            .or_else(|| name.parse().ok()),
    }
}

/// A failed connection as Go prints it.
pub(crate) fn dial_error(address: SocketAddr, error: &std::io::Error) -> String {
    let cause = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {cause}")
}

async fn send(request: &Request) -> Result<u16, String> {
    let stream = TcpStream::connect(request.address)
        .await
        .map_err(|error| dial_error(request.address, &error))?;
    if request.tls {
        let name = ServerName::IpAddress(request.address.ip().into());
        let connector = TlsConnector::from(tls_config().map_err(|error| error.to_string())?);
        let stream =
            connector.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
        exchange(request, stream).await
    } else {
        exchange(request, stream).await
    }
}

async fn exchange(
    request: &Request,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<u16, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut builder = hyper::Request::get(&request.path)
        .header("host", &request.host)
        .header("connection", "close")
        .header("accept", "*/*");
    if !request.headers.iter().any(|(name, _)| name == "user-agent") {
        builder = builder.header("user-agent", "kube-probe/1.37");
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let message = builder.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(message).await.map(|response| response.status().as_u16());
    driver.abort();
    answer.map_err(|error| error.to_string())
}

/// TLS as probes use it: the certificate is not looked at, since what is asked is whether the server answers.
fn tls_config() -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
