//! Envoy's default tags: which names they stand in.
//!
//! The order is part of the behaviour: labels come out in it. Regular expressions come first, then token patterns;
//! within a kind, the more special ones.

use super::ExtractorScope::{Field, Keyword, Prefix};
use super::{Extractor, ExtractorScope};

/// Pieces that the patterns below are put together from.
const PIECES: [(&str, &str); 4] = [
    ("<token>", r"[^.]+"),
    (
        "<address>",
        r"(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[a-fA-F_\d]+\])_\d+",
    ),
    ("<algorithm>", r"[\w-]+"),
    ("<tls_owner>", r"(?:listener|cluster)\..*?"),
];

/// Tag, pattern, what decides, a value that does not count.
const REGEXES: &[(&str, &str, ExtractorScope, &str)] = &[
    ("envoy.response_code", r"_rq(_(\d{3}))$", Field, ""),
    ("envoy.response_code_class", r"_rq_((\d))xx$", Field, ""),
    (
        "envoy.dynamo_partition_id",
        r"^http\.<token>\.dynamodb\.table\.<token>\.capacity\.<token>(\.__partition_id=(\w{7}))$",
        Keyword(".dynamodb."),
        "",
    ),
    (
        "envoy.dynamo_operation",
        r"^http\.<token>\.dynamodb.(?:operation|table\.<token>\.capacity)(\.(<token>))(?:\.|$)",
        Keyword(".dynamodb."),
        "",
    ),
    (
        "envoy.dynamo_table",
        r"^http\.<token>\.dynamodb.(?:table|error)\.((<token>)\.)",
        Keyword(".dynamodb."),
        "",
    ),
    (
        "envoy.ssl_cipher",
        r"^listener\..*?\.ssl\.ciphers(\.(<algorithm>))$",
        Keyword(".ciphers."),
        "",
    ),
    (
        "envoy.ssl_curve",
        r"^<tls_owner>\.ssl\.curves(\.(<algorithm>))$",
        Keyword(".curves."),
        "",
    ),
    (
        "envoy.ssl_sigalg",
        r"^<tls_owner>\.ssl\.sigalgs(\.(<algorithm>))$",
        Keyword(".sigalgs."),
        "",
    ),
    (
        "envoy.ssl_version",
        r"^<tls_owner>\.ssl\.versions(\.(TLSv\d\.\d))$",
        Keyword(".versions."),
        "",
    ),
    (
        "cipher_suite",
        r"^cluster\.<token>\.ssl\.ciphers(\.(<algorithm>))$",
        Keyword(".ciphers."),
        "",
    ),
    (
        "envoy.http_conn_manager_prefix",
        r"^listener\..*?\.http\.((<token>)\.)",
        Keyword(".http."),
        "",
    ),
    (
        "envoy.worker_id",
        r"^(?:listener\.(?:<address>|<token>)|server|listener_manager|thread_local_cluster_manager)\.worker_((\d+)\.)",
        Keyword(".worker_"),
        "",
    ),
    (
        "envoy.listener_address",
        r"^listener\.((<address>|<token>)\.)",
        Prefix,
        "admin",
    ),
    (
        "envoy.rds_route_config",
        r"^http\.<token>\.rds\.(([\w\-./]+)\.)\w+$",
        Keyword(".rds."),
        "",
    ),
    (
        "envoy.scoped_rds_config",
        r"^http\.<token>\.scoped_rds\.(([\w\-.]+)\.)\w+$",
        Keyword(".scoped_rds."),
        "",
    ),
    (
        "envoy.rbac_policy_name",
        r"^http\.<token>\.rbac\.(?:<token>\.)?policy\.((<token>)\.)(?:shadow_)?(?:allowed|denied)$",
        Keyword(".policy."),
        "",
    ),
    (
        "envoy.rbac_http_prefix",
        r"^http\.<token>\.rbac\.((<token>)\.)",
        Keyword(".rbac."),
        "policy",
    ),
    (
        "envoy.proxy_protocol_prefix",
        r"^proxy_proto\.((<token>)\.).+$",
        Prefix,
        "versions",
    ),
    (
        "envoy.proxy_protocol_version",
        r"^proxy_proto\.((?:<token>\.)?versions\.v(\d)\.)\w+$",
        Keyword(".versions."),
        "",
    ),
    (
        "envoy.tls_certificate",
        r"^<tls_owner>\.ssl\.certificate\.((<token>)\.)",
        Keyword(".certificate."),
        "",
    ),
    ("envoy.xds_resource_name", r"^sds\.((<token>)\.).+", Prefix, ""),
];

