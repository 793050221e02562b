//! The effects on a node: shims, images, volumes, probes, the pod network.
