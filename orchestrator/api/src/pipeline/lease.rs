//! Leases of nodes, which are renewed without a write: a heartbeat stays in memory, and whoever reads the Lease is told the last.
//!
//! A watch tells what is stored, so it is silent while nodes live: nothing is written.

use podium_types::kind::Kind;
use podium_types::{namespace, object};
use serde_json::Value;

use super::{Pipeline, Served};
use crate::registry::Resource;

impl Pipeline {
    /// The same, renewed when its node was heard last, if it is the Lease of a node that was.
    pub(super) fn renewed(&self, resource: &'static Resource, served: Served) -> Served {
        let Some(beats) = self.beats.as_ref().filter(|_| resource.kind == Kind::Lease) else {
            return served;
        };
        let mut lease = served.value();
        if object::namespace(&lease) != namespace::NODE_LEASES {
            return served;
        }
        let Some(heard) = beats.last(object::name(&lease)) else { return served };
        if let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("renewTime".to_owned(), format!("{heard:.6}").into());
        }
        Served::made(resource, lease)
    }
}
