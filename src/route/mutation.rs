//! Header mutation: `*_headers_to_add`, `*_headers_to_remove`.

/// Mutations of one level, in Envoy's order: removals of this level first, then additions.
#[derive(Debug, Clone, Default)]
pub struct HeaderMutations {}
