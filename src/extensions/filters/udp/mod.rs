//! UDP listener filters, one folder each.

pub mod udp_proxy;
