//! The Kubernetes API: discovery, verbs, patches, admission, streaming.
