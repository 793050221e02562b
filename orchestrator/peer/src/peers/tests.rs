//! Machines on the loopback, with real sockets; some of them hostile.

use std::sync::OnceLock;
use std::time::Instant;

use podium_control::forming::{ClusterId, Machine, Standing};
use podium_store::{MessageKind, TransportError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::frame;

const TOKEN: [u8; 16] = [7; 16];
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers a message with itself, after taking note of who sent it; never, if it is to be silent.
#[derive(Default)]
struct Echo {
    silent: bool,
    from: Mutex<Vec<MemberId>>,
    nodes: Mutex<Vec<Vec<u8>>>,
    only: Mutex<Option<BTreeSet<Fingerprint>>>,
}

impl Services for Echo {
    fn propose(&self, _: Fingerprint, set: MemberSet) -> BoxFuture<'_, Result<(), String>> {
        let answer = if set.cluster == ClusterId(1) { Ok(()) } else { Err("no".to_owned()) };
        Box::pin(std::future::ready(answer))
    }

    fn narrow(&self, only: BTreeSet<Fingerprint>) -> BoxFuture<'_, Result<(), String>> {
        let taken = only.len() > 2;
        *self.only.lock().expect("it") = Some(only);
        Box::pin(std::future::ready(if taken { Err("too many".to_owned()) } else { Ok(()) }))
    }

    fn join(&self, machine: Machine) -> BoxFuture<'_, Result<Joined, String>> {
        let joined = Joined {
            cluster: ClusterId(5),
            authority_pem: "pem".to_owned(),
            pods: "10.244.3.0/24".to_owned(),
            voters: vec![machine.public_key],
        };
        let taken = machine.name == "taken";
        Box::pin(std::future::ready(if taken { Err("taken".to_owned()) } else { Ok(joined) }))
    }

    fn store(&self, from: MemberId, message: Message) -> BoxFuture<'_, Option<Message>> {
        self.from.lock().expect("it").push(from);
        if self.silent {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Some(message)))
    }

    fn knows(&self, key: &[u8]) -> bool {
        self.nodes.lock().expect("it").iter().any(|known| known == key)
    }

    fn session(&self, _: Protocol, mut session: Session) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let heard: Result<String, _> = frame::hear(&mut session.stream, 64, DEADLINE).await;
            let _ = frame::say(&mut session.stream, &heard.unwrap_or_default(), DEADLINE).await;
        })
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn pace() -> Pace {
    Pace {
        hello: Duration::from_millis(100),
        patience: Duration::from_secs(2),
        connect: Duration::from_secs(1),
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
    }
}

fn key() -> NodeKey {
    NodeKey::from_pkcs8(&NodeKey::generate().expect("a key")).expect("the key")
}

struct Node {
    peers: Peers,
    key: NodeKey,
    echo: Arc<Echo>,
}

