//! Containers' streams for the API: logs, and programs run in pods, on this node or on another.
//!
//! A voter's API asks [`Streams`], which turns to the agent of this process ([`local`]) or to the pod's node, over
//! `podium-streams/1` ([`remote`] asks, [`serve`] answers, [`wire`] is what they say).

pub(crate) mod everywhere;
pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod serve;
mod wire;
