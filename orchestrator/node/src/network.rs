//! Pods' addresses and links: the agent's view of the data path.
//!
//! Addresses come out of the node's part of the pod network, one after the other, so that an address rests as long as
//! possible before another pod gets it. Who has which is written down before it is used.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use podium_agent::{BoxFuture, NetworkError, PodNetwork, PodRef};
use podium_dataplane::{Dataplane, PodLink, link_name};
use podium_link::Cidr;
use serde::{Deserialize, Serialize};

use crate::files;

/// Shared with the part that programs services.
pub(crate) type SharedDataplane = Arc<Mutex<Dataplane>>;

/// Who has which address. On the disk as JSON: it is read by people when things go wrong.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Addresses {
    /// By the pod's uid.
    taken: BTreeMap<String, Ipv4Addr>,
    /// The one given last.
    last: Option<Ipv4Addr>,
}

impl Addresses {
    /// The pod's address: the one it has, or the next free one after the last given.
    fn take(&mut self, pod: &str, range: Cidr) -> anyhow::Result<Ipv4Addr> {
        if let Some(address) = self.taken.get(pod) {
            return Ok(*address);
        }
        let (first, last) = bounds(range)?;
        let after = self.last.map_or(first, |last| u32::from(last).wrapping_add(1));
        let start = if (first..=last).contains(&after) { after } else { first };
        let free = (start..=last).chain(first..start).map(Ipv4Addr::from);
        let Some(address) =
            free.into_iter().find(|address| !self.taken.values().any(|taken| taken == address))
        else {
            bail!("all {} addresses of {range} are taken", self.taken.len());
        };
        self.taken.insert(pod.to_owned(), address);
        self.last = Some(address);
        Ok(address)
    }
}

/// The first and last address for pods: not the network's, not the node's, not the broadcast address.
fn bounds(range: Cidr) -> anyhow::Result<(u32, u32)> {
    let IpAddr::V4(network) = range.network().address else { bail!("{range} is not IPv4") };
    let size = 1u32.checked_shl(32 - u32::from(range.prefix_length)).unwrap_or(u32::MAX);
    if size < 4 {
        bail!("{range} has no room for pods");
    }
    Ok((u32::from(network) + 2, u32::from(network) + (size - 2)))
}

/// Pods on the data path.
pub(crate) struct Network {
    dataplane: SharedDataplane,
    range: Cidr,
    file: PathBuf,
    addresses: Arc<Mutex<Addresses>>,
}

impl Network {
    /// Reads who has which address from `file`.
    pub(crate) fn open(
        dataplane: SharedDataplane,
        range: Cidr,
        file: PathBuf,
    ) -> anyhow::Result<Self> {
        bounds(range)?;
        let known = files::read(&file).with_context(|| file.display().to_string())?;
        let addresses = match known {
            Some(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| file.display().to_string())?
            }
            None => Addresses::default(),
        };
        Ok(Self { dataplane, range, file, addresses: Arc::new(Mutex::new(addresses)) })
    }

    /// Runs `work` where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Dataplane, &mut Addresses, Cidr, &Path) -> anyhow::Result<T>
        + Send
        + 'static,
    ) -> Result<T, NetworkError> {
        let (dataplane, addresses) = (Arc::clone(&self.dataplane), Arc::clone(&self.addresses));
        let (range, file) = (self.range, self.file.clone());
        let done = tokio::task::spawn_blocking(move || {
            // A holder that panicked left what is on the disk and in the kernel, which every call looks at anew.
            let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let mut dataplane = dataplane.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut dataplane, &mut addresses, range, &file)
        });
        let done = done.await.map_err(|error| NetworkError(error.to_string()))?;
        done.map_err(|error| NetworkError(format!("{error:#}")))
    }
}

fn save(addresses: &Addresses, file: &Path) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(addresses)?;
    files::replace(file, &bytes).with_context(|| format!("write {}", file.display()))
}

fn release(
    dataplane: &mut Dataplane,
    addresses: &mut Addresses,
    file: &Path,
    pod: &str,
) -> anyhow::Result<()> {
    let Some(address) = addresses.taken.get(pod).copied() else { return Ok(()) };
    dataplane.detach_pod(&link_name(pod), address)?;
    addresses.taken.remove(pod);
    save(addresses, file)
}

impl PodNetwork for Network {
    fn attach<'a>(
        &'a self,
        pod: &'a PodRef,
        namespace: &'a Path,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, NetworkError>> {
        let (uid, namespace) = (pod.uid.clone(), namespace.to_owned());
        Box::pin(self.blocking(move |dataplane, addresses, range, file| {
            let address = addresses.take(&uid, range)?;
            save(addresses, file)?;
            let opened = File::open(&namespace).with_context(|| namespace.display().to_string())?;
            let name = link_name(&uid);
            let link = PodLink { name: &name, namespace: opened.as_fd(), address };
            if dataplane.attach_pod(&link).is_err() {
                // A link of that name may lead into a namespace that is gone: the pod's sandbox was made anew.
                dataplane.detach_pod(&name, address)?;
                dataplane.attach_pod(&link)?;
            }
            Ok(vec![IpAddr::V4(address)])
        }))
    }

    fn detach<'a>(&'a self, pod: &'a PodRef) -> BoxFuture<'a, Result<(), NetworkError>> {
        let uid = pod.uid.clone();
        Box::pin(self.blocking(move |dataplane, addresses, _, file| {
            release(dataplane, addresses, file, &uid)
        }))
    }

    fn reconcile<'a>(&'a self, pods: &'a [PodRef]) -> BoxFuture<'a, Result<(), NetworkError>> {
        let known: Vec<String> = pods.iter().map(|pod| pod.uid.clone()).collect();
        Box::pin(self.blocking(move |dataplane, addresses, _, file| {
            let gone: Vec<String> =
                addresses.taken.keys().filter(|uid| !known.contains(uid)).cloned().collect();
            gone.iter().try_for_each(|uid| release(dataplane, addresses, file, uid))
        }))
    }

    /// On one node, the kernel's table is this node's own: a pod is out of it when the table was last programmed without it,
    /// and the agent waits at most its limit.
    fn withdrawn<'a>(&'a self, _: &'a PodRef) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    #[test]
    fn a_pod_keeps_its_address_and_no_two_share_one() {
        let mut addresses = Addresses::default();
        let range = range("10.244.0.0/24");
        let one = addresses.take("one", range).expect("an address");
        assert_eq!(one, Ipv4Addr::new(10, 244, 0, 2));
        assert_eq!(addresses.take("two", range).expect("an address"), Ipv4Addr::new(10, 244, 0, 3));
        assert_eq!(addresses.take("one", range).expect("the same"), one);
    }

    #[test]
    fn a_freed_address_rests_until_all_others_were_used() {
        let mut addresses = Addresses::default();
        let range = range("10.244.0.0/29");
        let first = addresses.take("0", range).expect("an address");
        addresses.taken.remove("0");
        let next: Vec<_> = (1..5)
            .map(|pod| addresses.take(&pod.to_string(), range).expect("an address"))
            .collect();
        assert!(!next.contains(&first), "{next:?}");
        assert_eq!(addresses.take("5", range).expect("the first again"), first);
        let error = addresses.take("6", range).expect_err("none left");
        assert_eq!(error.to_string(), "all 5 addresses of 10.244.0.0/29 are taken");
    }

    #[test]
    fn a_range_without_room_is_refused() {
        assert!(bounds(range("10.244.0.0/31")).is_err());
        assert!(bounds(range("10.244.0.0/30")).is_ok());
    }
}
