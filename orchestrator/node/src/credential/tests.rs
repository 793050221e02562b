//! A voter's API behind TLS, and a node that has its credential from it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;

use futures::future::BoxFuture;
use podium_api::auth::certificate::AdminKey;
use podium_api::http::{Server, TlsParts, serve as serve_api, tls_config};
use podium_api::patch::Patch;
use podium_api::pipeline::{Config, DeleteOptions, WriteOptions};
use podium_api::seams::{SystemClock, SystemIds};
use podium_api::streams::NoPodStreams;
use podium_api::{Pipeline, Target, User, bootstrap};
use podium_store::EphemeralStore;
use podium_types::kind::resources;
use podium_types::{GroupResource, ObjectKey, object};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authority::{Authority, ServerNames, Shown};
use crate::voters::Voters;
use crate::worker::{Desk, Session, Visitor, serve};

const LIMIT: Duration = Duration::from_secs(60);
const DAY: time::Duration = time::Duration::DAY;

/// A voter, and the way of the node `n4` to it.
struct Voter {
    desk: Desk,
    api: SocketAddr,
}

impl Dial for Voter {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Session>, String>> {
        Box::pin(async {
            let (here, there) = tokio::io::duplex(4096);
            let desk = self.desk.clone();
            let visitor = Visitor { node: "n4".to_owned(), key: vec![4], address: None };
            tokio::spawn(async move { drop(serve(there, &desk, &visitor).await) });
            Ok(Box::new(here) as Box<dyn Session>)
        })
    }
}

/// What the API answered.
#[derive(Debug)]
struct Answer {
    code: u16,
    body: Value,
}

impl Answer {
    fn message(&self) -> &str {
        object::str_at(&self.body, &["message"]).unwrap_or_default()
    }
}

impl Voter {
    async fn start() -> Arc<Self> {
        let store = EphemeralStore::default();
        let authority = Arc::new(Authority::obtain(&store).await.expect("an authority"));
        let pipeline = Pipeline::new(
            Arc::new(store),
            Arc::new(SystemClock::default()),
            Arc::new(SystemIds),
            Config::default(),
        );
        let server = [127, 0, 0, 1].into();
        bootstrap::ensure(&pipeline, &[server], 6443).await.expect("first objects");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let api = listener.local_addr().expect("an address");
        let names = ServerNames {
            node: "n1".to_owned(),
            machine: vec![server],
            others: Vec::new(),
            other_addresses: Vec::new(),
            service: Ipv4Addr::new(10, 96, 0, 1),
        };
        let names = watch::channel(names).1;
        let shown = Shown::start(Arc::clone(&authority), names).expect("a certificate");
        let admin = AdminKey(vec![1]);
        let parts = TlsParts {
            authority: authority.der().expect("a certificate"),
            certificate: Arc::new(shown),
            admin: admin.clone(),
        };
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(parts).expect("TLS")));
        let server = Server::new(pipeline.clone(), Arc::new(NoPodStreams));
        tokio::spawn(serve_api(listener, acceptor, server, admin, std::future::pending()));
        let desk = Desk { pipeline, voters: Voters::new([vec![1]]), authority };
        let voter = Arc::new(Self { desk, api });
        voter.furnish().await;
        voter
    }

    /// Two nodes, each with a pod that uses a Secret of its own, and a Secret that nobody uses.
    async fn furnish(&self) {
        for (node, key, secret) in [("n1", "AQ==", "theirs"), ("n4", "BA==", "mine")] {
            let machine = json!({"apiVersion": "podium.dev/v1", "kind": "Machine", "metadata": {"name": node},
                "spec": {"identityKey": key}});
            self.make(resources::MACHINES, machine).await;
            let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
            self.make(resources::NODES, object).await;
            let pod = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("on-{node}"), "namespace": "default"},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i",
                    "envFrom": [{"secretRef": {"name": secret}}]}]}});
            self.make(resources::PODS, pod).await;
            self.make_secret(secret).await;
        }
        self.make_secret("nobodys").await;
    }

    async fn make_secret(&self, name: &str) {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"word": name},
            "metadata": {"name": name, "namespace": "default"}});
        self.make(resources::SECRETS, secret).await;
    }

    async fn make(&self, resource: GroupResource, object: Value) {
        let key = ObjectKey::new(resource, object::namespace(&object), "");
        let target = Target::object(&key).expect("served");
        let (admin, options) = (User::admin(), WriteOptions::default());
        let made = self.desk.pipeline.create(&admin, &target, object.into(), &options);
        made.await.unwrap_or_else(|status| panic!("{}", status.message));
    }

    fn keeper(self: &Arc<Self>, identity: &TempDir) -> Keeper {
        Keeper::new(identity.path(), "n4", self.desk.authority.pem(), Arc::clone(self) as _)
    }

    /// Asks the API with the certificate and key in `pem`, or with none.
    async fn ask(&self, pem: Option<&str>, line: &str, body: &Value) -> io::Result<Answer> {
        let mut roots = RootCertStore::empty();
        roots.add(self.desk.authority.der().expect("a certificate")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match pem {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let chain = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
                config.with_client_auth_cert(vec![chain], key).expect("a pair")
            }
        };
        let asked = async {
            let stream = TcpStream::connect(self.api).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let (kind, length) = (patch_or_json(line), body.len());
            let request = format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let answer = timeout(LIMIT, asked).await.expect("in time")?;
        Ok(parse(&String::from_utf8_lossy(&answer)))
    }
}

