//! The API alone: no controllers, no nodes, no containers. `exec` runs programs on this machine, `logs` tells the time.
//!
//! `cargo run -p podium-api --example serve -- [PORT [FOLDER]]` listens on 127.0.0.1 and writes `kubeconfig` into the folder
//! (default: `.podium/api`); the store is kept there too.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use podium_api::http::{Server, serve};
use podium_api::pipeline::Config;
use podium_api::seams::{SystemClock, SystemIds};
use podium_api::streams::{ExecExit, ExecRequest, ExecSession, LogOptions, PodStreams};
use podium_api::{Pipeline, Status, bootstrap};
use podium_store::disk::os::OsDisk;
use podium_store::{Alone, Member, MemberId, Store, StoreHandle, TokioRuntime};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

#[path = "../tests/support/pki.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use more of it")]
mod pki;

/// Containers that are programs of this machine.
struct LocalStreams;

impl PodStreams for LocalStreams {
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        let name = podium_types::object::name(pod).to_owned();
        let line = move |number: u32| {
            Ok(Bytes::from(format!("{name} {} line {number}\n", options.container)))
        };
        Box::pin(async move {
            let lines = stream::iter(1..=10_u32);
            if !options.follow {
                return Ok(lines.map(line).boxed());
            }
            let slow = lines.then(move |number| {
                let line = line(number);
                async move {
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    line
                }
            });
            Ok(slow.boxed())
        })
    }

    fn exec<'a>(
        &'a self,
        _: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move { run(&request).map_err(Status::internal) })
    }

    fn attach<'a>(
        &'a self,
        pod: &'a Value,
        mut request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        request.command = vec!["cat".to_owned()];
        self.exec(pod, request)
    }
}

fn run(request: &ExecRequest) -> std::io::Result<ExecSession> {
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .stdin(pipe(request.stdin))
        .stdout(pipe(request.stdout))
        .stderr(pipe(request.stderr))
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take().map(|stdin| Box::pin(stdin) as _);
    let stdout = child.stdout.take().map(|stdout| Box::pin(stdout) as _);
    let stderr = child.stderr.take().map(|stderr| Box::pin(stderr) as _);
    let exit = Box::pin(async move {
        match child.wait().await {
            Ok(status) => ExecExit::Code(status.code().unwrap_or(137)),
            Err(error) => ExecExit::Failed(error.to_string()),
        }
    });
    Ok(ExecSession { stdin, stdout, stderr, resize: None, exit })
}

async fn open_store(folder: PathBuf) -> Arc<dyn StoreHandle> {
    let me = MemberId(1);
    let disk = Arc::new(OsDisk::open(folder).expect("the store's folder"));
    let store = Store::<TokioRuntime>::open(podium_store::Config::new(me), disk, Arc::new(Alone));
    let store = store.await.expect("the store opens");
    if store.status().last_index == 0 {
        store
            .initialise(vec![Member { id: me, public_key: Vec::new() }])
            .await
            .expect("a new store");
    }
    Arc::new(store)
}

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter("warn,podium_api=debug")
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(6443, |port| port.parse().expect("a port"));
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| ".podium/api".to_owned()));

    let store = open_store(folder.join("store")).await;
    let pipeline = Pipeline::new(
        store,
        Arc::new(SystemClock::default()),
        Arc::new(SystemIds),
        Config::default(),
    );
    bootstrap::ensure(&pipeline, &[[127, 0, 0, 1].into()], port).await.expect("first objects");

    let pki = pki::Pki::new();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    let address = listener.local_addr().expect("bound");
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, pki.kubeconfig(&format!("https://{address}"))).expect("written");
    println!("export KUBECONFIG={}", kubeconfig.display());

    let acceptor = TlsAcceptor::from(Arc::new(pki.server_config()));
    let server = Server::new(pipeline, Arc::new(LocalStreams));
    let interrupted = async {
        tokio::signal::ctrl_c().await.expect("signals work");
    };
    serve(listener, acceptor, server, pki.admin_key(), interrupted).await;
}
