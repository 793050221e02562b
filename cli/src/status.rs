//! `podium status`: machines as the rig sees them; nodes and pods as the API does.

use std::path::Path;

use anyhow::bail;
use podium_qemu_tests::credentials::Credentials;
use podium_qemu_tests::layout::Layout;
use podium_qemu_tests::node_api::{Https, cluster_authority};
use serde_json::Value;

use crate::control::{Connection, Event, MachineStatus, Request};

/// Prints it.
pub(crate) fn run(dir: &Path, name: &str) -> anyhow::Result<()> {
    let layout = Layout::new(dir, name)?;
    let Some(mut connection) = Connection::open(&layout.cluster())? else {
        println!("cluster {name} is not up");
        return Ok(());
    };
    connection.send(&Request::Status)?;
    let Event::Status(machines) = connection.event()? else {
        bail!("the supervisor did not answer")
    };
    let rows = machines.iter().map(|machine| {
        let state = if machine.on { "on" } else { "off" };
        vec![
            machine.index.to_string(),
            state.to_owned(),
            machine.address.to_string(),
            machine.api.to_string(),
        ]
    });
    print_table(&["MACHINE", "POWER", "ADDRESS", "API"], rows.collect());
    match Credentials::open(&layout.cluster()).and_then(|credentials| api(&machines, &credentials))
    {
        Ok(api) => print_cluster(&api),
        Err(error) => {
            println!("\nthe API does not answer: {error:#}");
            Ok(())
        }
    }
}

fn api(machines: &[MachineStatus], credentials: &Credentials) -> anyhow::Result<Https> {
    let Some(machine) = machines.iter().find(|machine| machine.on) else {
        bail!("every machine is off")
    };
    let authority = cluster_authority(machine.api, credentials.token())?;
    let (certificate, key) = (credentials.certificate_pem()?, credentials.key_pem()?);
    Https::with_client(machine.api, "127.0.0.1", &authority, &certificate, &key)
}

fn print_cluster(api: &Https) -> anyhow::Result<()> {
    let list = |path: &str| -> anyhow::Result<Vec<Value>> {
        let mut answer = api.get(path)?.json()?;
        Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    };
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned()
    };
    let nodes = list("/api/v1/nodes")?.into_iter().map(|node| {
        vec![
            text(&node, "/metadata/name"),
            ready(&node).to_owned(),
            text(&node, "/status/nodeInfo/kubeletVersion"),
        ]
    });
    println!();
    print_table(&["NODE", "STATUS", "VERSION"], nodes.collect());
    let pods = list("/api/v1/pods")?.into_iter().map(|pod| {
        vec![
            text(&pod, "/metadata/namespace"),
            text(&pod, "/metadata/name"),
            text(&pod, "/status/phase"),
            text(&pod, "/spec/nodeName"),
        ]
    });
    println!();
    print_table(&["NAMESPACE", "POD", "PHASE", "NODE"], pods.collect());
    Ok(())
}

fn ready(node: &Value) -> &'static str {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| all.iter().find(|it| it["type"] == "Ready"));
    match ready.map(|it| it["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
}

fn print_table(head: &[&str], rows: Vec<Vec<String>>) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    line(&mut head.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(String::as_str));
    }
}