fn patch_or_json(line: &str) -> &'static str {
    if line.starts_with("PATCH") { "application/merge-patch+json" } else { "application/json" }
}

fn parse(answer: &str) -> Answer {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let json = answer.find('{').zip(answer.rfind('}'));
    let json = json.map_or(Ok(Value::Null), |(from, to)| serde_json::from_str(&answer[from..=to]));
    Answer { code, body: json.unwrap_or_else(|error| panic!("{error}: {answer}")) }
}

/// The credential of `n4`, as it is on the disk.
async fn credential(voter: &Arc<Voter>) -> (TempDir, String) {
    let identity = tempfile::tempdir().expect("a folder");
    voter.keeper(&identity).renew().await.expect("a credential");
    let pem = std::fs::read_to_string(identity.path().join("api/node.pem")).expect("the file");
    (identity, pem)
}

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

#[tokio::test]
async fn a_worker_reads_the_secrets_of_its_own_pods_alone() {
    let voter = Voter::start().await;
    let (_folder, pem) = credential(&voter).await;
    let get =
        async |line: &str| voter.ask(Some(&pem), line, &Value::Null).await.expect("an answer");
    let mine = get(&format!("GET {SECRETS}/mine")).await;
    assert_eq!((mine.code, mine.body["data"]["word"].as_str()), (200, Some("bWluZQ==")));
    let theirs = get(&format!("GET {SECRETS}/theirs")).await;
    assert_eq!(theirs.code, 403);
    assert_eq!(
        theirs.message(),
        "secrets \"theirs\" is forbidden: User \"system:node:n4\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"default\": no relationship found between node 'n4' and this object"
    );
    assert_eq!(theirs.body["reason"], "Forbidden");
    for path in
        ["nobodys", "never-made", "", "?watch=true", "?fieldSelector=metadata.name%3Dtheirs"]
    {
        let slash = if path.starts_with('?') || path.is_empty() { "" } else { "/" };
        let answer = get(&format!("GET {SECRETS}{slash}{path}")).await;
        assert_eq!(answer.code, 403, "{path:?}: {answer:?}");
    }
    assert_eq!(get("GET /api/v1/secrets").await.code, 403);
    let one = get(&format!("GET {SECRETS}?fieldSelector=metadata.name%3Dmine")).await;
    assert_eq!((one.code, object::list_at(&one.body, &["items"]).len()), (200, 1));
    let pods = get(&format!("GET {PODS}?fieldSelector=spec.nodeName%3Dn4")).await;
    let names: Vec<&str> =
        object::list_at(&pods.body, &["items"]).iter().map(object::name).collect();
    assert_eq!((pods.code, names), (200, vec!["on-n4"]));
    assert_eq!(get(&format!("GET {PODS}/on-n4")).await.code, 200);
    for other in [format!("{PODS}/on-n1"), PODS.to_owned(), format!("{PODS}?watch=1")] {
        assert_eq!(get(&format!("GET {other}")).await.code, 403, "{other}");
    }
}

