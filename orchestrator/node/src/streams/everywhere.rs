//! The containers of the whole cluster: this node's by its agent, others' by their nodes.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use podium_api::Status;
use podium_api::streams::{ExecRequest, ExecSession, LogOptions, PodStreams};
use podium_peer::{Peers, Protocol};
use serde_json::Value;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsStream;

use super::remote;
use crate::directory::Directory;

/// What the API of a voter asks.
pub(crate) struct Everywhere {
    /// This node's name.
    pub(crate) name: String,
    /// The containers of this node.
    pub(crate) local: Arc<dyn PodStreams>,
    /// The way to the others.
    pub(crate) peers: Arc<Peers>,
    /// Their keys.
    pub(crate) directory: watch::Receiver<Directory>,
}

impl Everywhere {
    /// The pod's node; `None` if it is this one, or if the pod has none yet, which the agent knows how to refuse.
    fn elsewhere<'a>(&self, pod: &'a Value) -> Option<&'a str> {
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str)?;
        (!node.is_empty() && node != self.name).then_some(node)
    }

    async fn open(&self, node: &str) -> Result<TlsStream<TcpStream>, Status> {
        let unreachable = |reason: &str| {
            Status::service_unavailable(format!("node {node} cannot be reached: {reason}"))
        };
        let key = self.directory.borrow().get(node).map(|entry| entry.key.clone());
        let key = key.ok_or_else(|| unreachable("it is no machine of this cluster"))?;
        let opened = self.peers.open(&key, Protocol::Streams).await;
        Ok(opened.map_err(|reason| unreachable(&reason))?.stream)
    }
}

impl PodStreams for Everywhere {
    fn logs<'a>(
        &'a self,
        pod: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        Box::pin(async move {
            match self.elsewhere(pod) {
                Some(node) => remote::logs(self.open(node).await?, pod, options).await,
                None => self.local.logs(pod, options).await,
            }
        })
    }

    fn exec<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            match self.elsewhere(pod) {
                Some(node) => remote::exec(self.open(node).await?, pod, request).await,
                None => self.local.exec(pod, request).await,
            }
        })
    }

    fn attach<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            match self.elsewhere(pod) {
                Some(node) => remote::attach(self.open(node).await?, pod, request).await,
                None => self.local.attach(pod, request).await,
            }
        })
    }
}