async fn started(name: &str, token: [u8; 16], key: NodeKey, echo: Echo) -> Node {
    let machine = Machine { member: 1, name: name.to_owned(), public_key: key.public().to_vec() };
    let standing = Standing::Blank { accepted: None };
    let hello = Hello { machine, expect: 3, standing, sees: BTreeMap::new(), choice: None };
    let config = Config {
        key: key.clone(),
        token: token.to_vec(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        addresses: vec![IpAddr::from([127, 0, 0, 1])],
        listed: Vec::new(),
        hints: Vec::new(),
        multicast: false,
        pace: pace(),
        clock: Arc::new(|| origin().elapsed()),
        hello,
    };
    let echo = Arc::new(echo);
    let peers = Peers::start(config, echo.clone()).await.expect("started");
    Node { peers, key, echo }
}

async fn node(name: &str) -> Node {
    started(name, TOKEN, key(), Echo::default()).await
}

impl Node {
    fn address(&self) -> SocketAddr {
        self.peers.local_address()
    }

    async fn hears(&self, other: &NodeKey) {
        let mut heard = self.peers.heard();
        let waited = heard.wait_for(|heard| heard.contains_key(&other.fingerprint()));
        tokio::time::timeout(DEADLINE, waited).await.expect("heard in time").expect("alive");
    }
}

/// Polls a condition that nothing announces.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn machines_that_know_one_other_come_to_know_all() {
    let (one, two, three) = (node("n1").await, node("n2").await, node("n3").await);
    one.peers.try_address(two.address());
    three.peers.try_address(two.address());
    for here in [&one, &two, &three] {
        for there in [&one, &two, &three] {
            if here.key.fingerprint() != there.key.fingerprint() {
                here.hears(&there.key).await;
            }
        }
    }
    assert_eq!(one.peers.known().len(), 2);
    let set = |cluster| MemberSet { cluster: ClusterId(cluster), machines: BTreeMap::new() };
    let to = three.key.fingerprint();
    assert_eq!(one.peers.propose(to, set(1)).await, Ok(()));
    assert_eq!(one.peers.propose(to, set(2)).await, Err("no".to_owned()));
    assert!(one.peers.propose(key().fingerprint(), set(1)).await.is_err());
    let mut me = one.peers.shared.hello().hello.machine;
    let joined = one.peers.join(to, me.clone()).await.expect("a place");
    assert_eq!(joined.voters, [one.key.public()]);
    me.name = "taken".to_owned();
    assert_eq!(one.peers.join(to, me.clone()).await, Err("taken".to_owned()));
    me.public_key = three.key.public().to_vec();
    assert!(one.peers.join(to, me).await.is_err(), "nobody joins under another's key");
}

#[tokio::test]
async fn news_is_said_at_once_to_all() {
    let (one, two) = (node("n1").await, node("n2").await);
    one.peers.try_address(two.address());
    two.hears(&one.key).await;
    one.hears(&two.key).await;
    let mut hello = one.peers.shared.hello().hello;
    hello.standing = Standing::Member(ClusterId(5));
    one.peers.say(hello.clone());
    let mut heard = two.peers.heard();
    let news = heard
        .wait_for(|heard| heard.get(&one.key.fingerprint()).is_some_and(|it| it.hello == hello));
    tokio::time::timeout(DEADLINE, news).await.expect("in time").expect("alive");
}

#[tokio::test]
async fn a_wrong_token_is_named_on_both_sides() {
    let one = node("n1").await;
    let other = started("stranger", [8; 16], key(), Echo::default()).await;
    one.peers.try_address(other.address());
    let expected = |name: &str, key: &NodeKey| {
        Some(format!("127.0.0.1 ({name}, key {}): proves another token", key.fingerprint()))
    };
    until("this side says it", || one.peers.complaint() == expected("stranger", &other.key)).await;
    until("the other says it", || other.peers.complaint() == expected("n1", &one.key)).await;
    assert!(one.peers.heard().borrow().is_empty() && other.peers.heard().borrow().is_empty());
}

#[tokio::test]
async fn a_relay_between_two_machines_proves_nothing() {
    let (one, two) = (node("n1").await, node("n2").await);
    let relay = Tls::new(&key(), pace().patience).expect("TLS");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, behind) = (listener.local_addr().expect("it"), two.address());
    let relaying = tokio::spawn(async move {
        loop {
            let (stream, from) = listener.accept().await.expect("a connection");
            let relay = relay.clone();
            tokio::spawn(async move {
                let mut here = relay.accept(stream, from).await.expect("TLS");
                let mut there = relay.connect(behind, Protocol::Meet).await.expect("TLS");
                let _ = copy_bidirectional(&mut here.stream, &mut there.stream).await;
            });
        }
    });
    one.peers.try_address(address);
    for (here, name) in [(&one, "n2"), (&two, "n1")] {
        until("both refuse", || {
            here.peers.complaint().is_some_and(|text| {
                text.contains(&format!("({name}, key ")) && text.ends_with("proves another token")
            })
        })
        .await;
        assert!(here.peers.heard().borrow().is_empty());
    }
    relaying.abort();
}

