//! A small HTTPS client on the calling thread: one request per connection, or a connection that is kept.
//!
//! It serves the rig (is the registry up?) and the command line (is the node ready?, what is the cluster's authority?). What
//! users do with a cluster they do with kubectl.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

mod authority;
mod session;

pub use authority::cluster_authority;
pub use session::{Breaker, Events, Session};

/// A machine under emulation that is busy booting answers in seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// No answer that the rig asks for is larger.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A server, and how to trust it.
#[derive(Clone, Debug)]
pub struct Https {
    address: SocketAddr,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// What a server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body of a successful answer, as JSON.
    ///
    /// # Errors
    /// The status is not 2xx (the body, usually a Status, is in the error), or the body is no JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        let text = String::from_utf8_lossy(&self.body);
        ensure!((200..300).contains(&self.status), "HTTP {}: {}", self.status, text.trim());
        Ok(serde_json::from_slice(&self.body)?)
    }
}

impl Https {
    /// A server at `address` whose certificate names `name` and is signed by `ca_pem`.
    ///
    /// # Errors
    /// The PEM or the name is malformed.
    pub fn new(address: SocketAddr, name: &str, ca_pem: &str) -> anyhow::Result<Self> {
        let config = builder()?.with_root_certificates(roots(ca_pem)?).with_no_client_auth();
        Self::with_config(address, name, config)
    }

    /// The same, and the client shows a certificate.
    ///
    /// # Errors
    /// The PEM or the name is malformed.
    pub fn with_client(
        address: SocketAddr,
        name: &str,
        ca_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
    ) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
        let config =
            builder()?.with_root_certificates(roots(ca_pem)?).with_client_auth_cert(chain, key)?;
        Self::with_config(address, name, config)
    }

    fn with_config(address: SocketAddr, name: &str, config: ClientConfig) -> anyhow::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).context("the server's name")?;
        Ok(Self { address, name, config: Arc::new(config) })
    }

    /// GETs `path`.
    ///
    /// # Errors
    /// The server is not there, is not trusted, or does not speak HTTP/1.1.
    pub fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let (_, answer) = self.exchange(path)?;
        Ok(answer)
    }

    /// GETs `path` and returns the certificate that the server showed as well.
    fn exchange(&self, path: &str) -> anyhow::Result<(CertificateDer<'static>, Answer)> {
        self.exchange_in_time(path).map_err(|error| {
            // What a socket's deadline is called by the kernel (socket(7), SO_RCVTIMEO) tells nobody anything.
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if kind == Some(std::io::ErrorKind::WouldBlock) {
                anyhow::anyhow!("no answer within {ANSWER_DEADLINE:?}")
            } else {
                error
            }
        })
    }

    fn exchange_in_time(&self, path: &str) -> anyhow::Result<(CertificateDer<'static>, Answer)> {
        let socket = TcpStream::connect_timeout(&self.address, ANSWER_DEADLINE)?;
        socket.set_read_timeout(Some(ANSWER_DEADLINE))?;
        socket.set_write_timeout(Some(ANSWER_DEADLINE))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        let mut stream = StreamOwned::new(connection, socket);
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        let mut bytes = Vec::new();
        match std::io::Read::by_ref(&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
            // A server that ends without TLS's close_notify has still said what it said; the length is checked below.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                return Err(error.into());
            }
            _ => {}
        }
        let shown =
            stream.conn.peer_certificates().and_then(<[_]>::first).context("no certificate")?;
        Ok((shown.clone().into_owned(), parse(&bytes)?))
    }
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn roots(ca_pem: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    ensure!(!roots.is_empty(), "no certificate in the authority's PEM");
    Ok(roots)
}

/// Reads a whole HTTP/1.1 response (RFC 9112): by its length, its chunks, or its end.
fn parse(bytes: &[u8]) -> anyhow::Result<Answer> {
    let split =
        bytes.windows(4).position(|window| window == b"\r\n\r\n").context("no HTTP response")?;
    let (head, body) = bytes.split_at(split);
    let body = body.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let header = |name: &str| {
        lines.clone().filter_map(|line| line.split_once(':')).find_map(|(key, value)| {
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
        })
    };
    let body = if header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        unchunk(body)?
    } else if let Some(length) = header("content-length") {
        body.get(..length.parse()?).context("the response is cut short")?.to_vec()
    } else {
        body.to_vec()
    };
    Ok(Answer { status, body })
}

fn unchunk(mut bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end =
            bytes.windows(2).position(|window| window == b"\r\n").context("a chunk has no size")?;
        let line = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
        let start = end + 2;
        if size == 0 {
            return Ok(body);
        }
        let Some(chunk) = bytes.get(start..start.saturating_add(size)) else {
            bail!("a chunk is cut short")
        };
        body.extend_from_slice(chunk);
        bytes = bytes.get(start + size + 2..).context("a chunk has no end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives these answers, one after the other, on one connection.
    pub(super) fn served(answers: &[&str]) -> Https {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("params");
        let certificate = params.self_signed(&key).expect("certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("key"),
            )
            .expect("config");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("accept");
            let connection =
                rustls::ServerConnection::new(Arc::new(config)).expect("a TLS connection");
            let mut stream = StreamOwned::new(connection, socket);
            for answer in answers {
                let mut request = vec![0; 4096];
                assert!(stream.read(&mut request).expect("a request") > 0);
                stream.write_all(answer.as_bytes()).expect("answer");
                stream.flush().expect("answer");
            }
        });
        Https::new(address, "127.0.0.1", &certificate.pem()).expect("client")
    }

    #[test]
    fn a_body_is_read_by_length_by_chunks_and_by_its_end() {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nhi",
        ] {
            let answer = parse(response.as_bytes()).expect(response);
            assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hi"[..]), "{response}");
        }
    }

    #[test]
    fn a_cut_response_is_an_error() {
        for response in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        ] {
            assert!(parse(response.as_bytes()).is_err(), "{response:?}");
        }
    }
}
