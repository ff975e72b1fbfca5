//! `typed_dns_resolver_config` and the older ways to say the same.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use hickory_resolver::{
    config::{NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    system_conf,
};
use tokio::sync::Semaphore;
use xds_protos::envoy::{
    config::core::v3::{Address as ProtoAddress, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig},
    extensions::network::dns_resolver::{
        cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig,
    },
};

use super::{Cares, DnsResolver, GetAddrInfo, cares::State};
use crate::{
    config::{AnyExt, BuildCx, ConfigResult, unpack},
    net::{Address, address_from_proto},
};

/// The DNS port, for name servers without one.
const PORT: u16 = 53;

/// Envoy's default of `query_timeout_seconds`.
const TIMEOUT: u64 = 5;

/// Envoy's default of `query_tries`.
const TRIES: u32 = 4;

/// The resolver that the bootstrap names, for everybody who names none.
#[derive(Default)]
pub struct Resolvers(OnceLock<DnsResolver>);

impl Resolvers {
    /// Made when it is first needed: few proxies resolve names.
    pub fn of_bootstrap(&self, cx: &mut BuildCx<'_>) -> ConfigResult<DnsResolver> {
        if let Some(known) = self.0.get() {
            return Ok(known.clone());
        }
        let bootstrap = cx.server.bootstrap.clone();
        #[allow(deprecated)]
        let built = match (&bootstrap.typed_dns_resolver_config, &bootstrap.dns_resolution_config) {
            (Some(typed), _) => DnsResolver::typed(typed.clone(), cx)?,
            (None, Some(config)) => DnsResolver::untyped(config.clone(), cx)?,
            (None, None) => DnsResolver::plain(Vec::new(), bootstrap.use_tcp_for_dns_lookups, cx)?,
        };
        Ok(self.0.get_or_init(|| built).clone())
    }
}

impl DnsResolver {
    /// What a message with all three generations of fields says; the newest that is set counts.
    pub fn choose(
        typed: Option<TypedExtensionConfig>,
        untyped: Option<DnsResolutionConfig>,
        servers: Vec<ProtoAddress>,
        over_tcp: bool,
        cx: &mut BuildCx<'_>,
    ) -> ConfigResult<Self> {
        match (typed, untyped) {
            (Some(typed), _) => cx.field("typed_dns_resolver_config", |cx| Self::typed(typed, cx)),
            (None, Some(untyped)) if !untyped.resolvers.is_empty() => {
                cx.field("dns_resolution_config", |cx| Self::untyped(untyped, cx))
            }
            _ if !servers.is_empty() => cx.field("dns_resolvers", |cx| Self::plain(servers, over_tcp, cx)),
            _ => cx.server.dns.of_bootstrap(cx),
        }
    }

    /// `typed_dns_resolver_config`
    fn typed(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let TypedExtensionConfig { name, typed_config } = proto;
        let any = typed_config.unwrap_or_default();
        match any.type_name() {
            "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" => {
                cx.field("typed_config", |cx| cares(unpack(&any, cx)?, cx))
            }
            "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => {
                cx.field("typed_config", |cx| getaddrinfo(unpack(&any, cx)?, cx))
            }
            other => Err(cx.error(format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{other}'"
            ))),
        }
    }

    /// `dns_resolution_config`
    fn untyped(proto: DnsResolutionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        coverage!(cx, proto => DnsResolutionConfig { supported { resolvers, dns_resolver_options } });
        let proto = CaresDnsResolverConfig {
            resolvers,
            dns_resolver_options,
            ..Default::default()
        };
        cares(proto, cx)
    }

    /// `dns_resolvers` and `use_tcp_for_dns_lookups`
    fn plain(resolvers: Vec<ProtoAddress>, over_tcp: bool, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        let proto = CaresDnsResolverConfig {
            resolvers,
            dns_resolver_options: Some(DnsResolverOptions {
                use_tcp_for_dns_lookups: over_tcp,
                ..Default::default()
            }),
            ..Default::default()
        };
        cares(proto, cx)
    }
}

