//! Names outside the cluster: asked of the machine's own name servers, and remembered for as long as they say.
//!
//! How many questions are under way at once is bounded: past the bound a question fails at once instead of waiting in a
//! queue that its asker has long given up on.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;

/// A busy node's pods ask a few hundred names a second; each takes milliseconds.
const UNDER_WAY_MAX: usize = 512;
/// Pods' own resolvers wait 5 s before they ask again (resolv.conf(5)).
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const CACHE_NAMES: u64 = 4096;

/// Who answers for the rest of the world. Empty: nobody does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstreams(pub Vec<SocketAddr>);

pub(crate) struct Forwarder {
    resolver: Option<TokioResolver>,
    under_way: Semaphore,
}

impl Forwarder {
    pub(crate) fn new(upstreams: &Upstreams) -> Result<Self, NetError> {
        let resolver = if upstreams.0.is_empty() { None } else { Some(resolver(upstreams)?) };
        Ok(Self { resolver, under_way: Semaphore::new(UNDER_WAY_MAX) })
    }

    /// The records of a name, or the code that says why there are none.
    pub(crate) async fn ask(
        &self,
        name: Name,
        kind: RecordType,
    ) -> Result<Vec<Record>, ResponseCode> {
        let Some(resolver) = &self.resolver else { return Err(ResponseCode::Refused) };
        let Ok(_place) = self.under_way.try_acquire() else { return Err(ResponseCode::ServFail) };
        match resolver.lookup(name, kind).await {
            Ok(found) => Ok(found.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Err(none.response_code),
            Err(_) => Err(ResponseCode::ServFail),
        }
    }
}

fn resolver(upstreams: &Upstreams) -> Result<TokioResolver, NetError> {
    let server = |address: &SocketAddr| {
        let connection = |mut connection: ConnectionConfig| {
            connection.port = address.port();
            connection
        };
        let connections =
            vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
        NameServerConfig::new(address.ip(), true, connections)
    };
    let config = ResolverConfig::from_name_servers(upstreams.0.iter().map(server).collect());
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = ANSWER_LIMIT;
    options.attempts = 2;
    options.cache_size = CACHE_NAMES;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    options.ndots = 0;
    builder.build()
}
