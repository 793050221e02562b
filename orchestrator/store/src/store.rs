//! One member of the store, running.

use std::marker::PhantomData;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::AsyncRuntime;

use crate::config::Config;
use crate::disk::Disk;
use crate::error::StoreError;
use crate::member::{FeatureLevel, Member, MemberId};
use crate::transport::{Message, Transport};

/// One member, on the runtime `R`. Clones are the same member.
#[derive(Debug, Clone)]
pub struct Store<R> {
    runtime: PhantomData<fn() -> R>,
}

impl<R: AsyncRuntime> Store<R> {
    /// Opens what is on the disk and starts. A blank disk gives a member that waits to be
    /// initialised, or to be taken into a cluster.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the disk holds less than it once promised and no other member can
    /// make up for it; [`StoreError::TooNew`]; [`StoreError::Disk`].
    pub async fn open(
        _config: Config,
        _disk: Arc<dyn Disk>,
        _transport: Arc<dyn Transport>,
    ) -> Result<Self, StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Makes a cluster of these voters, this member among them. Every one of them, or only one,
    /// may be told so, with the same set. Done already is an error of kind
    /// [`StoreError::Membership`].
    ///
    /// # Errors
    /// [`StoreError::Membership`].
    pub async fn initialise(&self, _members: Vec<Member>) -> Result<(), StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Answers a message of another member, whose name the transport has proven.
    pub fn serve(&self, _from: MemberId, message: Message) -> BoxFuture<'static, Message> {
        async move { message }.boxed()
    }

    /// Lets a member receive the log without a vote.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`], [`StoreError::Membership`].
    pub async fn add_learner(&self, _member: Member) -> Result<(), StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Makes exactly these members, learners until now or voters already, the voters; the others
    /// leave the cluster.
    ///
    /// # Errors
    /// [`StoreError::NotLeader`], [`StoreError::Membership`].
    pub async fn set_voters(&self, _voters: Vec<MemberId>) -> Result<(), StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Asks another voter to lead.
    ///
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn transfer_leadership(&self, _to: MemberId) -> Result<(), StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Raises the feature level once every member knows it.
    ///
    /// # Errors
    /// [`StoreError::NotKnownByAll`], and those of a write.
    pub async fn raise_feature_level(&self, _to: FeatureLevel) -> Result<(), StoreError> {
        Err(StoreError::Stopped { reason: "not running".into() })
    }

    /// Stops in order: nothing is acknowledged afterwards, all watches end.
    pub async fn shutdown(&self) {}
}
