//! This node's pods: what the store says of them, told to the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use podium_agent::{Agent, Change};
use podium_store::{Record, StoreHandle, WatchEvent};
use podium_types::ObjectKey;
use podium_types::k8s::api::core::v1::Pod;
use podium_types::kind::resources;

use crate::follow::{Follower, News};

/// Tells the agent about pods, ConfigMaps and Secrets; never returns.
pub(crate) async fn run(store: Arc<dyn StoreHandle>, agent: Agent, node: String) -> ! {
    let follow = |resource| Follower::new(Arc::clone(&store), ObjectKey::prefix(&resource, None));
    let mut pods = Pods { node, uids: BTreeMap::new() };
    let mut watched = follow(resources::PODS);
    let mut config_maps = follow(resources::CONFIG_MAPS);
    let mut secrets = follow(resources::SECRETS);
    loop {
        let changes = tokio::select! {
            news = watched.next() => pods.changes(news),
            news = config_maps.next() => named(&news, |namespace, name| Change::ConfigMap { namespace, name }),
            news = secrets.next() => named(&news, |namespace, name| Change::Secret { namespace, name }),
        };
        for change in changes {
            agent.take(change).await;
        }
    }
}

/// Which of the pods are this node's.
struct Pods {
    node: String,
    /// The uids of this node's pods, by key.
    uids: BTreeMap<Arc<str>, String>,
}

impl Pods {
    fn changes(&mut self, news: News) -> Vec<Change> {
        match news {
            News::All(records) => {
                let mine: Vec<_> = records
                    .iter()
                    .filter_map(|record| Some((record, self.mine(record)?)))
                    .collect();
                self.uids =
                    mine.iter().map(|(record, pod)| (Arc::clone(&record.key), uid(pod))).collect();
                vec![Change::AllPods(mine.into_iter().map(|(_, pod)| pod).collect())]
            }
            News::Changes(events) => events.iter().flat_map(|event| self.change(event)).collect(),
        }
    }

    /// A pod that was deleted and made anew under its name between two looks is one removal and one new pod.
    fn change(&mut self, event: &WatchEvent) -> Vec<Change> {
        let now = event.record.as_ref().and_then(|record| self.mine(record));
        let before = self.uids.remove(&event.key);
        let gone =
            before.filter(|uid_before| now.as_ref().is_none_or(|pod| uid(pod) != *uid_before));
        let mut changes: Vec<Change> =
            gone.into_iter().map(|uid| Change::PodRemoved { uid }).collect();
        if let Some(pod) = now {
            self.uids.insert(Arc::clone(&event.key), uid(&pod));
            changes.push(Change::Pod(pod));
        }
        changes
    }

    fn mine(&self, record: &Record) -> Option<Arc<Pod>> {
        let mut pod: Pod = match serde_json::from_slice(&record.value) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::error!(key = %record.key, %error, "a pod does not fit its kind");
                return None;
            }
        };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        if node != Some(self.node.as_str()) {
            return None;
        }
        pod.metadata.resource_version = Some(record.mod_revision.0.to_string());
        Some(Arc::new(pod))
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

/// The agent reads what it needs; it is only told which names to look at again.
fn named(news: &News, change: impl Fn(String, String) -> Change) -> Vec<Change> {
    let keys: Vec<&str> = match news {
        News::All(records) => records.iter().map(|record| &*record.key).collect(),
        News::Changes(events) => events.iter().map(|event| &*event.key).collect(),
    };
    keys.into_iter()
        .filter_map(ObjectKey::parse)
        .map(|key| change(key.namespace, key.name))
        .collect()
}
