//! One permission or principal, evaluated. Both are built into the same [`Rule`]: what they ask differs, how they
//! combine does not.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::{
    http::{StreamInfo, stream_info::Metadata},
    matching::{FilterStateMatcher, HeaderMatcher, MetadataMatcher, StringMatcher, tree::MatchCx},
    net::Address,
    route::PathTemplate,
    tls::PeerSanMatcher,
};

/// The filter state that holds the address a request is about to be sent to.
const UPSTREAM_ADDRESS: &str = "envoy.stream.upstream_address";

/// A permission or a principal.
#[derive(Debug)]
pub enum Rule {
    /// `any`
    Any,
    /// `and_rules`, `and_ids`
    All(Vec<Rule>),
    /// `or_rules`, `or_ids`
    Or(Vec<Rule>),
    /// `not_rule`, `not_id`
    Not(Box<Rule>),
    /// `header`
    Header(HeaderMatcher),
    /// `url_path`: without the query.
    Path(StringMatcher),
    /// `uri_template`
    Template(PathTemplate),
    /// `destination_ip`
    DestinationIp(IpNet),
    /// `destination_port`, `destination_port_range`: from the first to before the second.
    DestinationPort(u32, u32),
    /// `requested_server_name`
    ServerName(StringMatcher),
    /// `metadata` and `sourced_metadata` of the stream.
    Dynamic(MetadataMatcher),
    /// `sourced_metadata` of the route.
    Route(MetadataMatcher),
    /// `filter_state`
    FilterState(FilterStateMatcher),
    /// `authenticated`: TLS, and one of the names of the client's certificate.
    Authenticated(Option<StringMatcher>),
    /// `source_ip`: the connection's client.
    SourceIp(IpNet),
    /// `direct_remote_ip`: the peer of the socket.
    DirectRemoteIp(IpNet),
    /// `remote_ip`: the client as far as it can be trusted.
    RemoteIp(IpNet),
    /// `envoy.rbac.matchers.upstream_ip_port`
    Upstream {
        /// None: any.
        ip: Option<IpNet>,
        /// Ports from the first to before the second; none: any.
        ports: Option<(i64, i64)>,
    },
    /// `envoy.rbac.principals.mtls_authenticated`: a client certificate that was validated, and one of its names.
    Mtls(Option<PeerSanMatcher>),
}

impl Rule {
    /// Whether it holds. What is asked and is not there does not match.
    pub fn matches(&self, cx: &MatchCx<'_>) -> bool {
        let connection = cx.connection;
        let local = &connection.local_address;
        match self {
            Self::Any => true,
            Self::All(all) => all.iter().all(|r| r.matches(cx)),
            Self::Or(any) => any.iter().any(|r| r.matches(cx)),
            Self::Not(not) => !not.matches(cx),
            Self::Header(header) => match cx.request {
                Some(head) => header.matches(head),
                None => header.matches_value(None),
            },
            Self::Path(path) => cx
                .request
                .is_some_and(|head| head.path.is_some() && path.matches(head.path_only().as_bytes())),
            Self::Template(template) => cx
                .request
                .is_some_and(|head| template.matches(head.path_only().as_bytes())),
            Self::DestinationIp(net) => within(net, local),
            Self::DestinationPort(start, end) => local.port().is_some_and(|p| (*start..*end).contains(&u32::from(p))),
            Self::ServerName(name) => name.matches(connection.server_name.as_deref().unwrap_or_default().as_bytes()),
            Self::Dynamic(matcher) => matcher.matches(|filter| dynamic(cx.stream, filter)),
            Self::Route(matcher) => cx.stream.is_some_and(|info| {
                matcher.matches(|filter| info.route_metadata.as_ref()?.filter_metadata.get(filter))
            }),
            Self::FilterState(matcher) => cx.stream.is_some_and(|info| matcher.matches(info)),
            Self::Authenticated(name) => authenticated(name.as_ref(), cx),
            Self::SourceIp(net) => within(net, &connection.remote_address),
            Self::DirectRemoteIp(net) => within(net, &connection.direct_remote_address),
            Self::RemoteIp(net) => within(
                net,
                cx.stream.map_or(&connection.remote_address, |s| s.remote_address()),
            ),
            Self::Upstream { ip, ports } => upstream(cx.stream).is_some_and(|address| {
                ip.is_none_or(|net| net.contains(&address.ip()))
                    && ports.is_none_or(|(start, end)| (start..end).contains(&address.port().into()))
            }),
            Self::Mtls(name) => connection
                .tls
                .as_ref()
                .is_some_and(|tls| tls.peer_validated && name.as_ref().is_none_or(|name| name.matches(&tls.peer))),
        }
    }
}

fn within(net: &IpNet, address: &Address) -> bool {
    address.ip().is_some_and(|ip| net.contains(&ip))
}

fn dynamic<'a>(stream: Option<&'a StreamInfo>, filter: &str) -> Option<&'a xds_protos::google::protobuf::Struct> {
    let metadata: &Metadata = &stream?.metadata;
    metadata.get(filter)
}

/// URI names, DNS names, and the subject: a certificate is whoever one of them says.
fn authenticated(name: Option<&StringMatcher>, cx: &MatchCx<'_>) -> bool {
    let Some(tls) = &cx.connection.tls else {
        return false;
    };
    let Some(name) = name else {
        return true;
    };
    let cert = &tls.peer;
    let mut names = cert.uri_sans.iter().chain(&cert.dns_sans);
    names.any(|n| name.matches(n.as_bytes())) || name.matches(cert.subject.as_bytes())
}

fn upstream(stream: Option<&StreamInfo>) -> Option<SocketAddr> {
    stream?.filter_state.get(UPSTREAM_ADDRESS)?.as_text()?.parse().ok()
}
