//! Role-based access control, the part that HTTP and network filters share: policies ([`Rule`]) or a matcher tree,
//! and the [`Engine`] that decides.
//!
//! Whatever cannot be evaluated is rejected when it is configured: a rule that is left out would let somebody in.

mod build;
mod engine;
mod rule;

pub use engine::{Engine, Place, Verdict};
pub use rule::Rule;

/// The key of the policy that decided, below a filter's prefix.
pub const POLICY_ID: &str = "effective_policy_id";
/// The key of the decision.
pub const RESULT: &str = "engine_result";

/// `prefix` and `part` as Envoy joins names of statistics: with one dot between, and one behind.
pub fn stat_prefix(prefix: &str, part: &str) -> String {
    match (part, part.ends_with('.')) {
        ("", _) => prefix.to_owned(),
        (_, true) => format!("{prefix}{part}"),
        (_, false) => format!("{prefix}{part}."),
    }
}

/// `rbac_access_denied_matched_policy[...]`: what logs show of a denial.
pub fn denial_details(policy: Option<&str>) -> String {
    let policy = policy.unwrap_or("none");
    let policy: String = policy
        .chars()
        .map(|c| if c.is_ascii_whitespace() { '_' } else { c })
        .collect();
    format!("rbac_access_denied_matched_policy[{policy}]")
}

#[cfg(test)]
mod tests;
