//! `DnsCacheConfig` and the caches by their names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use xds_protos::envoy::{
    config::{
        cluster::v3::cluster::RefreshRate,
        core::v3::{SocketAddress, socket_address::PortSpecifier},
    },
    extensions::common::dynamic_forward_proxy::v3::{DnsCacheCircuitBreakers, DnsCacheConfig},
};

use super::DnsCache;
use crate::{
    config::{BuildCx, ConfigResult, DurationExt},
    matching::AddressMatcher,
    upstream::{
        config::failure_rates,
        dns::{DnsFamily, DnsResolver},
    },
};

/// What a cache is made with.
#[derive(Debug)]
pub struct CacheOptions {
    /// `name`
    pub name: String,
    /// `dns_lookup_family`
    pub family: DnsFamily,
    /// `dns_refresh_rate`, 60 s: of names that have no address.
    pub refresh: Duration,
    /// `dns_min_refresh_rate`, 5 s: names are asked for as long as their answers hold, but at most this often.
    pub min_refresh: Duration,
    /// `dns_failure_refresh_rate`: base and maximum; the refresh rate without it.
    pub failure: Option<(Duration, Duration)>,
    /// `disable_dns_refresh_on_failure`: names that fail are forgotten.
    pub forget_failures: bool,
    /// `host_ttl`, 5 minutes: names that no request uses go.
    pub host_ttl: Duration,
    /// `max_hosts`, 1024
    pub max_hosts: usize,
    /// `dns_query_timeout`, 5 s
    pub query_timeout: Option<Duration>,
    /// `dns_cache_circuit_breaker.max_pending_requests`, 1024
    pub max_pending: u64,
    /// `preresolve_hostnames`, with their ports.
    pub preresolve: Vec<(String, u16)>,
    /// `resolved_address_filter`: addresses that no host may have.
    pub forbidden: Option<AddressMatcher>,
    /// Who resolves.
    pub resolver: DnsResolver,
}

impl CacheOptions {
    fn build(proto: DnsCacheConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => DnsCacheConfig {
            supported {
                name, dns_lookup_family, dns_refresh_rate, dns_min_refresh_rate, host_ttl, max_hosts,
                disable_dns_refresh_on_failure, dns_failure_refresh_rate, dns_cache_circuit_breaker,
                use_tcp_for_dns_lookups, dns_resolution_config, typed_dns_resolver_config, preresolve_hostnames,
                dns_query_timeout, resolved_address_filter
            }
            rejected {
                key_value_config: "caches are not kept in files"
            }
        });
        let failure = dns_failure_refresh_rate.map(
            |RefreshRate {
                 base_interval,
                 max_interval,
             }| (base_interval, max_interval),
        );
        let max_hosts = max_hosts.map_or(1024, |v| v.value);
        if preresolve_hostnames.len() as u64 > u64::from(max_hosts) {
            return Err(cx.error(format!(
                "DNS Cache [{name}] configured with preresolve_hostnames={} larger than max_hosts={max_hosts}",
                preresolve_hostnames.len()
            )));
        }
        let resolver = DnsResolver::choose(
            typed_dns_resolver_config,
            dns_resolution_config,
            Vec::new(),
            use_tcp_for_dns_lookups,
            cx,
        )?;
        Ok(Self {
            family: DnsFamily::from_proto(dns_lookup_family),
            refresh: dns_refresh_rate.or_duration(Duration::from_secs(60)),
            min_refresh: dns_min_refresh_rate.or_duration(Duration::from_secs(5)),
            failure: failure_rates(failure),
            forget_failures: disable_dns_refresh_on_failure,
            host_ttl: host_ttl.or_duration(Duration::from_secs(300)),
            max_hosts: usize::try_from(max_hosts).unwrap_or(usize::MAX),
            query_timeout: dns_query_timeout.enabled_or(Duration::from_secs(5)),
            max_pending: dns_cache_circuit_breaker
                .and_then(|DnsCacheCircuitBreakers { max_pending_requests }| max_pending_requests)
                .map_or(1024, |v| v.value)
                .into(),
            preresolve: cx.each("preresolve_hostnames", preresolve_hostnames, preresolved)?,
            forbidden: cx.opt(
                "resolved_address_filter",
                resolved_address_filter,
                AddressMatcher::build,
            )?,
            resolver,
            name,
        })
    }
}

fn preresolved(proto: SocketAddress, cx: &mut BuildCx<'_>) -> ConfigResult<(String, u16)> {
    let SocketAddress {
        address,
        port_specifier,
        ..
    } = proto;
    match port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            let port = u16::try_from(port);
            let port = port.map_err(|_| cx.error_at("port_value", "value must be less than or equal to 65535"))?;
            Ok((address, port))
        }
        _ => Ok((address, 0)),
    }
}

/// All caches that somebody uses.
#[derive(Default)]
pub struct DnsCaches(Mutex<HashMap<String, (DnsCacheConfig, Weak<DnsCache>)>>);

impl DnsCaches {
    /// The cache of this configuration; all that name it must say the same.
    pub fn get(proto: DnsCacheConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Arc<DnsCache>> {
        let server = cx.server.clone();
        let known = |caches: &HashMap<String, (DnsCacheConfig, Weak<DnsCache>)>| {
            let (config, cache) = caches.get(&proto.name)?;
            Some((*config == proto, cache.upgrade()?))
        };
        let found = known(&server.dns_caches.0.lock().unwrap_or_else(PoisonError::into_inner));
        match found {
            Some((true, cache)) => return Ok(cache),
            Some((false, _)) => {
                return Err(cx.error(format!(
                    "config specified DNS cache '{}' with different settings",
                    proto.name
                )));
            }
            None => {}
        }
        let cache = DnsCache::new(CacheOptions::build(proto.clone(), cx)?, &server);
        let mut caches = server.dns_caches.0.lock().unwrap_or_else(PoisonError::into_inner);
        caches.retain(|_, (_, cache)| cache.strong_count() > 0);
        caches.insert(proto.name.clone(), (proto, Arc::downgrade(&cache)));
        Ok(cache)
    }
}
