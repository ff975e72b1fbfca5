//! `Permission` and `Principal` -> [`Rule`].

use xds_protos::{
    envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            rbac::v3::{
                MetadataSource, Permission, Principal, SourcedMetadata,
                permission::{self, Rule as PermissionRule},
                principal::{self, Authenticated, Identifier},
            },
        },
        extensions::rbac::{
            matchers::upstream_ip_port::v3::UpstreamIpPortMatcher, principals::mtls_authenticated::v3::Config as Mtls,
        },
        r#type::{
            matcher::v3::{MetadataMatcher as MetadataProto, PathMatcher, path_matcher},
            v3::{Int32Range, Int64Range},
        },
    },
    google::protobuf::Any,
};

use super::Rule;
use crate::{
    config::{AnyExt, BuildCx, ConfigError, ConfigResult, plain, unpack},
    matching::{FilterStateMatcher, HeaderMatcher, MetadataMatcher, StringMatcher},
    net::cidr_range,
    route::PathTemplate,
    tls::PeerSanMatcher,
};

impl Rule {
    /// Builds a permission.
    pub fn permission(proto: Permission, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        use PermissionRule as R;
        coverage!(cx, proto => Permission { supported { rule } });
        let Some(rule) = rule else {
            return Err(cx.error_at("rule", "value is required"));
        };
        match rule {
            R::Any(_) => Ok(Self::Any),
            R::AndRules(set) => cx.field("and_rules", |cx| permissions(set, cx)).map(Self::All),
            R::OrRules(set) => cx.field("or_rules", |cx| permissions(set, cx)).map(Self::Or),
            R::NotRule(rule) => cx
                .field("not_rule", |cx| Self::permission(*rule, cx))
                .map(|r| Self::Not(Box::new(r))),
            R::Header(m) => cx.field("header", |cx| HeaderMatcher::build(m, cx)).map(Self::Header),
            R::UrlPath(m) => cx.field("url_path", |cx| path(m, cx)).map(Self::Path),
            R::UriTemplate(t) => cx
                .field("uri_template", |cx| PathTemplate::build(t, cx))
                .map(Self::Template),
            R::DestinationIp(r) => cx
                .field("destination_ip", |cx| cidr_range(r, cx))
                .map(Self::DestinationIp),
            R::DestinationPort(port) => Ok(Self::DestinationPort(port, port + 1)),
            R::DestinationPortRange(r) => cx.field("destination_port_range", |cx| ports(r, cx)),
            R::Metadata(m) => cx
                .field("metadata", |cx| MetadataMatcher::build(m, cx))
                .map(Self::Dynamic),
            R::SourcedMetadata(m) => cx.field("sourced_metadata", |cx| sourced(m, cx)),
            R::RequestedServerName(m) => cx
                .field("requested_server_name", |cx| StringMatcher::build(m, cx))
                .map(Self::ServerName),
            R::Matcher(m) => cx.field("matcher", |cx| upstream(m, cx)),
        }
    }

    /// Builds a principal.
    pub fn principal(proto: Principal, cx: &mut BuildCx<'_>) -> ConfigResult<Self> {
        use Identifier as I;
        coverage!(cx, proto => Principal { supported { identifier } });
        let Some(identifier) = identifier else {
            return Err(cx.error_at("identifier", "value is required"));
        };
        match identifier {
            I::Any(_) => Ok(Self::Any),
            I::AndIds(set) => cx.field("and_ids", |cx| principals(set, cx)).map(Self::All),
            I::OrIds(set) => cx.field("or_ids", |cx| principals(set, cx)).map(Self::Or),
            I::NotId(id) => cx
                .field("not_id", |cx| Self::principal(*id, cx))
                .map(|r| Self::Not(Box::new(r))),
            I::Authenticated(a) => cx.field("authenticated", |cx| {
                coverage!(cx, a => Authenticated { supported { principal_name } });
                let name = cx.opt("principal_name", principal_name, StringMatcher::build)?;
                Ok(Self::Authenticated(name))
            }),
            I::SourceIp(r) => cx.field("source_ip", |cx| cidr_range(r, cx)).map(Self::SourceIp),
            I::DirectRemoteIp(r) => cx
                .field("direct_remote_ip", |cx| cidr_range(r, cx))
                .map(Self::DirectRemoteIp),
            I::RemoteIp(r) => cx.field("remote_ip", |cx| cidr_range(r, cx)).map(Self::RemoteIp),
            I::Header(m) => cx.field("header", |cx| HeaderMatcher::build(m, cx)).map(Self::Header),
            I::UrlPath(m) => cx.field("url_path", |cx| path(m, cx)).map(Self::Path),
            I::Metadata(m) => cx
                .field("metadata", |cx| MetadataMatcher::build(m, cx))
                .map(Self::Dynamic),
            I::SourcedMetadata(m) => cx.field("sourced_metadata", |cx| sourced(m, cx)),
            I::FilterState(m) => cx
                .field("filter_state", |cx| FilterStateMatcher::build(m, cx))
                .map(Self::FilterState),
            I::Custom(c) => cx.field("custom", |cx| mtls(c, cx)),
        }
    }
}