fn cares(proto: CaresDnsResolverConfig, cx: &mut BuildCx<'_>) -> ConfigResult<DnsResolver> {
    coverage!(cx, proto => CaresDnsResolverConfig {
        supported {
            resolvers, use_resolvers_as_fallback, filter_unroutable_families, dns_resolver_options,
            query_timeout_seconds, query_tries, rotate_nameservers, edns0_max_payload_size
        }
        ignored {
            udp_max_queries: "every query has a socket of its own",
            max_udp_channel_duration: "every query has a socket of its own",
            reinit_channel_on_timeout: "every query has a socket of its own",
            qcache_max_ttl: "answers are not kept"
        }
    });
    let DnsResolverOptions {
        use_tcp_for_dns_lookups: over_tcp,
        no_default_search_domain,
    } = dns_resolver_options.unwrap_or_default();
    let mut servers = Vec::new();
    for (index, address) in resolvers.into_iter().enumerate() {
        servers.push(cx.item("resolvers", index, |cx| name_server(address, cx))?);
    }
    let (of_system, mut options) = system_conf::read_system_conf().unwrap_or_default();
    let (domain, mut search, mut name_servers) = of_system.into_parts();
    // A configured search list stands for the domain of the host.
    let mut domain = domain.filter(|_| search.is_empty());
    if no_default_search_domain {
        (domain, search) = (None, Vec::new());
    }
    if name_servers.is_empty() {
        // As c-ares: there may be one on this machine.
        if servers.is_empty() {
            servers.push((Ipv4Addr::LOCALHOST.into(), PORT));
        }
    } else if use_resolvers_as_fallback {
        servers.clear();
    }
    if !servers.is_empty() {
        name_servers = servers.into_iter().map(|(ip, port)| server(ip, port)).collect();
    }
    if over_tcp {
        for server in &mut name_servers {
            server.connections.retain(|c| matches!(c.protocol, ProtocolConfig::Tcp));
        }
    }
    set_options(&mut options);
    options.timeout = Duration::from_secs(query_timeout_seconds.map_or(TIMEOUT, |v| v.value).max(1));
    if let Some(size) = edns0_max_payload_size {
        options.edns_payload_len = u16::try_from(size.value.clamp(512, 4096)).unwrap_or(u16::MAX);
    }
    Ok(DnsResolver::Cares(Arc::new(Cares {
        servers: name_servers
            .into_iter()
            .map(|server| ResolverConfig::from_parts(domain.clone(), search.clone(), vec![server]))
            .collect(),
        options,
        tries: query_tries.map_or(TRIES, |v| v.value),
        rotation: rotate_nameservers.then(Default::default),
        filter_unroutable: filter_unroutable_families,
        stats: cx.server.stats.scope("dns.cares.").block(),
        state: std::sync::Mutex::new(State::default()),
    })))
}

/// Where c-ares differs from hickory whatever is configured: nothing is kept. Names of this machine are looked up by
/// us, and so it is us who try again.
fn set_options(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.attempts = 0;
    options.edns0 = true;
    // More than one cluster's names may be asked for at once.
    options.max_active_requests = 4096;
}

fn server(ip: IpAddr, port: u16) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(ip);
    for connection in &mut server.connections {
        connection.port = port;
    }
    server
}

fn name_server(proto: ProtoAddress, cx: &mut BuildCx<'_>) -> ConfigResult<(IpAddr, u16)> {
    match address_from_proto(proto, cx)? {
        Address::Ip(address) if address.port() == 0 => Ok((address.ip(), PORT)),
        Address::Ip(address) => Ok((address.ip(), address.port())),
        other => Err(cx.error(format!("DNS resolver '{other}' is not an IP address"))),
    }
}

fn getaddrinfo(proto: GetAddrInfoDnsResolverConfig, cx: &mut BuildCx<'_>) -> ConfigResult<DnsResolver> {
    coverage!(cx, proto => GetAddrInfoDnsResolverConfig { supported { num_retries, num_resolver_threads } });
    let threads = num_resolver_threads.map_or(1, |v| v.value).max(1);
    Ok(DnsResolver::GetAddrInfo(Arc::new(GetAddrInfo {
        retries: num_retries.map(|v| v.value),
        permits: Semaphore::new(usize::try_from(threads).unwrap_or(1).min(Semaphore::MAX_PERMITS)),
    })))
}
