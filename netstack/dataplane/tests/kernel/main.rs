//! The data path against the kernel: nodes and their pods as network namespaces, real connections between them.

mod namespace;
mod overlay;
mod services;
