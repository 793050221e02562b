//! The least client of etcd that can put a load on it: `etcdserverpb.KV/Put` over gRPC (HTTP/2 without TLS), messages by hand.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Connections are shared by so many clients, over all members in turn.
const CONNECTIONS_MAX: usize = 8;
const START_LIMIT: Duration = Duration::from_secs(30);
/// As in the store's example.
const VALUE_BYTES: usize = 1024;

/// Who puts, where, and for how long.
pub(crate) struct Load {
    pub(crate) ports: Vec<u16>,
    pub(crate) clients: usize,
    pub(crate) span: Duration,
}

/// Puts until the time is over; the milliseconds that each took.
pub(crate) fn put(load: &Load) -> anyhow::Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for index in 0..load.clients.min(CONNECTIONS_MAX) {
            let port = load.ports.get(index % load.ports.len()).context("no member")?;
            connections.push(connect(*port).await?);
        }
        let begun = Instant::now();
        let tasks = (0..load.clients).map(|client| {
            let sender = connections[client % connections.len()].clone();
            tokio::spawn(one_client(sender, client, begun, load.span))
        });
        let mut times = Vec::new();
        for task in futures::future::join_all(tasks).await {
            times.extend(task??);
        }
        Ok(times)
    })
}

type Sender = SendRequest<Full<Bytes>>;

async fn one_client(
    mut sender: Sender,
    client: usize,
    begun: Instant,
    span: Duration,
) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    while begun.elapsed() < span {
        let key = format!("/registry/core/configmaps/bench/{client}-{}", times.len() % 100);
        let sent = Instant::now();
        put_one(&mut sender, &key).await?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Connects to a member that may still be starting, and puts once, so that it has a leader.
async fn connect(port: u16) -> anyhow::Result<Sender> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let tried = async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            put_one(&mut sender, "/ready").await?;
            anyhow::Ok(sender)
        };
        match tried.await {
            Ok(sender) => return Ok(sender),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context("etcd does not start"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn put_one(sender: &mut Sender, key: &str) -> anyhow::Result<()> {
    let request = http::Request::post("http://127.0.0.1/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(message(key))))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let early = response.headers().get("grpc-status").cloned();
    let body = response.into_body().collect().await?;
    let status = early.or_else(|| body.trailers()?.get("grpc-status").cloned());
    ensure!(status.as_ref().is_some_and(|status| status == "0"), "etcd answered {status:?}");
    Ok(())
}

/// A gRPC message (uncompressed) with a PutRequest: key is field 1, value is field 2.
fn message(key: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(VALUE_BYTES + key.len() + 16);
    let mut field = |number: u8, bytes: &[u8]| {
        body.push(number << 3 | 2);
        let mut rest = bytes.len();
        while rest >= 0x80 {
            body.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        body.push(rest as u8);
        body.extend_from_slice(bytes);
    };
    field(1, key.as_bytes());
    field(2, &[7; VALUE_BYTES]);
    let mut framed = vec![0];
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend(body);
    framed
}
