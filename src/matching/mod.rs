//! Matchers of `envoy.type.matcher.v3` and of routes: strings, regular expressions, headers, query
//! parameters, values, metadata, addresses. Built once, then matched without allocation.

pub mod address;
pub mod cel;
mod header;
mod predicate;
mod query;
mod query_parameters;
mod re2;
mod regex;
mod string;
pub mod tree;
mod value;

pub use address::AddressMatcher;
pub use header::{CookieMatcher, HeaderLookup, HeaderMatcher, cookie};
pub use predicate::ResponsePredicate;
pub use query::{QueryParameterMatcher, query_parameter};
pub use query_parameters::{QueryParameters, remove_query_parameter};
pub use regex::{RegexMatcher, RegexSubstitution, full_match};
pub use string::StringMatcher;
pub use value::{FilterStateMatcher, MetadataMatcher, ValueMatcher, struct_path};

#[cfg(test)]
mod tests;