#[tokio::test]
async fn strangers_with_huge_frames_are_cut_off_and_others_still_meet() {
    let (one, two) = (node("n1").await, node("n2").await);
    let hostile = Tls::new(&key(), pace().patience).expect("TLS");
    for protocol in [Protocol::Meet, Protocol::Store] {
        for length in [u32::MAX, 16 * 1024 * 1024, 257] {
            let mut secured = hostile.connect(one.address(), protocol).await.expect("TLS");
            let mut flood = length.to_le_bytes().to_vec();
            flood.resize(4096, 0xee);
            // Nobody reads it: sooner or later it cannot be written either.
            let written = async { while secured.stream.write_all(&flood).await.is_ok() {} };
            let mut sink = Vec::new();
            let flooded = tokio::time::timeout(DEADLINE, written);
            flooded.await.unwrap_or_else(|_| panic!("{protocol:?} {length} is cut off"));
            let _ = secured.stream.read_to_end(&mut sink).await;
            assert!(sink.len() < 1024, "{protocol:?} {length}: {} bytes", sink.len());
        }
    }
    one.peers.try_address(two.address());
    one.hears(&two.key).await;
    two.hears(&one.key).await;
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_others_out() {
    let (one, two) = (node("n1").await, node("n2").await);
    let mut silent = Vec::new();
    for number in 0..120u8 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 1, number / 20 + 1], 0))).expect("an address");
        silent.push(socket.connect(one.address()).await.expect("a connection"));
    }
    two.peers.try_address(one.address());
    two.hears(&one.key).await;
    drop(silent);
}

fn pin(nodes: &[(&Node, u64)], cluster: u128) -> Pinned {
    Pinned {
        cluster: Some(ClusterId(cluster)),
        keys: nodes.iter().map(|(node, id)| (MemberId(*id), node.key.public().to_vec())).collect(),
    }
}

/// A read index request, the smallest message there is, as the store's golden bytes have it.
fn message() -> Message {
    let hex = include_str!("../../../store/tests/golden/read-index-request-1.hex").trim();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    Message::from_bytes(bytes.into()).expect("a message")
}

async fn answered(node: &Node, to: u64) -> Result<Message, TransportError> {
    let call = node.peers.transport().call(MemberId(to), message());
    tokio::time::timeout(DEADLINE, call).await.expect("an answer in time")
}

