use super::*;

#[test]
fn the_set_decodes_with_its_custom_options() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let node = pool.get_message_by_name("envoy.config.bootstrap.v3.Bootstrap").unwrap();
    assert!(node.get_field_by_name("static_resources").is_some());

    let rules = pool.get_extension_by_name("validate.rules").unwrap();
    let cluster = pool.get_message_by_name("envoy.config.cluster.v3.Cluster").unwrap();
    let name = cluster.get_field_by_name("name").unwrap();
    assert!(name.options().has_extension(&rules));
}

#[test]
fn the_set_carries_no_source_comments() {
    assert!(DESCRIPTORS.len() < 1_000_000, "{} bytes", DESCRIPTORS.len());
}

#[test]
fn rust_types_and_descriptors_are_of_one_version() {
    use crate::envoy::config::cluster::v3::Cluster;
    let cluster = message(&Cluster::full_name()).unwrap();
    assert_eq!(cluster.full_name(), "envoy.config.cluster.v3.Cluster");
    assert!(message("envoy.config.cluster.v3.NoSuchMessage").is_none());
}
