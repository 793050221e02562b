//! The cluster's machines, as the store knows them: keys and addresses. Who votes is not in the store's objects, see
//! [`crate::voters`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podium_store::{StoreHandle, View};
use podium_types::ObjectKey;
use podium_types::kind::resources;
use podium_types::machine::Machine;
use tokio::sync::watch;

use crate::follow::{Follower, News};
use crate::voters::{Keys, Voters};

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

/// Follows the Machine objects, and who votes; the receiver has what there is now, and then every change.
pub(crate) fn follow(store: Arc<dyn StoreHandle>, voters: &Voters) -> watch::Receiver<Directory> {
    let (sender, receiver) = watch::channel(Directory::new());
    let mut keys = voters.subscribe();
    tokio::spawn(async move {
        let mut machines = Follower::new(store, ObjectKey::prefix(&resources::MACHINES, None));
        while !sender.is_closed() {
            let news = tokio::select! {
                news = machines.next() => Some(news),
                Ok(()) = keys.changed() => None,
            };
            sender.send_if_modified(|known| {
                let before = known.clone();
                if let Some(news) = &news {
                    learn(known, news);
                }
                mark(known, &keys.borrow_and_update());
                before != *known
            });
        }
    });
    receiver
}

fn mark(known: &mut Directory, voters: &Keys) {
    for entry in known.values_mut() {
        entry.voter = voters.contains(&entry.key);
    }
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
        voter: false,
    }
}

/// The names of all machines, by their keys, as far as this replica has come.
pub(crate) fn names(view: &View) -> BTreeMap<Vec<u8>, String> {
    let mut known = Directory::new();
    for record in view.range(&ObjectKey::prefix(&resources::MACHINES, None)) {
        learn_record(&mut known, &record.key, &record.value);
    }
    known.into_iter().map(|(name, entry)| (entry.key, name)).collect()
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
    fn the_api_is_where_those_are_who_have_voters_keys() {
        let machine = |address: &str, key: &[u8]| -> Entry {
            let object = json!({"metadata": {"name": "n"}, "spec": {"identityKey": STANDARD.encode(key)},
                "status": {"voter": true, "addresses": [
                    {"type": "InternalIP", "address": address}, {"type": "Hostname", "address": "n"}]}});
            entry(&from_value(&object).expect("a machine"))
        };
        let mut directory = Directory::from([
            ("n1".to_owned(), machine("10.77.0.99", &[1])),
            ("n2".to_owned(), machine("10.77.0.12", &[2])),
            ("n3".to_owned(), machine("10.77.0.13", &[3])),
            ("n4".to_owned(), machine("10.77.0.14", &[])),
        ]);
        mark(&mut directory, &Keys::from([vec![1], vec![2]]));
        assert_eq!(directory["n2"].key, [2]);
        let own = [IpAddr::from([10, 77, 0, 11])];
        let expected = [IpAddr::from([10, 77, 0, 11]), IpAddr::from([10, 77, 0, 12])];
        assert_eq!(servers(&directory, "n1", &own), expected);
    }
}
