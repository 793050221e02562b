//! A voter takes machines into the cluster: gives each its place, and tells it what it needs to know.

use std::sync::Arc;

use futures::future::BoxFuture;
use podium_api::Pipeline;
use podium_control::forming::{ClusterId, Joined, Machine};
use podium_form::Applicant;
use podium_form::client::{SharedClient, Voter};

use crate::form::Places;
use crate::voters::Voters;

/// What a place is given from.
pub(crate) struct Admission {
    /// Makes the Machine and the Node.
    pub(crate) pipeline: Pipeline,
    /// This cluster.
    pub(crate) cluster: ClusterId,
    /// Its authority's certificate.
    pub(crate) authority_pem: String,
    /// Whom the machine may trust.
    pub(crate) voters: Voters,
}

impl Places for Admission {
    fn give(&self, machine: Machine) -> BoxFuture<'_, Result<Joined, String>> {
        Box::pin(async move {
            let client: SharedClient = Arc::new(Voter::new(self.pipeline.clone(), &machine.name));
            let name = machine.name.clone();
            let applicant = Applicant { name: machine.name, key: machine.public_key, voter: false };
            let pods = applicant.attempt(&client).await.map_err(|error| {
                tracing::warn!(%name, "a machine got no place: {error}");
                error.to_string()
            })?;
            tracing::info!(%name, %pods, "a machine joined");
            Ok(Joined {
                cluster: self.cluster,
                authority_pem: self.authority_pem.clone(),
                pods: pods.to_string(),
                voters: self.voters.keys().into_iter().collect(),
            })
        })
    }
}