async fn until_answered(node: &Node, to: u64) {
    let begun = Instant::now();
    while let Err(error) = answered(node, to).await {
        assert!(begun.elapsed() < DEADLINE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn members_call_each_other_and_find_one_that_has_moved() {
    let (one, two) = (node("n1").await, node("n2").await);
    let pinned = pin(&[(&one, 1), (&two, 2)], 9);
    one.peers.pin(pinned.clone());
    two.peers.pin(pinned.clone());
    assert!(matches!(answered(&one, 2).await, Err(TransportError::Unreachable { .. })));
    one.peers.try_address(two.address());
    until_answered(&one, 2).await;
    assert_eq!(answered(&one, 2).await.expect("an answer").kind, MessageKind::ReadIndex);
    assert_eq!(two.echo.from.lock().expect("it").first(), Some(&MemberId(1)));
    let many = (0..200).map(|_| answered(&one, 2));
    let all = futures::future::join_all(many).await;
    assert!(all.iter().all(Result::is_ok), "many are in flight at once");
    let key = two.key.clone();
    drop(two);
    until_refused(&one, 2).await;
    let two = started("n2", TOKEN, key, Echo::default()).await;
    two.peers.pin(pinned);
    two.peers.try_address(one.address());
    until_answered(&one, 2).await;
}

async fn until_refused(node: &Node, to: u64) {
    let begun = Instant::now();
    while answered(node, to).await.is_ok() {
        assert!(begun.elapsed() < DEADLINE, "it is gone");
    }
}

#[tokio::test]
async fn only_members_of_the_same_cluster_are_answered() {
    let (one, two) = (node("n1").await, node("n2").await);
    one.peers.try_address(two.address());
    one.hears(&two.key).await;
    one.peers.pin(pin(&[(&one, 1), (&two, 2)], 9));
    two.peers.pin(pin(&[(&two, 2)], 9));
    assert!(answered(&one, 2).await.is_err());
    let key = one.key.fingerprint();
    until("it is named", || {
        two.peers.complaint() == Some(format!("127.0.0.1 (key {key}): is not a member"))
    })
    .await;
    two.peers.pin(pin(&[(&one, 1), (&two, 2)], 8));
    assert!(answered(&one, 2).await.is_err());
    assert!(two.echo.from.lock().expect("it").is_empty());
    two.peers.pin(pin(&[(&one, 1), (&two, 2)], 9));
    until_answered(&one, 2).await;
}

#[tokio::test]
async fn a_member_that_stalls_is_given_up() {
    let one = node("n1").await;
    let two = started("n2", TOKEN, key(), Echo { silent: true, ..Echo::default() }).await;
    let pinned = pin(&[(&one, 1), (&two, 2)], 9);
    one.peers.pin(pinned.clone());
    two.peers.pin(pinned);
    one.peers.try_address(two.address());
    one.hears(&two.key).await;
    let begun = Instant::now();
    let error = answered(&one, 2).await.expect_err("no answer");
    assert!(matches!(error, TransportError::Broken { .. }), "{error}");
    assert!(begun.elapsed() >= pace().patience);
    let _ = TcpStream::connect(two.address()).await.expect("it lives");
}

#[tokio::test]
async fn sessions_are_for_nodes_whose_key_is_known() {
    let (one, two) = (node("n1").await, node("n2").await);
    one.peers.try_address(two.address());
    one.hears(&two.key).await;
    let mut refused = one.peers.open(two.key.public(), Protocol::Node).await.expect("TLS");
    let said = frame::say(&mut refused.stream, &"word", DEADLINE).await;
    let heard = frame::hear::<String>(&mut refused.stream, 64, DEADLINE).await;
    assert!(said.is_err() || heard.is_err());
    let named = format!("127.0.0.1 (key {}): is not a node of this cluster", one.key.fingerprint());
    until("it is named", || two.peers.complaint().as_ref() == Some(&named)).await;
    two.echo.nodes.lock().expect("it").push(one.key.public().to_vec());
    let mut session = one.peers.open(two.key.public(), Protocol::Streams).await.expect("TLS");
    assert_eq!(session.fingerprint, two.key.fingerprint());
    frame::say(&mut session.stream, &"word", DEADLINE).await.expect("said");
    let heard: String = frame::hear(&mut session.stream, 64, DEADLINE).await.expect("heard");
    assert_eq!(heard, "word");
    assert!(one.peers.open(key().public(), Protocol::Node).await.is_err());
}

#[tokio::test]
async fn an_operator_names_machines_to_all_of_them_or_to_none() {
    let (one, two) = (node("n1").await, node("n2").await);
    let form = async |addresses: &[SocketAddr]| {
        crate::operator::form(&TOKEN, addresses, pace()).await.map_err(|error| error.to_string())
    };
    let told = |node: &Node| node.echo.only.lock().expect("it").clone();
    let twice = form(&[one.address(), two.address(), one.address()]).await;
    assert!(twice.expect_err("one machine twice").contains("are one machine (n1)"));
    let other = started("n3", [8; 16], key(), Echo::default()).await;
    let refused = form(&[one.address(), other.address()]).await;
    assert!(refused.expect_err("another token").contains("(n3) has another token"));
    assert_eq!((told(&one), told(&two)), (None, None), "nobody is told before all have answered");
    let mut names = form(&[two.address(), one.address()]).await.expect("told");
    names.sort();
    assert_eq!(names, ["n1", "n2"]);
    let both = BTreeSet::from([one.key.fingerprint(), two.key.fingerprint()]);
    assert_eq!((told(&one), told(&two)), (Some(both.clone()), Some(both)));
    let third = node("n4").await;
    let all = [one.address(), two.address(), third.address()];
    assert!(form(&all).await.expect_err("too many").ends_with(": too many"));
}
