//! Internal redirects: an upstream's redirect is followed here instead of being sent to the client.
//!
//! The request starts anew with what the redirect says, filters and all; the stream it was ends with
//! `internal_redirect`. A redirect that may not be followed goes to the client as it came.

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use super::{body::Bodies, number, request::Request};
use crate::{
    http::{Body, Path, RequestHead, ResponseHead, Scheme, filter::FilterCx, hcm::RouterStats},
    route::{InternalRedirectPolicy, RedirectPredicate},
};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// A request that starts anew; its head is the stream's, changed.
pub struct InternalRedirect {
    /// The upstream's status, which the log of the stream that ends has.
    pub status: StatusCode,
    /// The request's body, from its first byte.
    pub body: Body,
}

/// Follows the redirect if the response is one and the route's policy allows it; `head` is changed only then.
pub(super) fn follow(
    request: &Request<'_>,
    response: &ResponseHead,
    head: &mut RequestHead,
    bodies: &Bodies,
    cx: &mut FilterCx,
) -> Option<InternalRedirect> {
    let policy = request.action.internal_redirect.as_ref()?;
    if !policy.response_codes.contains(&response.status) {
        return None;
    }
    let stats = request.cluster.info.stats.local();
    let body = bodies.again().filter(|_| cx.info.progress.request_complete.get());
    let target = body.and_then(|body| {
        // Repeated, they are one, as odd as it is.
        let location = number::joined(&response.headers, &header::LOCATION)?;
        let target = target(request, policy, response, &location, head, cx)?;
        Some((target, body))
    });
    let Some((target, body)) = target else {
        stats.upstream_internal_redirect_failed_total.inc();
        return None;
    };
    stats.upstream_internal_redirect_succeeded_total.inc();
    let emptied = target.method != head.method;
    *head = target;
    Some(InternalRedirect {
        status: response.status,
        body: if emptied { Body::Empty } else { body },
    })
}

/// The head of the redirected request; none, and counted, when the redirect must not be followed.
fn target(
    request: &Request<'_>,
    policy: &InternalRedirectPolicy,
    response: &ResponseHead,
    location: &str,
    old: &RequestHead,
    cx: &mut FilterCx,
) -> Option<RequestHead> {
    let stats: &RouterStats = request.config.stats.local();
    let old_path = old.path.as_ref()?;
    let (scheme, authority, path) = match absolute(location) {
        Ok(parts) => parts,
        Err(Odd::Location) => {
            stats.passthrough_internal_redirect_bad_location.inc();
            return None;
        }
        Err(Odd::Scheme) => {
            stats.passthrough_internal_redirect_unsafe_scheme.inc();
            return None;
        }
    };
    let was_http = old.scheme == Scheme::Http || cx.info.connection.tls.is_none();
    let was = if was_http { Scheme::Http } else { Scheme::Https };
    if !policy.allow_cross_scheme && was != scheme {
        stats.passthrough_internal_redirect_unsafe_scheme.inc();
        return None;
    }
    if cx.info.redirects.count >= policy.max_internal_redirects {
        stats.passthrough_internal_redirect_too_many_redirects.inc();
        return None;
    }
    let mut head = old.clone();
    for name in &policy.headers_to_copy {
        head.headers.remove(name);
        for value in response.headers.get_all(name) {
            head.headers.append(name.clone(), value.clone());
        }
    }
    head.scheme = scheme;
    head.authority = Some(authority);
    head.path = Some(path);
    // What the log says of the route is the target's from here on, followed or not.
    let from = request.route.name.clone();
    cx.choose_route(&head, Some(request.route.table()));
    let Some(to) = cx.route.as_ref().map(|r| r.name.clone()) else {
        stats.passthrough_internal_redirect_no_route.inc();
        return None;
    };
    let redirects = &mut cx.info.redirects;
    let accepted = policy.predicates.iter().all(|predicate| match predicate {
        RedirectPredicate::PreviousRoutes => redirects.first_time(&from, &to),
        RedirectPredicate::AllowListedRoutes(names) => names.iter().any(|n| **n == *to),
        RedirectPredicate::SafeCrossScheme => !was_http || scheme == Scheme::Http,
    });
    if !accepted {
        stats.passthrough_internal_redirect_predicate.inc();
        return None;
    }
    redirects.count += 1;
    if response.status == StatusCode::SEE_OTHER && !matches!(head.method, Method::GET | Method::HEAD) {
        head.method = Method::GET;
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let original = format!("{}://{}{old_path}", was.as_str(), old.host());
    if let Ok(original) = HeaderValue::try_from(original) {
        head.headers.insert(ORIGINAL_URL, original);
    }
    Some(head)
}

/// Why a location is not followed whatever the policy says.
enum Odd {
    Location,
    Scheme,
}

/// The parts of a full URL, without its fragment and whoever is logged in there.
fn absolute(location: &str) -> Result<(Scheme, HeaderValue, Path), Odd> {
    let uri = Uri::try_from(location).map_err(|_| Odd::Location)?;
    let scheme = match uri.scheme_str() {
        Some("http") => Ok(Scheme::Http),
        Some("https") => Ok(Scheme::Https),
        Some(_) => Err(Odd::Scheme),
        None => return Err(Odd::Location),
    };
    let authority = uri.authority().ok_or(Odd::Location)?.as_str();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let authority = HeaderValue::from_str(authority).map_err(|_| Odd::Location)?;
    let path = uri.path_and_query().cloned().map(Path::from);
    Ok((scheme?, authority, path.unwrap_or_else(|| Path::from_static("/"))))
}
