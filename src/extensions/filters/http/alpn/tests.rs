use xds_protos::load::{LoadOptions, Syntax, typed};

use super::*;
use crate::route::test_support::server;

fn build(yaml: &str) -> ConfigResult<Arc<dyn HttpFilterConfig>> {
    let proto = typed(yaml, Syntax::Yaml, &LoadOptions::default()).unwrap();
    Factory.build(proto, &mut BuildCx::new(&server()))
}

#[test]
fn protocols_are_named_or_numbered() {
    assert!(
        build("{alpn_override: [{upstream_protocol: HTTP10, alpn_override: [a]}, {upstream_protocol: 2}]}").is_ok()
    );
    assert!(build("{}").is_ok());
    let error = build("{alpn_override: [{upstream_protocol: 7}]}").err().unwrap();
    assert!(
        error.to_string().contains("alpn_override[0].upstream_protocol"),
        "{error}"
    );
}
