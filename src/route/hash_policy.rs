//! `HashPolicy`: the hash by which ring hash and Maglev choose a host.

use http::HeaderValue;
use smallvec::SmallVec;

/// All hash policies of a route, in order.
#[derive(Debug, Clone, Default)]
pub struct HashPolicies {}

/// What hashing a request gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashOutcome {
    /// The hash; none when no policy had something to hash.
    pub hash: Option<u64>,
    /// `set-cookie` values to add to the response, of cookie policies with a `ttl` that made a new cookie.
    pub set_cookies: SmallVec<[HeaderValue; 1]>,
}
