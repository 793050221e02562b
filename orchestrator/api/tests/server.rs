//! The server over TLS, with a store on real files.

use std::sync::Arc;

use bytes::Bytes;
use futures::SinkExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _};
use podium_api::Status;
use podium_api::streams::{
    ExecExit, ExecRequest, ExecSession, LogOptions, NoPodStreams, PodStreams,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

#[path = "support/client.rs"]
#[allow(unreachable_pub, reason = "shared with others")]
mod client;
#[path = "support/pki.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with others")]
mod pki;
use client::{DEADLINE, Lines, Running, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: (&str, &str) =
    ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");

async fn server() -> Running {
    Running::start(Arc::new(NoPodStreams)).await
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_who_its_certificate_says() {
    let server = server().await;
    let list = || request("GET", "/api/v1/namespaces", &[], "");
    let code = async |identity| {
        server.send(identity, list()).await.map(|answer| answer.status().as_u16()).ok()
    };
    assert_eq!(code(Some(server.pki.self_signed(true))).await, Some(200));
    assert_eq!(code(None).await, Some(401));
    assert_eq!(code(Some(server.pki.identity("bob", &[]))).await, Some(403));
    assert_eq!(code(Some(server.pki.identity("root", &["system:masters"]))).await, Some(200));
    assert_eq!(code(Some(server.pki.identity("sly", &["podium:internal"]))).await, Some(403));
    assert_eq!(
        code(Some(server.pki.identity("system:node:n", &["system:nodes"]))).await,
        Some(200)
    );
    assert_eq!(code(Some(server.pki.self_signed(false))).await, None, "a stranger's certificate");
    let stranger = pki::Pki::new().identity("root", &["system:masters"]);
    assert_eq!(code(Some(stranger)).await, None, "another authority's certificate");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_may_ask_whether_it_lives() {
    let server = server().await;
    for path in ["/livez", "/readyz", "/healthz", "/version", "/readyz/store"] {
        let answer = server.send(None, request("GET", path, &[], "")).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
    }
    let (code, _, text) = server.get("/readyz?verbose", &[]).await;
    assert_eq!((code, text.contains("[+]store ok")), (200, true));
    let (_, _, version) = server.get("/version", &[]).await;
    assert_eq!(parsed(&version)["gitVersion"], "v1.37.0+podium");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_may_be_taken_for_another() {
    let server = server().await;
    let (code, _, text) = server.get(CONFIG_MAPS, &[("impersonate-user", "bob")]).await;
    assert_eq!(code, 403);
    assert!(text.contains(r#"User \"bob\" cannot list"#), "{text}");
    let bob = server.pki.identity("bob", &[]);
    let asked = request(
        "GET",
        CONFIG_MAPS,
        &[("impersonate-user", "admin"), ("impersonate-group", "system:masters")],
        "",
    );
    let answer = server.send(Some(bob), asked).await.expect("an answer");
    assert_eq!(answer.status(), 403);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_is_told_in_both_forms() {
    let server = server().await;
    let aggregated = (
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
    );
    let (code, headers, text) = server.get("/apis", &[aggregated]).await;
    assert_eq!(code, 200);
    let form = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    assert_eq!(headers["content-type"], form);
    let groups = parsed(&text);
    assert_eq!(groups["kind"], "APIGroupDiscoveryList");
    assert_eq!(groups["items"][0]["metadata"]["name"], "apps");
    let deployments = &groups["items"][0]["versions"][0]["resources"][0];
    assert_eq!(deployments["responseKind"]["kind"], "Deployment");
    assert_eq!(deployments["subresources"][0]["responseKind"]["group"], "autoscaling");
    let (code, _, _) = server
        .get("/apis", &[aggregated, ("if-none-match", headers["etag"].to_str().expect("text"))])
        .await;
    assert_eq!(code, 304);

    let (_, headers, text) = server.get("/api", &[]).await;
    assert_eq!(
        (headers["content-type"].to_str().ok(), &parsed(&text)["versions"]),
        (Some("application/json"), &json!(["v1"]))
    );
    let (_, _, text) = server.get("/apis/apps", &[]).await;
    assert_eq!(parsed(&text)["preferredVersion"]["groupVersion"], "apps/v1");
    let (_, _, text) = server.get("/api/v1", &[]).await;
    let list = parsed(&text);
    let eviction = list["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["name"] == "pods/eviction")
        .expect("listed");
    assert_eq!(
        (&eviction["group"], &eviction["version"], &eviction["kind"]),
        (&json!("policy"), &json!("v1"), &json!("Eviction"))
    );
    let (code, headers, text) = server.get("/apis/foo/v1/x", &[]).await;
    assert_eq!((code, text.as_str()), (404, "404 page not found\n"));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    let (code, _, text) = server.get("/api/v1/gadgets", &[]).await;
    assert_eq!(
        (code, &parsed(&text)["message"]),
        (404, &json!("the server could not find the requested resource"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_let_kubectl_check_fields_on_the_server() {
    let server = server().await;
    let (_, _, index) = server.get("/openapi/v3", &[]).await;
    let index = parsed(&index);
    let url =
        index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let (code, _, text) = server.get(&url, &[]).await;
    assert_eq!(code, 200);
    let document = parsed(&text);
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let parameters = patch["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    assert!(
        patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none()
    );
    assert!(
        document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]
            .is_object()
    );
    let (code, headers, _) = server.get("/openapi/v3/apis/apps/v1?hash=old", &[]).await;
    assert_eq!((code, headers["location"].to_str().ok()), (301, Some(url.as_str())));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_answers_have_the_form_that_was_agreed() {
    let server = server().await;
    let map = json!({"metadata": {"name": "c"}, "data": {"a": "yes"}});
    // No content type: JSON.
    let made = server.create(CONFIG_MAPS, &map).await;
    assert_eq!(made["kind"], "ConfigMap");
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\ndata: {a: 'yes'}\n";
    let (code, _, text) =
        server.call("POST", CONFIG_MAPS, &[("content-type", "application/yaml")], yaml).await;
    assert_eq!((code, &parsed(&text)["data"]["a"]), (201, &json!("yes")));
    let protobuf = ("content-type", "application/vnd.kubernetes.protobuf");
    let (code, _, text) = server.call("POST", CONFIG_MAPS, &[protobuf], "k8s\0").await;
    assert_eq!(code, 415);
    assert_eq!(
        parsed(&text)["message"],
        "the body of the request was in protobuf, which this server does not read yet - accepted media types include: application/json, application/yaml"
    );
    let one = format!("{CONFIG_MAPS}/c");
    let apply = ("content-type", "application/apply-patch+yaml");
    let (code, _, text) = server.call("PATCH", &one, &[apply], "{}").await;
    assert_eq!((code, &parsed(&text)["reason"]), (415, &json!("UnsupportedMediaType")));
    let (code, headers, text) = server.get(&one, &[("accept", "application/yaml")]).await;
    assert_eq!((code, headers["content-type"].to_str().ok()), (200, Some("application/yaml")));
    let read: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(read["data"], json!({"a": "yes"}));
    let (code, _, text) =
        server.get(&one, &[("accept", "application/vnd.kubernetes.protobuf")]).await;
    assert_eq!((code, &parsed(&text)["reason"]), (406, &json!("NotAcceptable")));
    let metadata = ("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let (_, _, text) = server.get(CONFIG_MAPS, &[metadata]).await;
    let list = parsed(&text);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("data").is_none());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_have_rows_for_people() {
    let server = server().await;
    let (_, _, text) = server.get("/api/v1/namespaces?limit=2", &[TABLE]).await;
    let table = parsed(&text);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| &column["name"])
        .collect();
    assert_eq!(columns, ["Name", "Status", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "default");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["metadata"]["remainingItemCount"], 2);
    let (_, _, text) =
        server.get("/api/v1/namespaces/default?includeObject=Object", &[TABLE]).await;
    assert_eq!(parsed(&text)["rows"][0]["object"]["status"]["phase"], "Active");
    let (_, _, text) = server.get("/api/v1/namespaces?includeObject=None", &[TABLE]).await;
    assert_eq!(parsed(&text)["rows"][0]["object"], Value::Null);
    let (_, _, text) = server.get(CONFIG_MAPS, &[]).await;
    assert_eq!(parsed(&text)["items"], json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_travel_in_headers() {
    let server = server().await;
    let odd = r#"{"metadata": {"name": "c"}, "dta": {}}"#;
    let (code, headers, _) = server.call("POST", CONFIG_MAPS, &[], odd).await;
    assert_eq!(
        (code, headers["warning"].to_str().ok()),
        (201, Some(r#"299 - "unknown field \"dta\"""#))
    );
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let (code, _, text) = server.call("POST", &strict, &[], odd).await;
    assert_eq!(code, 400);
    assert!(text.contains("strict decoding error: unknown field"), "{text}");
    let (code, _, _) =
        server.call("POST", &format!("{CONFIG_MAPS}?fieldValidation=Maybe"), &[], odd).await;
    assert_eq!(code, 422);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_go_where_the_path_leads() {
    let server = server().await;
    server
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}))
        .await;
    let one = format!("{CONFIG_MAPS}/c");
    let merge = ("content-type", "application/merge-patch+json");
    let (code, _, text) = server.call("PATCH", &one, &[merge], r#"{"data": {"a": null}}"#).await;
    assert_eq!((code, &parsed(&text)["data"]), (200, &json!({"b": "2"})));
    let json_patch = ("content-type", "application/json-patch+json");
    let (code, _, _) = server
        .call("PATCH", &one, &[json_patch], r#"[{"op": "add", "path": "/data/c", "value": "3"}]"#)
        .await;
    assert_eq!(code, 200);
    let (code, _, text) = server.call("PATCH", &one, &[merge], "[]").await;
    assert_eq!((code, &parsed(&text)["reason"]), (400, &json!("BadRequest")));
    for (method, path) in [
        ("POST", one.as_str()),
        ("PUT", CONFIG_MAPS),
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps"),
        ("POST", "/version"),
        ("DELETE", "/api/v1/namespaces"),
    ] {
        let (code, _, _) = server.call(method, path, &[], r#"{"metadata": {"name": "c"}}"#).await;
        assert_eq!(code, 405, "{method} {path}");
    }
    let (code, _, text) = server
        .call(
            "DELETE",
            &one,
            &[],
            r#"{"propagationPolicy": "Background", "preconditions": {"uid": "x"}}"#,
        )
        .await;
    assert_eq!((code, &parsed(&text)["reason"]), (409, &json!("Conflict")));
    let (code, _, text) =
        server.call("DELETE", &format!("{one}?gracePeriodSeconds=0"), &[], "").await;
    assert_eq!((code, &parsed(&text)["status"]), (200, &json!("Success")));
    let (code, _, _) = server.get(&one, &[]).await;
    assert_eq!(code, 404);
    let huge =
        format!(r#"{{"metadata": {{"name": "h"}}, "data": {{"a": "{}"}}}}"#, "x".repeat(4 << 20));
    let (code, _, text) = server.call("POST", CONFIG_MAPS, &[], &huge).await;
    assert_eq!((code, &parsed(&text)["reason"]), (413, &json!("RequestEntityTooLarge")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_streams_until_its_time_is_over() {
    let server = server().await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2"
    );
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    let mut lines = Lines::of(server.admin(request("GET", &path, &[], "")).await);
    let first = lines.next().await.expect("an event");
    assert_eq!(
        (&first["type"], &first["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("a"))
    );
    let end = lines.next().await.expect("an event");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let made = server.create(CONFIG_MAPS, &json!({"metadata": {"name": "b"}})).await;
    let event = lines.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &made));
    let last = lines.next().await.expect("a bookmark at the end");
    assert_eq!(last["type"], "BOOKMARK");
    assert_eq!(last["object"]["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(lines.next().await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_watched_row_by_row() {
    let server = server().await;
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}})).await;
    let mut lines = Lines::of(
        server.admin(request("GET", &format!("{CONFIG_MAPS}?watch=true"), &[TABLE], "")).await,
    );
    let first = lines.next().await.expect("an event");
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "b"}})).await;
    let second = lines.next().await.expect("an event");
    assert_eq!(second["object"]["columnDefinitions"], json!([]));
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    drop(lines);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_end_when_the_server_closes() {
    let server = server().await;
    let mut lines =
        Lines::of(server.admin(request("GET", "/api/v1/namespaces?watch=true", &[], "")).await);
    assert!(lines.next().await.is_some());
    tokio::time::timeout(DEADLINE, server.stop()).await.expect("closes in time");
    while lines.next().await.is_some() {}
}

/// Containers in which `echo` answers with its input, `fail` ends with 7, and everything else cannot be run.
struct Scripted;

impl PodStreams for Scripted {
    fn logs<'a>(
        &'a self,
        _: &'a Value,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, std::io::Result<Bytes>>, Status>> {
        let said = format!("{options:?}\n");
        Box::pin(async move {
            let first = stream::iter([Ok(Bytes::from(said))]);
            Ok(if options.follow { first.chain(stream::pending()).boxed() } else { first.boxed() })
        })
    }

    fn exec<'a>(
        &'a self,
        _: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        Box::pin(async move {
            let (stdin, mut input) = tokio::io::duplex(64);
            let (stdout, mut output) = tokio::io::duplex(64);
            let exit = match request.command[0].as_str() {
                "echo" => ExecExit::Code(0),
                "fail" => ExecExit::Code(7),
                other => return Err(Status::bad_request(format!("{other}: not found"))),
            };
            let program = tokio::spawn(async move {
                let mut bytes = Vec::new();
                if request.stdin {
                    input.read_to_end(&mut bytes).await.expect("input");
                }
                output.write_all(&bytes).await.expect("output");
                exit
            });
            Ok(ExecSession {
                stdin: Some(Box::pin(stdin)),
                stdout: Some(Box::pin(stdout)),
                stderr: None,
                resize: None,
                exit: Box::pin(async move { program.await.expect("no panic") }),
            })
        })
    }

    fn attach<'a>(
        &'a self,
        pod: &'a Value,
        request: ExecRequest,
    ) -> BoxFuture<'a, Result<ExecSession, Status>> {
        self.exec(pod, ExecRequest { command: vec!["echo".to_owned()], ..request })
    }
}

async fn with_pod() -> Running {
    let server = Running::start(Arc::new(Scripted)).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    server.create("/api/v1/namespaces/default/pods", &pod).await;
    server
}

/// Runs a program and gives what came on each channel, and the code of the close.
async fn run(
    server: &Running,
    query: &str,
    protocol: &str,
    input: &[&[u8]],
) -> (Vec<u8>, Value, Option<u16>) {
    let url = format!("wss://localhost/api/v1/namespaces/default/pods/p/exec?{query}");
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    let stream = server.connect(Some(server.pki.self_signed(true))).await.expect("connected");
    let (mut socket, answer) =
        tokio_tungstenite::client_async(request, stream).await.expect("upgraded");
    assert_eq!(
        answer.headers()["sec-websocket-protocol"],
        protocol.split(',').next().expect("one")
    );
    for piece in input {
        socket.send(Message::Binary(piece.to_vec().into())).await.expect("sent");
    }
    let (mut output, mut ending, mut code) = (Vec::new(), Value::Null, None);
    while let Some(message) = tokio::time::timeout(DEADLINE, socket.next()).await.expect("in time")
    {
        match message {
            Ok(Message::Binary(bytes)) if bytes[0] == 1 => output.extend_from_slice(&bytes[1..]),
            Ok(Message::Binary(bytes)) if bytes[0] == 3 => {
                ending = serde_json::from_slice(&bytes[1..]).expect("a status");
            }
            Ok(Message::Close(frame)) => code = frame.map(|frame| frame.code.into()),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(_) => break,
        }
    }
    (output, ending, code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_gets_its_input_and_gives_its_output() {
    let server = with_pod().await;
    let big = [&[0_u8][..], &vec![b'x'; 100_000]].concat();
    let input: [&[u8]; 4] = [b"\0hello ", &[4, b'{', b'}'], &big, &[255, 0]];
    let query = "command=echo&stdin=true&stdout=true";
    let (output, ending, close) =
        run(&server, query, "v5.channel.k8s.io,v4.channel.k8s.io", &input).await;
    assert_eq!((output.len(), &output[..6]), (100_006, &b"hello "[..]));
    assert_eq!(ending, json!({"metadata": {}, "status": "Success"}));
    assert_eq!(close, Some(1000));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_says_with_which_code() {
    let server = with_pod().await;
    let (_, ending, _) = run(&server, "command=fail&stdout=true", "v4.channel.k8s.io", &[]).await;
    assert_eq!(
        (&ending["status"], &ending["reason"]),
        (&json!("Failure"), &json!("NonZeroExitCode"))
    );
    assert_eq!(ending["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
    let (_, ending, _) =
        run(&server, "command=nothing&stdout=true", "v5.channel.k8s.io", &[]).await;
    assert_eq!(
        (&ending["status"], &ending["message"]),
        (&json!("Failure"), &json!("nothing: not found"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_refused_with_a_reason() {
    let server = with_pod().await;
    let pod = "/api/v1/namespaces/default/pods/p";
    for (path, code, message) in [
        (
            format!("{pod}/exec?command=a&stdout=1&container=x"),
            400,
            "container x is not valid for pod p",
        ),
        (
            format!("{pod}/exec?stdout=1"),
            400,
            "you must specify at least 1 command for the container",
        ),
        (format!("{pod}/exec?command=a&stdout=1"), 400, "Upgrade request required"),
        (format!("{pod}x/log"), 404, "pods \"px\" not found"),
        (
            format!("{pod}/log?sinceSeconds=0"),
            422,
            "PodLogOptions \"\" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            format!("{pod}/log?tailLines=x"),
            400,
            "invalid value for query parameter tailLines: \"x\" is not a number",
        ),
    ] {
        let (found, _, text) = server.get(&path, &[]).await;
        assert_eq!((found, &parsed(&text)["message"]), (code, &json!(message)), "{path}");
    }
    let spdy = [("upgrade", "SPDY/3.1"), ("connection", "upgrade")];
    let (code, _, text) =
        server.call("POST", &format!("{pod}/exec?command=a&stdout=1"), &spdy, "").await;
    assert_eq!(code, 400);
    assert!(text.contains("SPDY is not supported"), "{text}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_asked_for_as_the_client_wants_them() {
    let server = with_pod().await;
    let log = "/api/v1/namespaces/default/pods/p/log";
    let (code, headers, text) = server.get(&format!("{log}?tailLines=3&timestamps=true&previous=true&limitBytes=9&sinceTime=2026-11-21T10:00:00Z"), &[]).await;
    assert_eq!(
        (code, headers["content-type"].to_str().ok()),
        (200, Some("text/plain; charset=utf-8"))
    );
    let wanted = LogOptions {
        container: "c".to_owned(),
        follow: false,
        previous: true,
        since: "2026-11-21T10:00:00Z".parse().ok(),
        tail_lines: Some(3),
        timestamps: true,
        limit_bytes: Some(9),
    };
    assert_eq!(text, format!("{wanted:?}\n"));
    let follow = server.admin(request("GET", &format!("{log}?follow=true"), &[], "")).await;
    let mut body = follow.into_body();
    let first =
        http_body_util::BodyExt::frame(&mut body).await.expect("a piece").expect("no error");
    assert!(first.data_ref().is_some_and(|bytes| bytes.starts_with(b"LogOptions")));
    tokio::time::timeout(DEADLINE, server.stop()).await.expect("closes in time");
}