#[tokio::test]
async fn a_worker_writes_only_what_is_its_own() {
    let voter = Voter::start().await;
    let (_folder, pem) = credential(&voter).await;
    let ask = async |line: &str, body: &Value| {
        voter.ask(Some(&pem), line, body).await.expect("an answer")
    };
    let note = json!({"metadata": {"annotations": {"note": "x"}}});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n4"}, "spec": {"holderIdentity": "n4"}});
    let running = json!({"status": {"message": "x"}});
    let machines = "/apis/podium.dev/v1/machines";
    for (line, body) in [
        ("PATCH /api/v1/nodes/n4/status".to_owned(), &note),
        (format!("PATCH {machines}/n4/status"), &note),
        (format!("PATCH {PODS}/on-n4/status"), &running),
        (format!("POST {LEASES}"), &lease),
    ] {
        let answer = ask(&line, body).await;
        assert!(matches!(answer.code, 200 | 201), "{line}: {answer:?}");
    }
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n9"}});
    let other_lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "n1"}, "spec": {}});
    let mirror = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "mirror", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "n4", "containers": [{"name": "c", "image": "i",
            "envFrom": [{"secretRef": {"name": "theirs"}}]}]}});
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "on-n1"},
        "target": {"kind": "Node", "name": "n4"}});
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let label = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let identity = json!({"spec": {"identityKey": "CQ=="}});
    let voting = json!({"status": {"voter": true}});
    for (line, body, why) in [
        ("PATCH /api/v1/nodes/n1/status", &note, "node 'n4' may only change its own"),
        ("PATCH /api/v1/nodes/n1", &note, "node 'n4' may only change its own"),
        ("DELETE /api/v1/nodes/n1", &Value::Null, "cannot delete resource \"nodes\""),
        ("DELETE /api/v1/nodes/n4", &Value::Null, "cannot delete resource \"nodes\""),
        ("POST /api/v1/nodes", &node, "cannot create resource \"nodes\""),
        ("PATCH /api/v1/nodes/n4", &taint, "node \"n4\" is not allowed to modify taints"),
        ("PATCH /api/v1/nodes/n4", &label, "is not allowed to modify labels: node-role"),
        (&format!("PATCH {machines}/n1"), &note, "node 'n4' may only change its own"),
        (&format!("PATCH {machines}/n1/status"), &note, "node 'n4' may only change its own"),
        (&format!("PATCH {machines}/n4"), &identity, "is not allowed to modify its identity"),
        (&format!("PATCH {machines}/n4/status"), &voting, "not allowed to call itself a voter"),
        (
            &format!("PATCH {PODS}/on-n1/status"),
            &running,
            "can only update pod status for pods with",
        ),
        (&format!("DELETE {PODS}/on-n1"), &Value::Null, "can only delete pods with spec.nodeName"),
        (&format!("PATCH {PODS}/on-n4"), &note, "cannot patch resource \"pods\""),
        (&format!("POST {PODS}"), &mirror, "cannot create resource \"pods\""),
        (
            &format!("POST {PODS}/on-n1/binding"),
            &binding,
            "cannot create resource \"pods/binding\"",
        ),
        (&format!("POST {LEASES}"), &other_lease, "can only access node lease with the same name"),
        (&format!("PATCH {LEASES}/n1"), &note, "can only access node lease with the same name"),
        (&format!("POST {PODS}/on-n4/exec?command=sh"), &Value::Null, "resource \"pods/exec\""),
        (&format!("GET {PODS}/on-n4/exec?command=sh"), &Value::Null, "resource \"pods/exec\""),
        (&format!("GET {PODS}/on-n4/log"), &Value::Null, "resource \"pods/log\""),
    ] {
        let answer = ask(line, body).await;
        assert_eq!(
            (answer.code, answer.body["reason"].as_str()),
            (403, Some("Forbidden")),
            "{line}"
        );
        assert!(answer.message().contains(why), "{line}: {}", answer.message());
    }
}

#[tokio::test]
async fn who_has_no_certificate_of_this_cluster_that_is_not_over_gets_nothing() {
    let voter = Voter::start().await;
    let (_folder, pem) = credential(&voter).await;
    let line = format!("GET {PODS}/on-n4");
    let ask = async |pem: Option<&str>| voter.ask(pem, &line, &Value::Null).await;
    assert_eq!(ask(Some(&pem)).await.expect("an answer").code, 200);
    assert_eq!(ask(None).await.expect("an answer").code, 401);
    let by = |authority: &Authority, days: i32| {
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        let until = OffsetDateTime::now_utc() + DAY * days;
        let certificate =
            authority.certify_until("n4", &[4], request.der(), until).expect("certified");
        certificate + &key.serialize_pem()
    };
    assert_eq!(ask(Some(&by(&voter.desk.authority, 1))).await.expect("an answer").code, 200);
    ask(Some(&by(&voter.desk.authority, -1))).await.expect_err("it is over");
    let stranger = Authority::obtain(&EphemeralStore::default()).await.expect("an authority");
    ask(Some(&by(&stranger, 1))).await.expect_err("of another cluster");
}

