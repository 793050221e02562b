//! Services and their endpoints, as the kernel and the name server of this node see them.
//!
//! Two views of one watch. [`Catalogue`] is pure: objects in, a [`ServiceTable`] and the names that changed out. The loop
//! around it programs the kernel and the zone, and says up to which revision it has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use podium_dataplane::{Endpoint, Protocol, ServiceAddress, ServiceTable};
use podium_dns::{Backend, Port, Service as Name, ServiceKind, SharedZone};
use podium_store::StoreHandle;
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::{Service, ServicePort};
use podium_types::k8s::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use podium_types::kind::resources;
use serde::de::DeserializeOwned;

use crate::follow::{Follower, News};
use crate::network::SharedDataplane;

/// The kernel refuses only for lack of memory, or because of a bug; both may pass.
const RETRY: Duration = Duration::from_secs(1);
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A namespace and a name.
type Id = (String, String);

/// What is known of services.
pub(crate) struct Catalogue {
    /// Where pods of this node reach the API: the node itself.
    api: Endpoint,
    services: BTreeMap<Id, Service>,
    /// The slices of each service, by their own name.
    slices: BTreeMap<Id, BTreeMap<String, EndpointSlice>>,
    /// Which service a slice belongs to.
    owners: BTreeMap<Id, String>,
    table: ServiceTable,
    /// The addresses that a service has in the table.
    programmed: BTreeMap<Id, BTreeSet<ServiceAddress>>,
}

impl Catalogue {
    /// An empty one. `api` is this node's own API server.
    pub(crate) fn new(api: Endpoint) -> Self {
        Self {
            api,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            owners: BTreeMap::new(),
            table: ServiceTable::new(),
            programmed: BTreeMap::new(),
        }
    }

    /// What the kernel should do.
    pub(crate) fn table(&self) -> &ServiceTable {
        &self.table
    }

    /// Takes in a service, or its end (`None`), and returns which service to look at again.
    fn service(&mut self, id: Id, service: Option<Service>) -> Id {
        match service {
            Some(service) => drop(self.services.insert(id.clone(), service)),
            None => drop(self.services.remove(&id)),
        }
        id
    }

    /// Takes in a slice, or its end, and returns which services to look at again.
    fn slice(&mut self, id: Id, slice: Option<EndpointSlice>) -> Vec<Id> {
        let (namespace, name) = id.clone();
        let label =
            |slice: &EndpointSlice| slice.metadata.labels.as_ref()?.get(SERVICE_LABEL).cloned();
        let owner = slice.as_ref().and_then(label);
        let before = match &owner {
            Some(owner) => self.owners.insert(id, owner.clone()),
            None => self.owners.remove(&id),
        };
        let mut touched = Vec::new();
        if let Some(before) = before {
            let service = (namespace.clone(), before);
            if let Some(slices) = self.slices.get_mut(&service) {
                slices.remove(&name);
            }
            touched.push(service);
        }
        if let (Some(owner), Some(slice)) = (owner, slice) {
            let service = (namespace, owner);
            self.slices.entry(service.clone()).or_default().insert(name, slice);
            touched.push(service);
        }
        touched
    }

    /// Computes a service's rows of the table anew, and returns its names; `None`: it has none.
    fn refresh(&mut self, id: &Id) -> Option<Name> {
        for address in self.programmed.remove(id).unwrap_or_default() {
            self.table.remove(&address);
        }
        let service = self.services.get(id)?;
        let spec = service.spec.as_ref()?;
        let none = BTreeMap::new();
        let slices = self.slices.get(id).unwrap_or(&none);
        let addresses = cluster_addresses(service);
        let mut rows = BTreeSet::new();
        for address in &addresses {
            for port in spec.ports.iter().flatten() {
                let Some(row) = row(*address, port) else { continue };
                let own_api = id.0 == "default" && id.1 == "kubernetes";
                let endpoints = if own_api {
                    BTreeSet::from([self.api])
                } else {
                    endpoints(slices.values(), port)
                };
                self.table.insert(row, endpoints);
                rows.insert(row);
            }
        }
        let kind = kind_of(service, &addresses, slices)?;
        let ports = spec.ports.iter().flatten().filter_map(name_port).collect();
        self.programmed.insert(id.clone(), rows);
        Some(Name { namespace: id.0.clone(), name: id.1.clone(), kind, ports })
    }
}