fn permissions(set: permission::Set, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Rule>> {
    coverage!(cx, set => permission::Set { supported { rules } });
    cx.each("rules", rules, Rule::permission)
}

fn principals(set: principal::Set, cx: &mut BuildCx<'_>) -> ConfigResult<Vec<Rule>> {
    coverage!(cx, set => principal::Set { supported { ids } });
    cx.each("ids", ids, Rule::principal)
}

fn path(proto: PathMatcher, cx: &mut BuildCx<'_>) -> ConfigResult<StringMatcher> {
    coverage!(cx, proto => PathMatcher { supported { rule } });
    match rule {
        Some(path_matcher::Rule::Path(m)) => cx.field("path", |cx| StringMatcher::build(m, cx)),
        None => Err(cx.error_at("rule", "value is required")),
    }
}

fn ports(proto: Int32Range, cx: &mut BuildCx<'_>) -> ConfigResult<Rule> {
    coverage!(cx, proto => Int32Range { supported { start, end } });
    let bound = |name: &str, n: i32| {
        u32::try_from(n)
            .ok()
            .filter(|n| *n <= 65536)
            .ok_or_else(|| cx.error(format!("range {name} {n} is out of bounds")))
    };
    let (first, after) = (bound("start", start)?, bound("end", end)?);
    if first >= after {
        return Err(cx.error(format!(
            "range start {start} cannot be greater or equal than range end {end}"
        )));
    }
    Ok(Rule::DestinationPort(first, after))
}

fn sourced(proto: SourcedMetadata, cx: &mut BuildCx<'_>) -> ConfigResult<Rule> {
    let source = proto.metadata_source();
    coverage!(cx, proto => SourcedMetadata { supported { metadata_matcher, metadata_source } });
    let _ = metadata_source;
    let matcher = cx.required("metadata_matcher", metadata_matcher, |m: MetadataProto, cx| {
        MetadataMatcher::build(m, cx)
    })?;
    Ok(match source {
        MetadataSource::Dynamic => Rule::Dynamic(matcher),
        MetadataSource::Route => Rule::Route(matcher),
    })
}

fn upstream(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Rule> {
    let (name, any) = extension(proto, cx)?;
    if any.type_name() != "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher" {
        return Err(unknown(&name, &any, cx));
    }
    let proto = unpack::<UpstreamIpPortMatcher>(&any, cx)?;
    coverage!(cx, proto => UpstreamIpPortMatcher { supported { upstream_ip, upstream_port_range } });
    if upstream_ip.is_none() && upstream_port_range.is_none() {
        return Err(cx.error(
            "Invalid UpstreamIpPortMatcher configuration - missing `upstream_ip` and/or `upstream_port_range`",
        ));
    }
    Ok(Rule::Upstream {
        ip: cx.opt("upstream_ip", upstream_ip, cidr_range)?,
        ports: upstream_port_range.map(|Int64Range { start, end }| (start, end)),
    })
}

fn mtls(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<Rule> {
    let (name, any) = extension(proto, cx)?;
    if any.type_name() != "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config" {
        return Err(unknown(&name, &any, cx));
    }
    let proto = unpack::<Mtls>(&any, cx)?;
    coverage!(cx, proto => Mtls { supported { san_matcher, any_validated_client_certificate } });
    if san_matcher.is_none() && !any_validated_client_certificate {
        return Err(cx.error(
            "envoy.rbac.principals.mtls_authenticated did not have any configured validation. At least one \
             configuration field must be set.",
        ));
    }
    cx.opt("san_matcher", san_matcher, PeerSanMatcher::build)
        .map(Rule::Mtls)
}

fn extension(proto: TypedExtensionConfig, cx: &mut BuildCx<'_>) -> ConfigResult<(String, Any)> {
    coverage!(cx, proto => TypedExtensionConfig { supported { name, typed_config } });
    Ok((name, plain(typed_config.unwrap_or_default(), cx)?))
}

fn unknown(name: &str, any: &Any, cx: &BuildCx<'_>) -> ConfigError {
    cx.error(format!(
        "Didn't find a registered implementation for '{name}' with type URL: '{}'",
        any.type_name()
    ))
}
