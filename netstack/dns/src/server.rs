//! The server: sockets, and from a question to its answer.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hickory_resolver::proto::op::{MessageType, Metadata, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use crate::forward::{Forwarder, Upstreams};
use crate::zone::{Answer, Data, Kind, Zone};

/// Clients that do not honour it apart, a name's change is seen after this long: as long as CoreDNS's default in a cluster
/// is 30 s, and short enough not to matter for stable service addresses.
const TTL_SECONDS: u32 = 5;
/// An idle TCP client keeps its connection for this long (RFC 7766, 6.2.3: "a few seconds").
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_RESPONSES: usize = 32;
/// An alias may lead to another one, but not for ever.
const ALIASES_MAX: usize = 8;

/// The zone as node and server share it. The node holds the lock only to replace a service's records.
pub type SharedZone = Arc<RwLock<Zone>>;

/// Why the name server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be served; another server may have it.
    #[error("serve names at {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The resolver for other names could not be made.
    #[error("prepare asking the name servers {0:?}")]
    Upstreams(Upstreams, #[source] hickory_resolver::net::NetError),
    /// It has stopped by itself.
    #[error("the name server has stopped")]
    Stopped(#[source] hickory_resolver::net::NetError),
}

/// A name server on some addresses; it serves while [`Server::run`] runs.
pub struct Server {
    server: hickory_server::Server<Handler>,
}

impl Server {
    /// Binds the addresses, by UDP and TCP.
    ///
    /// # Errors
    /// An address is not this machine's, or is taken.
    pub async fn bind(
        addresses: &[SocketAddr],
        zone: SharedZone,
        upstreams: &Upstreams,
    ) -> Result<Self, ServerError> {
        let forwarder = Forwarder::new(upstreams)
            .map_err(|error| ServerError::Upstreams(upstreams.clone(), error))?;
        let mut server = hickory_server::Server::new(Handler { zone, forwarder });
        for address in addresses {
            let failed = |error| ServerError::Bind(*address, error);
            server.register_socket(UdpSocket::bind(address).await.map_err(failed)?);
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            server.register_listener(listener, TCP_IDLE, TCP_RESPONSES);
        }
        Ok(Self { server })
    }

    /// Serves until it fails; dropping the future stops it.
    ///
    /// # Errors
    /// A socket failed.
    pub async fn run(mut self) -> Result<(), ServerError> {
        self.server.block_until_done().await.map_err(ServerError::Stopped)
    }
}

struct Handler {
    zone: SharedZone,
    forwarder: Forwarder,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let answers = match request.request_info() {
            Ok(info)
                if request.metadata.op_code == OpCode::Query
                    && request.metadata.message_type == MessageType::Query =>
            {
                let name = Name::from(info.query.name());
                self.resolve(&name, info.query.query_type(), &mut metadata).await
            }
            Ok(_) => Err(ResponseCode::NotImp),
            Err(_) => Err(ResponseCode::FormErr),
        };
        let records = answers.unwrap_or_else(|code| {
            metadata.response_code = code;
            Vec::new()
        });
        let builder = MessageResponseBuilder::from_message_request(request);
        let response = builder.build(metadata, &records, [], [], []);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            // The client is gone, or its answer does not fit: there is nobody to tell.
            Err(_) => failed(metadata),
        }
    }
}

impl Handler {
    async fn resolve(
        &self,
        asked: &Name,
        kind: RecordType,
        metadata: &mut Metadata,
    ) -> Result<Vec<Record>, ResponseCode> {
        let mut records = Vec::new();
        let mut name = asked.clone();
        for _ in 0..ALIASES_MAX {
            match self.look_up(&name, kind) {
                Answer::Records(found) => {
                    metadata.authoritative = true;
                    records.extend(found.into_iter().filter_map(|data| record(&name, data)));
                    return Ok(records);
                }
                Answer::Alias(target) => {
                    metadata.authoritative = true;
                    let target = parse(&target).ok_or(ResponseCode::ServFail)?;
                    let alias = RData::CNAME(CNAME(target.clone()));
                    records.push(Record::from_rdata(name, TTL_SECONDS, alias));
                    name = target;
                }
                Answer::NoData => {
                    metadata.authoritative = true;
                    return Ok(records);
                }
                Answer::NoSuchName => {
                    metadata.authoritative = true;
                    return Err(ResponseCode::NXDomain);
                }
                Answer::Elsewhere => {
                    records.extend(self.forwarder.ask(name, kind).await.or_else(no_data)?);
                    return Ok(records);
                }
            }
        }
        Err(ResponseCode::ServFail)
    }

    fn look_up(&self, name: &Name, kind: RecordType) -> Answer {
        // A writer that panicked left whole records behind: it only ever replaces maps' entries.
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner);
        zone.lookup(&name.to_ascii(), kind_of(kind))
    }
}

/// "No error" without records is an answer.
fn no_data(code: ResponseCode) -> Result<Vec<Record>, ResponseCode> {
    if code == ResponseCode::NoError { Ok(Vec::new()) } else { Err(code) }
}

fn failed(mut metadata: Metadata) -> ResponseInfo {
    metadata.response_code = ResponseCode::ServFail;
    let counts = hickory_resolver::proto::op::HeaderCounts::default();
    ResponseInfo::from(hickory_resolver::proto::op::Header { metadata, counts })
}

fn kind_of(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::V4,
        RecordType::AAAA => Kind::V6,
        RecordType::CNAME => Kind::Alias,
        RecordType::PTR => Kind::Pointer,
        RecordType::SRV => Kind::Server,
        RecordType::TXT => Kind::Text,
        _ => Kind::Other,
    }
}

fn parse(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn record(name: &Name, data: Data) -> Option<Record> {
    const PRIORITY: u16 = 0;
    const WEIGHT: u16 = 100;
    let data = match data {
        Data::Address(std::net::IpAddr::V4(address)) => RData::A(A(address)),
        Data::Address(std::net::IpAddr::V6(address)) => RData::AAAA(AAAA(address)),
        Data::Alias(target) => RData::CNAME(CNAME(parse(&target)?)),
        Data::Pointer(target) => RData::PTR(PTR(parse(&target)?)),
        Data::Server { port, target } => {
            RData::SRV(SRV::new(PRIORITY, WEIGHT, port, parse(&target)?))
        }
        Data::Text(text) => RData::TXT(TXT::new(vec![text])),
    };
    Some(Record::from_rdata(name.clone(), TTL_SECONDS, data))
}
