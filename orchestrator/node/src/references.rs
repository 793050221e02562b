//! What pods refer to, read from this member's own replica.

use std::sync::Arc;

use podium_agent::{References, ServiceAddress};
use podium_store::StoreHandle;
use podium_types::k8s::api::core::v1::{ConfigMap, Secret, Service};
use podium_types::kind::resources;
use podium_types::{GroupResource, ObjectKey};
use serde::de::DeserializeOwned;

/// ConfigMaps, Secrets and Services of the replica.
pub(crate) struct Replica {
    store: Arc<dyn StoreHandle>,
}

impl Replica {
    pub(crate) fn new(store: Arc<dyn StoreHandle>) -> Self {
        Self { store }
    }

    fn get<T: DeserializeOwned>(
        &self,
        resource: GroupResource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<T>> {
        let key = ObjectKey::new(resource, namespace, name).storage_key();
        let record = self.store.local().get(&key)?.clone();
        serde_json::from_slice(&record.value).ok().map(Arc::new)
    }
}

impl References for Replica {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.get(resources::CONFIG_MAPS, namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.get(resources::SECRETS, namespace, name)
    }

    fn services(&self, namespace: &str) -> Vec<ServiceAddress> {
        let prefix = ObjectKey::prefix(&resources::SERVICES, Some(namespace));
        let view = self.store.local();
        let mut all: Vec<ServiceAddress> = view
            .range(&prefix)
            .filter_map(|record| {
                serde_json::from_slice(&record.value).ok().and_then(|service| address(&service))
            })
            .collect();
        if namespace != "default" {
            let kubernetes = self.get::<Service>(resources::SERVICES, "default", "kubernetes");
            all.extend(kubernetes.and_then(|service| address(&service)));
        }
        all
    }
}

fn address(service: &Service) -> Option<ServiceAddress> {
    let spec = service.spec.as_ref()?;
    let cluster_ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port).ok()?))
    });
    Some(ServiceAddress {
        name: service.metadata.name.clone()?,
        cluster_ip,
        ports: ports.collect(),
    })
}
