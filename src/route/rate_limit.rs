//! `RateLimit`: the descriptors of a request, for the two rate limit filters.

/// The rate limits of one level (route, virtual host, or a filter's own list).
#[derive(Debug, Clone, Default)]
pub struct RateLimitPolicy {}
