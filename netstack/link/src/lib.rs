//! Links, addresses, routes and DHCP, synchronously.
