//! The cluster's machines, as the store knows them: keys, addresses, who votes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_store::StoreHandle;
use podium_types::ObjectKey;
use podium_types::kind::resources;
use podium_types::machine::Machine;
use tokio::sync::watch;

use crate::follow::{Follower, News};

/// What is known of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its public identity key (SubjectPublicKeyInfo, DER).
    pub(crate) key: Vec<u8>,
    /// Its addresses, the preferred one first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it votes, and so serves the API itself.
    pub(crate) voter: bool,
}

/// All machines, by name.
pub(crate) type Directory = BTreeMap<String, Entry>;

/// Follows the Machine objects; the receiver has what there is now, and then every change.
pub(crate) fn follow(store: Arc<dyn StoreHandle>) -> watch::Receiver<Directory> {
    let (sender, receiver) = watch::channel(Directory::new());
    tokio::spawn(async move {
        let mut machines = Follower::new(store, ObjectKey::prefix(&resources::MACHINES, None));
        while !sender.is_closed() {
            let news = machines.next().await;
            sender.send_if_modified(|known| {
                let before = known.clone();
                learn(known, &news);
                before != *known
            });
        }
    });
    receiver
}

fn learn(known: &mut Directory, news: &News) {
    let mut one = |key: &str, value: Option<&[u8]>| {
        let Some(key) = ObjectKey::parse(key) else { return };
        match value.and_then(|value| serde_json::from_slice::<Machine>(value).ok()) {
            Some(machine) => known.insert(key.name, entry(&machine)),
            None => known.remove(&key.name),
        };
    };
    match news {
        News::All(records) => {
            let mut all = Directory::new();
            std::mem::swap(&mut all, known);
            for record in records {
                learn_record(known, &record.key, &record.value);
            }
        }
        News::Changes(events) => {
            for event in events {
                one(&event.key, event.record.as_ref().map(|record| &*record.value));
            }
        }
    }
}

fn learn_record(known: &mut Directory, key: &str, value: &[u8]) {
    if let (Some(key), Ok(machine)) = (ObjectKey::parse(key), serde_json::from_slice(value)) {
        known.insert(key.name, entry(&machine));
    }
}

fn entry(machine: &Machine) -> Entry {
    let key = machine.spec.identity_key.as_deref().unwrap_or_default();
    let status = machine.status.as_ref();
    let addresses = status.map(|status| status.addresses.as_slice()).unwrap_or_default();
    Entry {
        key: STANDARD.decode(key).unwrap_or_default(),
        addresses: addresses
            .iter()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        voter: status.and_then(|status| status.voter).unwrap_or_default(),
    }
}

/// Where the API is served: the addresses of all voters, with those that this machine has now.
pub(crate) fn servers(directory: &Directory, me: &str, own: &[IpAddr]) -> Vec<IpAddr> {
    let others = directory.iter().filter(|(name, entry)| entry.voter && name.as_str() != me);
    let mut all: Vec<IpAddr> = own.to_vec();
    all.extend(others.flat_map(|(_, entry)| &entry.addresses));
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_types::object::from_value;
    use serde_json::json;

    #[test]
    fn the_api_is_where_voters_are() {
        let machine = |address: &str, voter: bool| -> Entry {
            let object = json!({"metadata": {"name": "n"}, "spec": {"identityKey": "AQI="},
                "status": {"voter": voter, "addresses": [
                    {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "n"}]}});
            entry(&from_value(&object).expect("a machine"))
        };
        let directory = Directory::from([
            ("n1".to_owned(), machine("10.77.0.99", true)),
            ("n2".to_owned(), machine("10.77.0.12", true)),
            ("n3".to_owned(), machine("10.77.0.13", false)),
        ]);
        assert_eq!(directory["n2"].key, [1, 2]);
        let own = [IpAddr::from([10, 77, 0, 11])];
        let expected = [IpAddr::from([10, 77, 0, 11]), IpAddr::from([10, 77, 0, 12])];
        assert_eq!(servers(&directory, "n1", &own), expected);
    }
}
