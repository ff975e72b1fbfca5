use xds_protos::envoy::config::cluster::v3::Cluster;

use super::*;

fn cluster(name: &str) -> Any {
    any::pack(&Cluster {
        name: name.to_owned(),
        ..Default::default()
    })
}

fn type_url() -> String {
    xds_protos::type_url::<Cluster>()
}

#[test]
fn plain_and_wrapped_resources_get_names_versions_and_ttl() {
    let wrapped = any::pack(&Wrapper {
        name: "b".to_owned(),
        version: "7".to_owned(),
        resource: Some(cluster("b")),
        ttl: Some(pb::Duration { seconds: 3, nanos: 0 }),
        ..Default::default()
    });
    let decoded = decode_all(&type_url(), vec![cluster("a"), wrapped], "1");
    let seen: Vec<_> = decoded
        .resources
        .iter()
        .map(|r| (r.name.as_str(), r.version.as_str(), r.ttl))
        .collect();
    assert_eq!(seen, [("a", "1", None), ("b", "7", Some(Duration::from_secs(3)))]);
    assert!(decoded.rejected.is_empty());
}

#[test]
fn a_wrapper_without_resource_is_a_heartbeat() {
    let beat = any::pack(&Wrapper {
        name: "b".to_owned(),
        version: "7".to_owned(),
        ttl: Some(pb::Duration { seconds: 3, nanos: 0 }),
        ..Default::default()
    });
    let decoded = decode_all(&type_url(), vec![beat], "1");
    assert_eq!(
        decoded.heartbeats,
        [Heartbeat {
            name: "b".to_owned(),
            version: "7".to_owned(),
            ttl: Some(Duration::from_secs(3))
        }]
    );
}

#[test]
fn garbage_and_strange_types_are_rejected_one_by_one() {
    let garbage = Any {
        type_url: type_url(),
        value: vec![0xff, 0xff, 0xff],
    };
    let strange = Any {
        type_url: "type.googleapis.com/envoy.config.nothing.v3.Nothing".to_owned(),
        value: Vec::new(),
    };
    let decoded = decode_all(&type_url(), vec![garbage, cluster("good"), strange], "1");
    assert_eq!(decoded.resources.len(), 1);
    assert_eq!(decoded.rejected.len(), 2);
    assert!(
        decoded.rejected[1]
            .reason
            .contains("does not match the message-wide type URL")
    );
}

#[test]
fn a_nack_names_every_bad_cluster_in_envoys_words_and_length() {
    let rejected = |name: &str, reason: &str| Rejected {
        name: name.to_owned(),
        reason: reason.to_owned(),
    };
    assert_eq!(
        error_detail(&type_url(), &[rejected("a", "bad"), rejected("b", "worse")]),
        "Error adding/updating cluster(s) a: bad, b: worse"
    );
    assert_eq!(
        error_detail("type.googleapis.com/x.Y", &[rejected("r", "Unexpected r")]),
        "Unexpected r"
    );
    let long = error_detail(&type_url(), &[rejected("a", &"é".repeat(5000))]);
    assert!(long.len() <= MAX_DETAIL + "...(truncated)".len() && long.ends_with("...(truncated)"));
}