fn cluster_addresses(service: &Service) -> Vec<Ipv4Addr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let parsed: BTreeSet<Ipv4Addr> = all.filter_map(|address| address.parse().ok()).collect();
    parsed.into_iter().collect()
}

fn protocol_of(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn row(address: Ipv4Addr, port: &ServicePort) -> Option<ServiceAddress> {
    let protocol = protocol_of(port.protocol.as_deref())?;
    Some(ServiceAddress { address, protocol, port: u16::try_from(port.port).ok()? })
}

fn name_port(port: &ServicePort) -> Option<Port> {
    let protocol = match protocol_of(port.protocol.as_deref())? {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: u16::try_from(port.port).ok()?,
    })
}

/// A service without any ready endpoint falls back to those that are ending but still serve (KEP-1669).
fn endpoints<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    port: &ServicePort,
) -> BTreeSet<Endpoint> {
    let chosen = |usable: fn(&SliceEndpoint) -> bool| -> BTreeSet<Endpoint> {
        let mut found = BTreeSet::new();
        for slice in slices.clone() {
            let named = slice.ports.iter().flatten().find(|it| {
                it.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                    && it.protocol.as_deref().unwrap_or("TCP")
                        == port.protocol.as_deref().unwrap_or("TCP")
            });
            let Some(number) = named.and_then(|it| u16::try_from(it.port?).ok()) else { continue };
            let addresses = slice
                .endpoints
                .iter()
                .flatten()
                .filter(|it| usable(it))
                .flat_map(|it| &it.addresses);
            let parsed = addresses.filter_map(|address| address.parse::<Ipv4Addr>().ok());
            found.extend(parsed.map(|address| Endpoint { address, port: number }));
        }
        found
    };
    let ready = chosen(is_ready);
    if ready.is_empty() { chosen(serves) } else { ready }
}

/// Unknown counts as ready (discovery/v1, EndpointConditions).
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|it| it.ready).unwrap_or(true)
}

fn serves(endpoint: &SliceEndpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .is_some_and(|it| it.serving == Some(true) && it.terminating == Some(true))
}

fn kind_of(
    service: &Service,
    addresses: &[Ipv4Addr],
    slices: &BTreeMap<String, EndpointSlice>,
) -> Option<ServiceKind> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec.external_name.clone().map(ServiceKind::External);
    }
    if !addresses.is_empty() {
        return Some(ServiceKind::Cluster(addresses.iter().copied().map(IpAddr::V4).collect()));
    }
    let ready = slices
        .values()
        .flat_map(|slice| slice.endpoints.iter().flatten().map(move |it| (slice, it)));
    let backends =
        ready.filter(|(_, endpoint)| is_ready(endpoint)).flat_map(|(slice, endpoint)| {
            let ports: Vec<Port> = slice.ports.iter().flatten().filter_map(slice_port).collect();
            endpoint.addresses.iter().filter_map(move |address| {
                Some(Backend {
                    address: address.parse().ok()?,
                    hostname: endpoint.hostname.clone(),
                    ports: ports.clone(),
                })
            })
        });
    Some(ServiceKind::Headless(backends.collect()))
}

fn slice_port(port: &podium_types::k8s::api::discovery::v1::EndpointPort) -> Option<Port> {
    let protocol = match protocol_of(port.protocol.as_deref())? {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: u16::try_from(port.port?).ok()?,
    })
}

