//! Running a probe once: HTTP, TCP, or a command in the container.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use podium_control::pod::ProbeOutcome;
use podium_types::k8s::api::core::v1::{Container, HTTPGetAction, Probe};
use podium_types::k8s::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use crate::exec::{self, Captured};
use crate::http;
use crate::shim::Shim;

/// What a probe is run against.
pub(crate) struct Target<'a> {
    pub(crate) container: &'a Container,
    pub(crate) shim: &'a Shim,
    /// The instance in the shim.
    pub(crate) id: String,
    /// The pod's primary address.
    pub(crate) address: Option<IpAddr>,
}

/// Runs a probe once, within its time-out.
pub(crate) async fn run(probe: &Probe, target: &Target<'_>) -> ProbeOutcome {
    let seconds = probe
        .timeout_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0);
    let limit = Duration::from_secs(seconds.unwrap_or(1));
    if let Some(action) = &probe.exec {
        return by_command(action.command.as_deref().unwrap_or_default(), target, limit).await;
    }
    if let Some(action) = &probe.http_get {
        return by_http(action, target, limit).await;
    }
    if let Some(action) = &probe.tcp_socket {
        return by_tcp(&action.port, action.host.as_deref(), target, limit).await;
    }
    ProbeOutcome::Unknown("this kind of probe is not supported".to_owned())
}

async fn by_command(command: &[String], target: &Target<'_>, limit: Duration) -> ProbeOutcome {
    let run = exec::capture(target.shim, &target.id, command.to_vec());
    match tokio::time::timeout(limit, run).await {
        Err(_) => ProbeOutcome::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            limit.as_secs()
        )),
        Ok(Ok(Captured { code: 0, .. })) => ProbeOutcome::Success,
        Ok(Ok(Captured { output, .. })) => ProbeOutcome::Failure(output),
        Ok(Err(error)) => ProbeOutcome::Unknown(error.to_string()),
    }
}

async fn by_http(action: &HTTPGetAction, target: &Target<'_>, limit: Duration) -> ProbeOutcome {
    let request = match http::Request::from_action(action, target.container, target.address) {
        Ok(request) => request,
        Err(message) => return ProbeOutcome::Unknown(message),
    };
    match http::get(&request, limit).await {
        Ok(200..=399) => ProbeOutcome::Success,
        Ok(status) => ProbeOutcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Err(message) => ProbeOutcome::Failure(message),
    }
}

async fn by_tcp(
    port: &IntOrString,
    host: Option<&str>,
    target: &Target<'_>,
    limit: Duration,
) -> ProbeOutcome {
    let address = match host.filter(|host| !host.is_empty()) {
        Some(host) => host.parse().ok(),
        None => target.address,
    };
    let (Some(address), Some(port)) = (address, http::port_number(port, target.container)) else {
        return ProbeOutcome::Unknown("the probe's address or port is not known".to_owned());
    };
    let address = SocketAddr::new(address, port);
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => ProbeOutcome::Success,
        Ok(Err(error)) => ProbeOutcome::Failure(http::dial_error(address, &error)),
        Err(_) => ProbeOutcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, run};
    use crate::shim::Shim;
    use podium_control::pod::ProbeOutcome;
    use podium_types::k8s::api::core::v1::{Container, Probe};
    use serde_json::{Value, json};
    use std::path::Path;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn probe(probe: Value, port: u16) -> ProbeOutcome {
        let probe: Probe = serde_json::from_value(probe).expect("a probe");
        let container: Container = serde_json::from_value(
            json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]}),
        )
        .expect("a container");
        let shim = Shim::at(Path::new("/nonexistent"));
        let address = Some("127.0.0.1".parse().expect("an address"));
        run(&probe, &Target { container: &container, shim: &shim, id: "c.0".to_owned(), address })
            .await
    }

    /// A server that answers each request with what `answer` makes of it.
    async fn server(answer: fn(&str) -> String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 4096];
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                let request =
                    String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned();
                let _gone = stream.write_all(answer(&request).as_bytes()).await;
            }
        });
        port
    }

    fn status(code: u16) -> String {
        format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn http_probe_judges_by_the_status() {
        let port = server(|request| {
            let good =
                request.starts_with("GET /ok?x=1 HTTP/1.1") && request.contains("x-probe: yes");
            status(if good { 204 } else { 503 })
        })
        .await;
        let headers = json!([{"name": "X-Probe", "value": "yes"}]);
        let get =
            |path: &str| json!({"httpGet": {"path": path, "port": "web", "httpHeaders": headers}});
        assert_eq!(probe(get("/ok?x=1"), port).await, ProbeOutcome::Success);
        assert_eq!(
            probe(get("/bad"), port).await,
            ProbeOutcome::Failure("HTTP probe failed with statuscode: 503".to_owned())
        );
    }

    #[tokio::test]
    async fn refused_connections_fail_in_the_words_of_kubelet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(probe(json!({"tcpSocket": {"port": port}}), port).await, ProbeOutcome::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(
            probe(json!({"tcpSocket": {"port": port}}), port).await,
            ProbeOutcome::Failure(refused.clone())
        );
        assert_eq!(
            probe(json!({"httpGet": {"path": "/x", "port": port}}), port).await,
            ProbeOutcome::Failure(format!("Get \"http://127.0.0.1:{port}/x\": {refused}"))
        );
    }

    #[tokio::test]
    async fn silent_server_fails_by_the_time_out_and_a_dead_shim_is_not_the_containers_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let outcome = probe(json!({"httpGet": {"port": port}, "timeoutSeconds": 1}), port).await;
        assert!(
            matches!(&outcome, ProbeOutcome::Failure(text) if text.contains("context deadline exceeded")),
            "{outcome:?}"
        );
        let outcome = probe(json!({"exec": {"command": ["true"]}}), port).await;
        assert!(matches!(outcome, ProbeOutcome::Unknown(_)), "{outcome:?}");
    }
}
