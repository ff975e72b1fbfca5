//! Formatter extensions: commands that a format has only when it names their extension, and options of those that are
//! always there.

pub mod cel;
pub mod file_content;
pub mod generic_secret;
pub mod metadata;
pub mod req_without_query;
