//! Accepting connections, and finding out who is on the other end.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::ResolvesServerCert;

use super::Server;
use crate::auth::certificate::{AdminKey, CertificateError, ClientVerifier, user_of};

/// A client that has not said who it is by then is none.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers under way get when the server closes; longer than any but streams, which are told to end.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(5);
/// After an error of accept (no descriptors, mostly) there is nothing to do but wait a little.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What one client may have in flight on one HTTP/2 connection: kubectl and informers use one stream per watch.
const MOST_STREAMS: u32 = 250;
/// What one stream may send ahead: bodies are small, memory is not ours to lend.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Why a server's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate of the cluster's CA.
    #[error("clients cannot be verified")]
    Clients(#[source] CertificateError),
    /// The certificate or the key of the server.
    #[error("the server's certificate and key cannot be used")]
    Own(#[source] rustls::Error),
}

/// What a server needs for TLS.
pub struct TlsParts {
    /// The certificate of the cluster's CA.
    pub authority: CertificateDer<'static>,
    /// The server's certificate and key: asked at every handshake, so that they may be renewed.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// The administrator's key.
    pub admin: AdminKey,
}

/// The TLS of the API: HTTP/2 and HTTP/1.1, clients by certificate or anonymous.
///
/// # Errors
/// When the CA's certificate cannot be used.
pub fn tls_config(parts: TlsParts) -> Result<ServerConfig, ServeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = ClientVerifier::new(parts.authority, parts.admin, provider.clone())
        .map_err(ServeError::Clients)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Own)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(parts.certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves connections until `shutdown`, then closes: streams end, answers under way are finished.
///
/// `acceptor` must verify clients with a [`ClientVerifier`] for the same administrator's key, as [`tls_config`] does.
pub async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    server: Arc<Server>,
    admin: AdminKey,
    shutdown: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let admin = Arc::new(admin);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let watcher = graceful.watcher();
                let (acceptor, server, admin) = (acceptor.clone(), server.clone(), admin.clone());
                tokio::spawn(async move {
                    connection(stream, &acceptor, server, &admin, watcher).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    server.close_streams();
    if timeout(CLOSING_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("connections were still open at the end");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    server: Arc<Server>,
    admin: &AdminKey,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Events are small and wanted now. Without the option they only come later.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let user = Arc::new(user_of(stream.get_ref().1.peer_certificates(), admin));
    let service = service_fn(move |request| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(server.handle(request, &user).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let connection = watcher.watch(connection.into_owned());
    if let Err(error) = connection.await {
        tracing::debug!(error, "a connection ended");
    }
}
