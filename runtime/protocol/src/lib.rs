//! What the agent and a pod's shim say to each other.