/// Keeps kernel and names as the store says; never returns.
pub(crate) async fn run(
    store: Arc<dyn StoreHandle>,
    mut catalogue: Catalogue,
    dataplane: SharedDataplane,
    zone: SharedZone,
) -> ! {
    let follow = |resource| Follower::new(Arc::clone(&store), ObjectKey::prefix(&resource, None));
    let mut services = follow(resources::SERVICES);
    let mut slices = follow(resources::ENDPOINT_SLICES);
    // The kernel still has what an earlier node programmed: it is changed only when both views are whole.
    let (mut has_services, mut has_slices) = (false, false);
    let mut due = false;
    loop {
        let touched = tokio::select! {
            news = services.next() => {
                has_services = true;
                let gone = stale(&news, catalogue.services.keys());
                let mut touched: Vec<Id> = gone.into_iter().map(|id| catalogue.service(id, None)).collect();
                touched.extend(objects(&news).into_iter().map(|(id, service)| catalogue.service(id, service)));
                touched
            }
            news = slices.next() => {
                has_slices = true;
                let gone = stale(&news, catalogue.owners.keys());
                let mut touched: Vec<Id> = gone.into_iter().flat_map(|id| catalogue.slice(id, None)).collect();
                for (id, slice) in objects(&news) {
                    touched.extend(catalogue.slice(id, slice));
                }
                touched
            }
            () = tokio::time::sleep(RETRY), if due => Vec::new(),
        };
        let touched: BTreeSet<Id> = touched.into_iter().collect();
        for id in &touched {
            let names = catalogue.refresh(id);
            let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
            match names {
                Some(service) => zone.replace(&service),
                None => zone.remove(&id.0, &id.1),
            }
        }
        if has_services && has_slices && (due || !touched.is_empty()) {
            due = !program(&dataplane, catalogue.table().clone()).await;
        }
    }
}

/// `false`: to be tried again.
async fn program(dataplane: &SharedDataplane, table: ServiceTable) -> bool {
    let dataplane = Arc::clone(dataplane);
    let done = tokio::task::spawn_blocking(move || {
        dataplane.lock().unwrap_or_else(PoisonError::into_inner).apply_services(&table)
    });
    match done.await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::error!("cannot program services: {:#}", anyhow::Error::from(error));
            false
        }
        Err(error) => {
            tracing::error!(%error, "cannot program services");
            false
        }
    }
}

/// What is known but not in a new list of everything.
fn stale<'a>(news: &News, known: impl Iterator<Item = &'a Id>) -> Vec<Id> {
    let News::All(records) = news else { return Vec::new() };
    let there: BTreeSet<Id> = records.iter().filter_map(|record| id_of(&record.key)).collect();
    known.filter(|id| !there.contains(*id)).cloned().collect()
}

fn id_of(key: &str) -> Option<Id> {
    ObjectKey::parse(key).map(|key| (key.namespace, key.name))
}

