//! A registry over TLS in this process: content by path, and whatever misbehaviour a test asks for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use podium_images::Digest;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The registry.
pub(crate) struct TestRegistry {
    pub(crate) address: SocketAddr,
    /// The authority that its certificate is from.
    pub(crate) ca: String,
    pub(crate) state: Arc<State>,
}

#[derive(Default)]
pub(crate) struct State {
    content: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: Mutex<Vec<String>>,
    pub(crate) behaviour: Mutex<Behaviour>,
}

/// How it misbehaves, or whom it lets in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// `name:password`
    pub(crate) basic: Option<String>,
    /// Hands tokens out to these, and lets in only who has one.
    pub(crate) token_for: Option<String>,
    /// Breaks so many blob downloads off in the middle.
    pub(crate) break_off: u32,
    /// Ignores that only a part was asked for.
    pub(crate) whole_only: bool,
    /// Answers so many requests with 503.
    pub(crate) busy: u32,
    /// Answers everything with this status.
    pub(crate) always: Option<u16>,
}

/// An image that a test makes up.
#[derive(Clone, Default)]
pub(crate) struct TestImage {
    pub(crate) layers: Vec<Vec<u8>>,
    /// Digests of the plain archives; what the configuration says about them.
    pub(crate) diff_ids: Vec<String>,
    pub(crate) config: serde_json::Value,
}

impl TestImage {
    pub(crate) fn with_layer(mut self, plain: &[u8], packed: Vec<u8>) -> Self {
        self.diff_ids.push(Digest::of(plain).to_string());
        self.layers.push(packed);
        self
    }
}

impl TestRegistry {
    pub(crate) async fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut authority = CertificateParams::default();
        // Authorities of one name would differ in their keys only, which a verifier tells as a bad signature.
        authority.distinguished_name.push(
            rcgen::DnType::CommonName,
            format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed)),
        );
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate =
            CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&state),
            address,
        ));
        Self { address, ca: authority.pem(), state }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn put(&self, path: &str, content: Vec<u8>) {
        self.state.content.lock().unwrap().insert(path.to_owned(), content);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.behaviour.lock().unwrap());
    }

    /// Paths asked for since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.state.requests.lock().unwrap())
    }

    /// Publishes an image and returns its manifest.
    pub(crate) fn publish(&self, repository: &str, tag: &str, image: &TestImage) -> Vec<u8> {
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": image.config,
            "rootfs": { "type": "layers", "diff_ids": image.diff_ids },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(bytes), "size": bytes.len() });
        let layers: Vec<_> =
            image.layers.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect();
        let manifest = json!({ "schemaVersion": 2, "config": descriptor("config.v1+json", &config), "layers": layers });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        for blob in image.layers.iter().chain([&config]) {
            self.put(&format!("/v2/{repository}/blobs/{}", Digest::of(blob)), blob.clone());
        }
        self.put(
            &format!("/v2/{repository}/manifests/{}", Digest::of(&manifest)),
            manifest.clone(),
        );
        self.put(&format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        manifest
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<State>,
    address: SocketAddr,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(state.answer(&request, address)) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn whole(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    whole(
        status,
        serde_json::to_vec(&json!({ "errors": [{ "code": code, "message": message }] })).unwrap(),
    )
}

impl State {
    fn answer(&self, request: &Request<Incoming>, address: SocketAddr) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let given = request
            .headers()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let part = request.headers().get("range").and_then(|value| value.to_str().ok());
        self.requests
            .lock()
            .unwrap()
            .push(part.map_or_else(|| path.clone(), |part| format!("{path} {part}")));
        let mut behaviour = self.behaviour.lock().unwrap();
        if let Some(status) = behaviour.always {
            return whole(status, "");
        }
        if behaviour.busy > 0 {
            behaviour.busy -= 1;
            return whole(503, "");
        }
        if path == "/token" {
            let wanted = behaviour.token_for.as_deref().map(basic).unwrap_or_default();
            assert!(request.uri().query().unwrap_or_default().contains("scope=repository%3A"));
            return if given == wanted {
                whole(200, r#"{"token":"good"}"#)
            } else {
                error(401, "UNAUTHORIZED", "who are you")
            };
        }
        if behaviour.token_for.is_some() && given != "Bearer good" {
            let mut response = error(401, "UNAUTHORIZED", "authentication required");
            let challenge = format!("Bearer realm=\"https://{address}/token\",service=\"test\"");
            response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
            return response;
        }
        if let Some(wanted) = &behaviour.basic
            && given != basic(wanted)
        {
            let mut response = error(401, "UNAUTHORIZED", "authentication required");
            response
                .headers_mut()
                .insert("www-authenticate", "Basic realm=\"test\"".parse().unwrap());
            return response;
        }
        let Some(content) = self.content.lock().unwrap().get(&path).cloned() else {
            let code =
                if path.contains("/manifests/") { "MANIFEST_UNKNOWN" } else { "BLOB_UNKNOWN" };
            return error(404, code, &code.to_lowercase().replace('_', " "));
        };
        let range = request.headers().get("range").and_then(|value| {
            value.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
        });
        let from: usize = range.filter(|_| !behaviour.whole_only).unwrap_or(0);
        let rest = content[from.min(content.len())..].to_vec();
        if path.contains("/blobs/") && behaviour.break_off > 0 && rest.len() > 1000 {
            behaviour.break_off -= 1;
            return broken(rest, if from > 0 { 206 } else { 200 });
        }
        whole(if from > 0 { 206 } else { 200 }, rest)
    }
}

/// Half of the content, then a connection that breaks.
fn broken(content: Vec<u8>, status: u16) -> Response<Body> {
    let length = content.len();
    let half = Bytes::from(content).slice(..length / 2);
    let pieces = futures::stream::once(async move { Ok(Frame::data(half)) }).chain(
        futures::stream::once(async {
            // Lets the server send the first half before it hears of the end.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("broken on purpose"))
        }),
    );
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-length", length.into());
    response
}

fn basic(credential: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credential))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A plain archive with these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}