/// Tag, pattern, what decides.
const TOKENS: &[(&str, &str, ExtractorScope)] = &[
    (
        "envoy.mongo_callsite",
        "mongo.*.collection.*.callsite.$.query.**",
        Keyword(".callsite."),
    ),
    (
        "envoy.mongo_collection",
        "mongo.*.collection.$.**.query.*",
        Keyword(".collection."),
    ),
    ("envoy.mongo_cmd", "mongo.*.cmd.$.**", Keyword(".cmd.")),
    ("envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**", Keyword(".grpc.")),
    (
        "envoy.http_user_agent",
        "http.*.user_agent.$.**",
        Keyword(".user_agent."),
    ),
    ("envoy.virtual_cluster", "vhost.*.vcluster.$.**", Keyword(".vcluster.")),
    (
        "envoy.fault_downstream_cluster",
        "http.*.fault.$.**",
        Keyword(".fault."),
    ),
    ("envoy.grpc_bridge_service", "cluster.*.grpc.$.**", Keyword(".grpc.")),
    ("envoy.tcp_prefix", "tcp.$.**", Prefix),
    ("envoy.udp_prefix", "udp.$.**", Prefix),
    ("envoy.clientssl_prefix", "auth.clientssl.$.**", Keyword(".clientssl.")),
    ("envoy.ratelimit_prefix", "ratelimit.$.**", Prefix),
    ("envoy.cluster_name", "cluster.$.**", Prefix),
    (
        "envoy.ext_authz_prefix",
        "cluster.*.ext_authz.$.**",
        Keyword(".ext_authz."),
    ),
    (
        "envoy.ext_authz_prefix",
        "http.*.ext_authz.$.**",
        Keyword(".ext_authz."),
    ),
    ("envoy.http_conn_manager_prefix", "http.$.**", Prefix),
    ("envoy.virtual_host", "vhost.$.**", Prefix),
    ("envoy.mongo_prefix", "mongo.$.**", Prefix),
    ("envoy.route", "vhost.*.route.$.**", Keyword(".route.")),
    ("envoy.thrift_prefix", "thrift.$.**", Prefix),
    ("envoy.redis_prefix", "redis.$.**", Prefix),
    (
        "envoy.local_http_ratelimit_prefix",
        "$.http_local_rate_limit.**",
        Keyword(".http_local_rate_limit."),
    ),
    ("envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**", Prefix),
    (
        "envoy.local_listener_ratelimit_prefix",
        "listener_local_ratelimit.$.**",
        Prefix,
    ),
    ("envoy.dns_filter_prefix", "dns_filter.$.**", Prefix),
    ("envoy.connection_limit_prefix", "connection_limit.$.**", Prefix),
    ("envoy.rbac_prefix", "$.rbac.**", Keyword(".rbac.")),
    ("envoy.google_grpc_client_prefix", "grpc.$.**", Prefix),
];

/// All default extractors, in Envoy's order.
pub(super) fn all() -> Vec<Extractor> {
    let regexes = REGEXES.iter().map(|(tag, pattern, scope, except)| {
        let pattern = PIECES.iter().fold((*pattern).to_owned(), |pattern, (piece, text)| {
            pattern.replace(piece, text)
        });
        Extractor::known(tag, &pattern, *scope, except)
    });
    let tokens = TOKENS
        .iter()
        .map(|(tag, pattern, scope)| Extractor::tokens(tag, pattern, *scope));
    regexes.chain(tokens).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_pattern_compiles() {
        let all = super::all();
        assert_eq!(all.len(), super::REGEXES.len() + super::TOKENS.len());
        assert!(all.iter().all(super::Extractor::compiles));
    }
}
