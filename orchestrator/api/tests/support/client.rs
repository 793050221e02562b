//! A server on 127.0.0.1 over a store of one member on real files, and clients of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use podium_api::http::{Server, serve};
use podium_api::pipeline::Config;
use podium_api::seams::{SystemClock, SystemIds};
use podium_api::streams::PodStreams;
use podium_api::{Pipeline, bootstrap};
use podium_store::disk::os::OsDisk;
use podium_store::{Alone, Member, MemberId, Store, StoreHandle, TokioRuntime};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::{Identity, Pki};

/// Generous: only a hang takes this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A running server. Its files go with it.
pub struct Running {
    pub pki: Pki,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub async fn start(streams: Arc<dyn PodStreams>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let me = MemberId(1);
        let disk = Arc::new(OsDisk::open(folder.path().join("store")).expect("a disk"));
        let config = podium_store::Config::new(me);
        let store =
            Store::<TokioRuntime>::open(config, disk, Arc::new(Alone)).await.expect("a store");
        store.initialise(vec![Member { id: me, public_key: Vec::new() }]).await.expect("new");
        let store: Arc<dyn StoreHandle> = Arc::new(store);
        let (clock, ids) = (Arc::new(SystemClock::default()), Arc::new(SystemIds));
        let pipeline = Pipeline::new(store, clock, ids, Config::default());
        bootstrap::ensure(&pipeline, &[[127, 0, 0, 1].into()], 6443).await.expect("first objects");

        let pki = Pki::new();
        let acceptor = TlsAcceptor::from(Arc::new(pki.server_config()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let (server, admin) = (Server::new(pipeline, streams), pki.admin_key());
        let served = tokio::spawn(serve(listener, acceptor, server, admin, async {
            let _ = stopped.await;
        }));
        Self { pki, address, stop: Some(stop), served, _folder: folder }
    }

    /// Stops the server and waits until it has closed.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.served.await.expect("it ends in order");
    }

    pub async fn connect(
        &self,
        identity: Option<Identity>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.pki.authority()).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let key = identity.private_key();
                config.with_client_auth_cert(vec![identity.certificate], key).expect("a key")
            }
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// The answer to one request of somebody.
    pub async fn send(
        &self,
        identity: Option<Identity>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = self.connect(identity).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    /// The answer to a request of the administrator.
    pub async fn admin(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.send(Some(self.pki.self_signed(true)), request).await.expect("an answer")
    }

    /// GET with these headers; code, headers and text.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
        self.call("GET", path, headers, "").await
    }

    /// A request with a body; code, headers and text.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, HeaderMap, String) {
        let answer = self.admin(request(method, path, headers, body)).await;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(bytes.to_vec()).expect("text"))
    }

    /// POST of an object.
    pub async fn create(&self, path: &str, object: &Value) -> Value {
        let (code, _, text) = self.call("POST", path, &[], &object.to_string()).await;
        assert_eq!(code, 201, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }
}

pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request")
}

/// The lines of an answer that goes on.
pub struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    pub fn of(answer: Response<Incoming>) -> Self {
        assert_eq!(answer.status(), 200);
        Self { body: answer.into_body(), rest: Vec::new() }
    }

    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("in time");
            let frame = frame?.expect("no error");
            self.rest.extend_from_slice(frame.data_ref()?);
        }
    }
}
