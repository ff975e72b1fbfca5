//! Changes that the service wants.

use http::{HeaderName, HeaderValue, header};
use xds_protos::envoy::{
    config::core::v3::HeaderValueOption,
    service::ext_proc::v3::{BodyMutation, HeaderMutation, body_mutation::Mutation},
};

use crate::extensions::filters::{
    common::mutation_rules::{Rules, Verdict},
    http::view::View,
};

/// Changes headers as the service says, as far as the rules allow. Counts what they do not; the error is Envoy's text.
pub(super) fn headers(
    mutation: &HeaderMutation,
    mut view: View<'_>,
    rules: &Rules,
    replacing: bool,
    without_length: bool,
    mut rejected: impl FnMut(),
) -> Result<(), String> {
    for name in &mutation.remove_headers {
        let lower = name.to_ascii_lowercase();
        if !is_name(&lower) {
            rejected();
            return Err("header_mutation_remove_contains_invalid_character".into());
        }
        match rules.check(&lower, true) {
            Verdict::Allowed => view.remove(&lower),
            Verdict::Ignored => rejected(),
            Verdict::Error => {
                rejected();
                return Err("header_mutation_remove_headers_failed".into());
            }
        }
    }
    for option in &mutation.set_headers {
        let Some(header) = &option.header else { continue };
        let name = header.key.to_ascii_lowercase();
        if without_length && name == header::CONTENT_LENGTH.as_str() {
            continue;
        }
        if !header.value.is_empty() && !header.raw_value.is_empty() {
            rejected();
            return Err("header_mutation_set_contains_both_value_and_raw_value".into());
        }
        let value = header.raw_value.as_slice();
        if !is_name(&name) || HeaderValue::from_bytes(value).is_err() {
            rejected();
            return Err("header_mutation_set_contains_invalid_character".into());
        }
        let verdict = match replacing && name == ":method" {
            true => Verdict::Allowed,
            false => rules.check(&name, false),
        };
        match verdict {
            Verdict::Allowed => set(option, &name, value, &mut view),
            Verdict::Ignored => rejected(),
            Verdict::Error => {
                rejected();
                return Err("header_mutation_set_headers_failed".into());
            }
        }
    }
    Ok(())
}

/// Only `append` says how: it comes from a time before `append_action`, which is not looked at.
fn set(option: &HeaderValueOption, name: &str, value: &[u8], view: &mut View<'_>) {
    match option.append.is_some_and(|v| v.value) {
        true => view.add(name, value),
        false => view.set(name, value),
    }
}

fn is_name(name: &str) -> bool {
    HeaderName::from_bytes(name.strip_prefix(':').unwrap_or(name).as_bytes()).is_ok()
}

/// The body after the service's change; none when it stays.
pub(super) fn body(mutation: Option<BodyMutation>) -> Option<Vec<u8>> {
    match mutation?.mutation? {
        Mutation::Body(bytes) => Some(bytes),
        Mutation::ClearBody(true) => Some(Vec::new()),
        Mutation::ClearBody(false) | Mutation::StreamedResponse(_) => None,
    }
}
