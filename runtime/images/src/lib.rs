//! Container images: registry client, content store, unpacking.
