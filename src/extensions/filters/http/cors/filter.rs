//! One stream that may come from a page of another origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::{
    http::{
        LocalReply, RequestHead, ResponseHead,
        filter::{FilterCx, HttpFilter, HttpFilterConfig, Step, StreamCx},
    },
    matching::HeaderLookup,
    route::CorsPolicy,
    stats::Stats,
};

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

crate::stats_block! {
    /// Envoy's `http.<stat_prefix>.cors.` statistics
    pub(super) struct CorsStats {
        counter origin_valid, "Requests of an origin that is allowed";
        counter origin_invalid, "Requests of an origin that is not allowed";
    }
}

/// The filter's configuration: policies are the routes'.
pub(super) struct CorsFilter(pub Stats<CorsStats>);

impl HttpFilterConfig for CorsFilter {
    fn create(&self, _: &StreamCx<'_>) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            stats: self.0.clone(),
            response: HeaderMap::new(),
        }))
    }
}

struct Filter {
    stats: Stats<CorsStats>,
    /// What the response gets when the origin is allowed.
    response: HeaderMap,
}

impl HttpFilter for Filter {
    fn request_headers<'a>(&'a mut self, cx: &'a mut FilterCx, head: &'a mut RequestHead, _: bool) -> Step<'a> {
        let policies = Policies::of(cx);
        let Some(first) = policies.0.first() else {
            return Step::Continue;
        };
        let enabled = first.enabled.roll();
        if !enabled && !first.shadow.roll() {
            return Step::Continue;
        }
        let Some(origin) = head.headers.get(header::ORIGIN).filter(|o| !o.is_empty()) else {
            return Step::Continue;
        };
        let allowed = policies.allows(origin);
        if allowed {
            self.stats.local().origin_valid.inc();
        } else {
            self.stats.local().origin_invalid.inc();
        }
        if !enabled {
            return Step::Continue;
        }
        if allowed {
            self.response = policies.response(origin);
        }
        let Some(method) = preflight_method(head) else {
            return Step::Continue;
        };
        if !allowed && policies.flag(|p| p.forward_not_matching_preflights).unwrap_or(true) {
            return Step::Continue;
        }
        let mut reply = LocalReply::new(StatusCode::OK, "", "cors_response");
        reply.verbatim = true;
        policies.preflight(head, origin, method, allowed, &mut reply.headers);
        Step::Reply(Box::new(reply))
    }

    fn response_headers<'a>(
        &'a mut self,
        _: &'a mut FilterCx,
        _: &'a RequestHead,
        head: &'a mut ResponseHead,
        _: bool,
    ) -> Step<'a> {
        for (name, value) in &self.response {
            head.headers.insert(name.clone(), value.clone());
        }
        Step::Continue
    }
}

/// `access-control-request-method` of a preflight.
fn preflight_method(head: &RequestHead) -> Option<&HeaderValue> {
    let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    (head.method == Method::OPTIONS && !method.is_empty()).then_some(method)
}

/// The policies of a request, the most specific first.
struct Policies<'a>(Vec<&'a CorsPolicy>);

impl<'a> Policies<'a> {
    /// Those of the per-filter configuration, or else of the route's and the virtual host's deprecated fields. Only
    /// routes that forward have policies.
    fn of(cx: &'a FilterCx) -> Self {
        let Some((route, action)) = cx.route.as_ref().and_then(|route| Some((route, route.forward()?))) else {
            return Self(Vec::new());
        };
        let mut policies: Vec<_> = cx.route_configs::<CorsPolicy>().collect();
        policies.reverse();
        if policies.is_empty() {
            let deprecated = [&action.cors, &route.virtual_host().cors];
            policies.extend(deprecated.into_iter().flatten().map(|p| &**p));
        }
        Self(policies)
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origins = self.0.iter().map(|p| &p.allow_origins).find(|o| !o.is_empty());
        let mut origins = origins.into_iter().flatten();
        origins.any(|m| m.matches(b"*") || m.matches(origin.as_bytes()))
    }

    fn text(&self, of: impl Fn(&'a CorsPolicy) -> &'a String) -> Option<&'a str> {
        let mut texts = self.0.iter().map(|p| of(p).as_str());
        texts.find(|text| !text.is_empty())
    }

    fn flag(&self, of: impl Fn(&CorsPolicy) -> Option<bool>) -> Option<bool> {
        self.0.iter().find_map(|p| of(p))
    }

    /// What every response to an allowed origin gets.
    fn response(&self, origin: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        self.credentials(&mut headers);
        set(
            &mut headers,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            self.text(|p| &p.expose_headers),
        );
        headers
    }

    fn credentials(&self, headers: &mut HeaderMap) {
        if self.flag(|p| p.allow_credentials) == Some(true) {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }

    /// The answer to a preflight. What is allowed as `*` is what was asked for, so that it holds with credentials too.
    fn preflight(
        &self,
        head: &RequestHead,
        origin: &HeaderValue,
        method: &HeaderValue,
        allowed: bool,
        headers: &mut HeaderMap,
    ) {
        if allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        self.credentials(headers);
        match self.text(|p| &p.allow_methods) {
            Some("*") => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            }
            methods => set(headers, header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        }
        match self.text(|p| &p.allow_headers) {
            Some("*") => {
                let asked = HeaderLookup::Header(header::ACCESS_CONTROL_REQUEST_HEADERS);
                let asked = HeaderValue::from_bytes(&asked.get(head).unwrap_or_default());
                if let Ok(asked) = asked {
                    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
                }
            }
            names => set(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, names),
        }
        set(headers, header::ACCESS_CONTROL_MAX_AGE, self.text(|p| &p.max_age));
        if self.flag(|p| p.allow_private_network) == Some(true)
            && head.headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|v| v == "true")
        {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
    }
}

/// Sets a header to configured text; text that cannot be a value is left out.
fn set(headers: &mut HeaderMap, name: HeaderName, text: Option<&str>) {
    if let Some(value) = text.and_then(|t| HeaderValue::from_str(t).ok()) {
        headers.insert(name, value);
    }
}
