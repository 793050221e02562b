//! Pods that ask for the same, placed one after the other.
//!
//! Invariant: within one pass books only fill up, so once a pod of a group fits nowhere, no later one does. (A hard spread may
//! open up again by what other groups place; the bindings of this pass bring on the next.)

use std::collections::BTreeMap;

use podium_types::k8s::api::core::v1::{Pod, PodSpec};
use serde_json::json;

use super::filter::{self, Candidate};
use super::{score, spread, verdict};
use crate::claim;
use crate::resources::{HostPort, Resources, host_ports, pod_requests};
use crate::world::World;

/// Everything of a pod that placing it depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Signature(String);

impl Signature {
    pub(super) fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let owner = claim::controller(&pod.metadata).map(|owner| &owner.uid);
        let ports = spec.map(host_ports).unwrap_or_default();
        let ports: Vec<_> = ports.iter().map(|p| (p.port, &p.protocol, &p.address)).collect();
        let requests: Vec<_> = pod_requests(pod).iter().map(|(n, a)| (n.to_owned(), a)).collect();
        let placing = json!([
            pod.metadata.namespace,
            pod.metadata.labels,
            owner,
            requests,
            ports,
            spec.map(|spec| json!([
                spec.node_selector,
                spec.affinity,
                spec.tolerations,
                spec.topology_spread_constraints,
            ])),
        ]);
        Self(placing.to_string())
    }
}

/// One such group.
pub(super) struct Group {
    requests: Resources,
    ports: Vec<HostPort>,
    /// For each candidate, why it is out for good, or its lasting score.
    verdicts: Vec<Result<i64, String>>,
    spreads: Vec<spread::Spread>,
    refused: Option<String>,
}

impl Group {
    pub(super) fn new(world: &World, pod: &Pod, nodes: &[Candidate<'_>]) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let verdict = |node: &Candidate<'_>| match filter::by_node(spec, node.node) {
            Some(reason) => Err(reason),
            None => Ok(score::of_node(spec, node)),
        };
        Self {
            requests: pod_requests(pod),
            ports: host_ports(spec),
            verdicts: nodes.iter().map(verdict).collect(),
            spreads: spread::of(world, pod, nodes),
            refused: None,
        }
    }

    /// The best candidate for the next pod, or why there is none.
    pub(super) fn place(&mut self, nodes: &[Candidate<'_>]) -> Result<usize, String> {
        if let Some(message) = &self.refused {
            return Err(message.clone());
        }
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut best: Option<(i64, usize)> = None;
        for (index, candidate) in nodes.iter().enumerate() {
            match self.judge(index, candidate) {
                Ok(score) if best.is_none_or(|(highest, _)| score > highest) => {
                    best = Some((score, index));
                }
                Ok(_) => {}
                Err(why) => why.into_iter().for_each(|why| *reasons.entry(why).or_default() += 1),
            }
        }
        best.map(|(_, index)| index).ok_or_else(|| {
            let message = verdict::message(nodes.len(), &reasons);
            self.refused = Some(message.clone());
            message
        })
    }

    fn judge(&self, index: usize, candidate: &Candidate<'_>) -> Result<i64, Vec<String>> {
        let lasting = match &self.verdicts[index] {
            Ok(score) => *score,
            Err(reason) => return Err(vec![reason.clone()]),
        };
        let room = filter::by_room(candidate, &self.requests, &self.ports);
        if !room.is_empty() {
            return Err(room);
        }
        if let Some(reason) = self.spreads.iter().find_map(|spread| spread.objection(index)) {
            return Err(vec![reason.to_owned()]);
        }
        Ok(lasting + score::of_moment(candidate, &self.requests, &self.spreads, index))
    }

    /// A pod, of this group or another, has been placed.
    pub(super) fn placed(&mut self, pod: &Pod, node: usize) {
        self.spreads.iter_mut().for_each(|spread| spread.placed(pod, node));
    }
}
