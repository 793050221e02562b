//! The rig as a client of its cluster's API: is it ready, and by which config do people reach it?

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::Cluster;
use crate::credentials::Credentials;
use crate::links::machine_name;
use crate::node_api::{Https, cluster_authority};

impl Cluster {
    /// Waits until the API says that the nodes of all machines that are on are Ready; `progress` is called while it waits.
    ///
    /// # Errors
    /// One of them switches itself off, or `limit` passes: the consoles' ends and the last answer are in the error.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut progress: impl FnMut(&mut Self),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let machines = self.on();
        loop {
            let missing = self.not_ready();
            if missing.as_ref().is_ok_and(Vec::is_empty) {
                return Ok(());
            }
            progress(self);
            let on = self.on();
            let ended = machines.iter().find(|index| !on.contains(index));
            if ended.is_some() || Instant::now() > deadline {
                let why = match (ended, missing) {
                    (Some(index), _) => format!("{} has switched itself off", machine_name(*index)),
                    (None, Ok(missing)) => {
                        let names: Vec<_> = missing.into_iter().map(machine_name).collect();
                        format!("not Ready: {}", names.join(", "))
                    }
                    (None, Err(error)) => format!("the API does not answer: {error:#}"),
                };
                bail!("not ready after {}s: {why}\n{}", limit.as_secs(), self.consoles());
            }
            // The API answers at most once a round trip; asking faster only takes the emulated processor's time.
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// The machines that are on and whose nodes are not Ready.
    ///
    /// # Errors
    /// The API does not answer.
    pub fn not_ready(&mut self) -> anyhow::Result<Vec<u16>> {
        let ready = self.ready_addresses()?;
        let mut missing = self.on();
        missing.retain(|index| !ready.contains(&self.address(*index).to_string()));
        Ok(missing)
    }

    /// The machines that are on.
    pub fn on(&mut self) -> Vec<u16> {
        let on = self
            .machines()
            .iter_mut()
            .zip(0..)
            .filter_map(|(vm, index)| vm.is_on().then_some(index));
        on.collect()
    }

    /// An HTTPS client of the cluster's API at whichever machine answers, as the administrator.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster.
    pub fn api(&mut self) -> anyhow::Result<Https> {
        self.api_at(self.api_front())
    }

    /// The same, at one machine.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster.
    pub fn api_of(&mut self, index: u16) -> anyhow::Result<Https> {
        self.api_at(self.api_address(index))
    }

    /// Writes the administrator's kubeconfig and returns its path. Its server is whichever machine answers.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster, or the file cannot be written.
    pub fn write_kubeconfig(&mut self) -> anyhow::Result<PathBuf> {
        let path = self.layout().kubeconfig();
        self.write_kubeconfig_for(self.api_front(), path)
    }

    /// Writes a kubeconfig whose server is one machine, and returns its path.
    ///
    /// # Errors
    /// The node does not prove that it belongs to the cluster, or the file cannot be written.
    pub fn write_kubeconfig_of(&mut self, index: u16) -> anyhow::Result<PathBuf> {
        let path = self.layout().machine(index).join("kubeconfig");
        self.write_kubeconfig_for(self.api_address(index), path)
    }

    fn write_kubeconfig_for(
        &mut self,
        server: SocketAddr,
        path: PathBuf,
    ) -> anyhow::Result<PathBuf> {
        let authority = self.authority_at(server)?;
        let text = kubeconfig(self.layout().name(), server, &authority, &self.credentials)?;
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// PEM of the authority of the cluster that a machine belongs to, as the machine itself proves it now.
    ///
    /// # Errors
    /// The machine does not answer, or does not hold the token.
    pub fn authority_of(&self, index: u16) -> anyhow::Result<String> {
        cluster_authority(self.api_address(index), self.credentials.token())
    }

    /// Forgets what the rig knows of the cluster, because its machines form another.
    pub fn forget_authority(&mut self) {
        self.authority = None;
    }

    fn api_at(&mut self, server: SocketAddr) -> anyhow::Result<Https> {
        let authority = self.authority_at(server)?;
        let (certificate, key) = (self.credentials.certificate_pem()?, self.credentials.key_pem()?);
        Https::with_client(server, "127.0.0.1", &authority, &certificate, &key)
    }

    fn authority_at(&mut self, server: SocketAddr) -> anyhow::Result<String> {
        let authority = match &self.authority {
            Some(authority) => authority.clone(),
            None => cluster_authority(server, self.credentials.token())?,
        };
        self.authority = Some(authority.clone());
        Ok(authority)
    }

    /// The addresses of the nodes that are Ready.
    fn ready_addresses(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let answer = self.api().and_then(|api| api.get("/api/v1/nodes")?.json());
        if answer.is_err() {
            // Its machines may have formed a new cluster since.
            self.forget_authority();
        }
        let nodes = answer?;
        let items = nodes["items"].as_array().context("the list of nodes has no items")?;
        let addresses = items.iter().filter(|node| is_ready(node)).flat_map(|node| {
            node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten()
        });
        Ok(addresses.filter_map(|it| Some(it["address"].as_str()?.to_owned())).collect())
    }
}

/// Whether a Node, or whatever else has conditions, is Ready.
#[must_use]
pub fn is_ready(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
}

/// A kubeconfig with everything in it, so that it can be moved.
///
/// # Errors
/// The administrator's key or certificate cannot be read.
pub fn kubeconfig(
    name: &str,
    server: SocketAddr,
    authority_pem: &str,
    credentials: &Credentials,
) -> anyhow::Result<String> {
    use base64::Engine as _;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": encode(authority_pem),
        }}],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": encode(&credentials.certificate_pem()?),
            "client-key-data": encode(&credentials.key_pem()?),
        }}],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": "admin" } }],
        "current-context": name,
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