/// The objects in the news; `None` for those that are gone, or that do not fit their kind.
fn objects<T: DeserializeOwned>(news: &News) -> Vec<(Id, Option<T>)> {
    let decode = |key: &str, value: Option<&[u8]>| {
        let object = value.and_then(|value| match serde_json::from_slice(value) {
            Ok(object) => Some(object),
            Err(error) => {
                tracing::error!(key, %error, "an object does not fit its kind");
                None
            }
        });
        Some((id_of(key)?, object))
    };
    match news {
        News::All(records) => {
            records.iter().filter_map(|it| decode(&it.key, Some(&it.value))).collect()
        }
        News::Changes(events) => {
            let value = |event: &Arc<podium_store::WatchEvent>| event.record.clone();
            events
                .iter()
                .filter_map(|it| decode(&it.key, value(it).as_ref().map(|record| &*record.value)))
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const API: Endpoint = Endpoint { address: Ipv4Addr::new(10, 244, 0, 1), port: 6443 };

    fn id(name: &str) -> Id {
        ("default".to_owned(), name.to_owned())
    }

    fn parse<T: DeserializeOwned>(value: Value) -> Option<T> {
        Some(serde_json::from_value(value).expect("an object"))
    }

    fn service(cluster_ip: &str) -> Value {
        json!({"metadata": {"name": "redis"}, "spec": {
            "clusterIP": cluster_ip, "ports": [{"port": 6379, "targetPort": 6379, "protocol": "TCP"}]}})
    }

    fn slice(endpoints: Value) -> Value {
        json!({"metadata": {"name": "redis-1", "labels": {SERVICE_LABEL: "redis"}}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "", "port": 6379, "protocol": "TCP"}]})
    }

    fn endpoint(address: &str, ready: bool, serving: bool, terminating: bool) -> Value {
        json!({"addresses": [address], "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    }

    fn catalogue(cluster_ip: &str, endpoints: Value) -> (Catalogue, Option<Name>) {
        let mut catalogue = Catalogue::new(API);
        catalogue.service(id("redis"), parse(service(cluster_ip)));
        assert_eq!(catalogue.slice(id("redis-1"), parse(slice(endpoints))), [id("redis")]);
        let name = catalogue.refresh(&id("redis"));
        (catalogue, name)
    }

    fn addresses(catalogue: &Catalogue) -> Vec<Ipv4Addr> {
        catalogue.table().values().flatten().map(|endpoint| endpoint.address).collect()
    }

    #[test]
    fn ready_endpoints_are_served_and_others_are_not() {
        let endpoints = json!([
            endpoint("10.244.0.2", true, true, false),
            endpoint("10.244.0.3", false, false, false)
        ]);
        let (catalogue, name) = catalogue("10.96.0.7", endpoints);
        assert_eq!(addresses(&catalogue), [Ipv4Addr::new(10, 244, 0, 2)]);
        let kind = name.expect("names").kind;
        assert_eq!(kind, ServiceKind::Cluster(vec![IpAddr::from([10, 96, 0, 7])]));
    }

    #[test]
    fn endpoints_that_end_serve_only_while_there_is_no_other() {
        let ending = endpoint("10.244.0.2", false, true, true);
        let (alone, _) = catalogue("10.96.0.7", json!([ending]));
        assert_eq!(addresses(&alone), [Ipv4Addr::new(10, 244, 0, 2)]);
        let (with_other, _) =
            catalogue("10.96.0.7", json!([ending, endpoint("10.244.0.3", true, true, false)]));
        assert_eq!(addresses(&with_other), [Ipv4Addr::new(10, 244, 0, 3)]);
    }

    #[test]
    fn a_headless_service_has_names_but_no_rows() {
        let (catalogue, name) =
            catalogue("None", json!([endpoint("10.244.0.2", true, true, false)]));
        assert!(catalogue.table().is_empty());
        assert!(
            matches!(name.expect("names").kind, ServiceKind::Headless(backends) if backends.len() == 1)
        );
    }

    #[test]
    fn kubernetes_is_this_nodes_own_api() {
        let mut catalogue = Catalogue::new(API);
        catalogue.service(id("kubernetes"), parse(service("10.96.0.1")));
        catalogue.refresh(&id("kubernetes"));
        assert_eq!(catalogue.table().values().flatten().collect::<Vec<_>>(), [&API]);
    }

    #[test]
    fn what_is_gone_leaves_nothing_behind() {
        let (mut catalogue, _) =
            catalogue("10.96.0.7", json!([endpoint("10.244.0.2", true, true, false)]));
        assert_eq!(catalogue.slice(id("redis-1"), None), [id("redis")]);
        catalogue.refresh(&id("redis"));
        assert!(addresses(&catalogue).is_empty());
        catalogue.service(id("redis"), None);
        assert_eq!(catalogue.refresh(&id("redis")), None);
        assert!(catalogue.table().is_empty() && catalogue.programmed.is_empty());
    }
}
