//! Builds the UKI and the disk images.