#[tokio::test]
async fn a_certificate_is_good_for_nothing_without_its_machine() {
    let voter = Voter::start().await;
    let (_folder, pem) = credential(&voter).await;
    let lines = [format!("GET {SECRETS}/mine"), "GET /api/v1/services".to_owned()];
    let codes = async |why: &str| {
        let mut codes = Vec::new();
        for line in &lines {
            let answer = voter.ask(Some(&pem), line, &Value::Null).await.expect("an answer");
            assert!(answer.code == 200 || answer.message().ends_with(why), "{answer:?}");
            codes.push(answer.code);
        }
        codes
    };
    assert_eq!(codes("").await, [200, 200]);
    let key = ObjectKey::new(resources::MACHINES, "", "n4");
    let (target, admin) = (Target::object(&key).expect("served"), User::admin());
    let pipeline = &voter.desk.pipeline;
    let another = Patch::merge(json!({"spec": {"identityKey": "CQ=="}})).expect("a patch");
    let patched = pipeline.patch(&admin, &target, &another, &WriteOptions::default()).await;
    assert!(patched.is_ok());
    assert_eq!(codes("another machine has the name 'n4' now").await, [403, 403]);
    assert!(pipeline.delete(&admin, &target, &DeleteOptions::default()).await.is_ok());
    assert_eq!(codes("there is no machine 'n4' any more").await, [403, 403]);
}

#[tokio::test]
async fn a_credential_is_made_at_the_start_and_kept_for_root_alone() {
    let voter = Voter::start().await;
    let identity = tempfile::tempdir().expect("a folder");
    let (held, mut told) = watch::channel(None);
    let running = tokio::spawn(voter.keeper(&identity).run(held));
    let until = timeout(LIMIT, told.wait_for(Option::is_some)).await.expect("in time");
    let until = until.expect("it runs").expect("an end");
    assert!(until > OffsetDateTime::now_utc() + DAY * 29);
    running.abort();
    let file = |name: &str| identity.path().join("api").join(name);
    for name in ["node.pem", "authority.pem", "kubeconfig"] {
        let mode = std::fs::metadata(file(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let kubeconfig = std::fs::read_to_string(file("kubeconfig")).expect("a kubeconfig");
    assert!(kubeconfig.contains("client-key: node.pem"), "{kubeconfig}");
    assert_eq!(voter.keeper(&identity).read().expect("a credential").until, until);
}

#[tokio::test]
async fn a_credential_is_renewed_before_it_is_over_and_after() {
    let voter = Voter::start().await;
    for days in [9, -40] {
        let identity = tempfile::tempdir().expect("a folder");
        let keeper = voter.keeper(&identity);
        let old = keeper.renew().await.expect("a credential").until;
        let pair = || std::fs::read_to_string(identity.path().join("api/node.pem")).expect("it");
        let before = pair();
        let mut keeper = voter.keeper(&identity);
        let now = old - DAY * days;
        keeper.now = Box::new(move || now);
        let running = tokio::spawn(keeper.run(watch::Sender::new(None)));
        let renewed = async {
            while pair() == before {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, renewed).await.expect("in time");
        running.abort();
        let key = |pem: &str| pem[pem.find("PRIVATE").expect("a key")..].to_owned();
        assert_ne!(key(&pair()), key(&before), "each certificate has a key of its own");
    }
}

#[tokio::test]
async fn what_is_no_credential_of_this_node_is_made_anew() {
    let voter = Voter::start().await;
    let (identity, good) = credential(&voter).await;
    let keeper = voter.keeper(&identity);
    assert!(keeper.read().is_some());
    let (_folder, other) = credential(&voter).await;
    let key = good.find("-----BEGIN PRIVATE").expect("a key");
    let mixed =
        format!("{}{}", &other[..other.find("-----BEGIN PRIVATE").expect("a key")], &good[key..]);
    for (bad, why) in [
        (String::new(), "empty"),
        (good[..key].to_owned(), "without a key"),
        (good[key..].to_owned(), "without a certificate"),
        (mixed, "of two pairs"),
    ] {
        std::fs::write(identity.path().join("api/node.pem"), bad).expect("written");
        assert!(keeper.read().is_none(), "{why}");
    }
    let authority = voter.desk.authority.pem();
    assert!(Held::parse(&good, "n4", authority).is_ok());
    let another = Held::parse(&good, "n5", authority).expect_err("of n4");
    assert!(matches!(another, Unfit::AnotherNode(name) if name == "system:node:n4"));
    let stranger = Authority::obtain(&EphemeralStore::default()).await.expect("an authority");
    let another = Held::parse(&good, "n4", stranger.pem()).expect_err("of another cluster");
    assert!(matches!(another, Unfit::AnotherAuthority));
}
