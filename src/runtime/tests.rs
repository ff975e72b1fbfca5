use xds_protos::{
    envoy::config::bootstrap::v3::LayeredRuntime,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::{
    config::FractionalPercent,
    stats::{StatsConfig, Store},
};

fn runtime(layers: &str) -> Runtime {
    tried(layers).unwrap()
}

fn tried(layers: &str) -> crate::config::ConfigResult<Runtime> {
    let proto: LayeredRuntime = typed(&format!("layers: {layers}"), Syntax::Yaml, &LoadOptions::default()).unwrap();
    Runtime::new(proto, "mycluster", &Store::new(StatsConfig::default(), 1))
}

fn modify(runtime: &Runtime, key: &str, text: &str) -> Result<(), ModifyError> {
    runtime.modify([(key.to_owned(), text.to_owned())])
}

#[test]
fn the_last_layer_that_has_a_key_counts() {
    let r = runtime("[{name: a, static_layer: {x: 1, y: {z: 2}, y.z: 3}}, {name: b, static_layer: {x: 4}}]");
    let snapshot = r.snapshot();
    assert_eq!(snapshot.integer("x", 0), 4);
    assert_eq!(snapshot.integer("y.z", 0), 2);
    assert_eq!(snapshot.integer("none", 9), 9);
    assert_eq!(snapshot.layers()[0].values["x"].raw, "1");
}

// What Envoy 1.40 makes of each form, as a share with defaults of nothing and of everything.
#[test]
fn shares_are_read_as_envoy_reads_them() {
    let r = runtime(
        r#"[{name: a, static_layer: {
            text: "100", spaced: " 100 ", real: 100.5, large: "100000000000", hex: "0x64", exp: "1e2",
            message: {numerator: 100}, fine: {numerator: 10000, denominator: TEN_THOUSAND},
            no_numerator: {denominator: HUNDRED}, empty: {}, word_numerator: {numerator: hello}, one: 1,
            quoted: "{numerator: 100}", yes: true, negative: -4, number_denominator: {numerator: 1, denominator: 1},
            bad_denominator: {numerator: 5, denominator: WHAT}, further: {numerator: 100, other: 5}, word: hello,
        }}]"#,
    );
    let parts = |key: &str| {
        let none = FractionalPercent::from_millionths(123);
        match r.key(key).share(none).millionths() {
            123 => None,
            parts => Some(parts),
        }
    };
    for key in ["text", "spaced", "real", "large", "hex", "exp", "message", "fine"] {
        assert_eq!(parts(key), Some(1_000_000), "{key}");
    }
    for key in ["no_numerator", "empty", "word_numerator"] {
        assert_eq!(parts(key), Some(0), "{key}");
    }
    assert_eq!(parts("one"), Some(10_000));
    for key in [
        "quoted",
        "yes",
        "negative",
        "number_denominator",
        "bad_denominator",
        "further",
        "word",
        "absent",
    ] {
        assert_eq!(parts(key), None, "{key}");
    }
}

#[test]
fn numbers_and_truth_values() {
    let r = runtime(r#"[{name: a, static_layer: {n: 2.5, t: true, f: "FALSE", one: 1, zero: "0", minus: -3}}]"#);
    let s = r.snapshot();
    assert_eq!((s.double("n", 0.0), s.integer("n", 0)), (2.5, 2));
    assert_eq!((s.double("minus", 0.0), s.integer("minus", 7)), (-3.0, 7));
    assert!(s.boolean("t", false) && !s.boolean("f", true) && s.boolean("one", false) && !s.boolean("zero", true));
    assert!(s.boolean("n", true) && !s.boolean("n", false));
    assert!(s.percent_feature("n", 0, 101) && !s.percent_feature("n", 0, 102));
}

#[test]
fn keys_follow_changes_and_an_empty_value_takes_one_back() {
    let r = runtime("[{name: a, static_layer: {x: 1}}, {name: admin, admin_layer: {}}]");
    let (x, y, same) = (r.key("x"), r.key("y"), r.key("x"));
    assert_eq!((x.integer(0), y.integer(5)), (1, 5));
    modify(&r, "x", "7").unwrap();
    modify(&r, "y", "{numerator: 3}").unwrap();
    assert_eq!((x.integer(0), same.integer(0)), (7, 7));
    assert_eq!(y.share(FractionalPercent::ZERO).millionths(), 30_000);
    assert_eq!(r.key("").integer(4), 4);
    modify(&r, "x", "").unwrap();
    modify(&r, "y", "").unwrap();
    assert_eq!((x.integer(0), y.integer(5)), (1, 5));
    drop((x, y, same));
    assert_eq!(r.key("x").integer(0), 1);
}

#[test]
fn modifications_need_an_admin_layer_and_yaml() {
    let error = modify(&runtime("[]"), "x", "1").unwrap_err();
    assert_eq!(error.to_string(), "No admin layer specified");
    let r = runtime("[{name: admin, admin_layer: {}}]");
    assert!(matches!(modify(&r, "x", "a: {b"), Err(ModifyError::Unreadable(_))));
    assert!(r.snapshot().is_empty());
}

#[test]
fn layers_that_envoy_refuses() {
    for (layers, reason) in [
        (
            "[{name: a, admin_layer: {}}, {name: a, static_layer: {}}]",
            "Duplicate layer name: a",
        ),
        (
            "[{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]",
            "Too many admin layers",
        ),
        (
            "[{name: a, static_layer: {x: {y: [1]}}}]",
            "Invalid runtime entry value for x.y",
        ),
        (
            "[{name: a, static_layer: {x: null}}]",
            "Invalid runtime entry value for x",
        ),
    ] {
        let error = tried(layers).err().unwrap().to_string();
        assert!(error.contains(reason), "{layers}: {error}");
    }
}

#[test]
fn files_are_keys_and_directories_are_dots() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("v/base/health/plain", "# comment\n100\n");
    write("v/base/block", "numerator: 5\ndenominator: MILLION\n");
    write("v/over/mycluster/block", "0");
    let r = runtime(&format!(
        "[{{name: base, disk_layer: {{symlink_root: '{0}', subdirectory: base}}}}, {{name: over, disk_layer: \
         {{symlink_root: '{0}', subdirectory: over, append_service_cluster: true}}}}]",
        root.path().join("v").display()
    ));
    let (plain, block) = (r.key("health.plain"), r.key("block"));
    assert_eq!((plain.integer(0), block.integer(9)), (100, 0));
    assert_eq!(r.watched_paths().len(), 2);
    std::fs::remove_dir_all(root.path().join("v/over")).unwrap();
    r.load();
    assert_eq!(block.share(FractionalPercent::FULL).millionths(), 5);
    assert_eq!(r.snapshot().layers().len(), 1);
    // A file that cannot be read leaves its whole layer out.
    write("v/base/bad", "x: {y");
    r.load();
    assert!(r.snapshot().layers().is_empty());
    assert_eq!(plain.integer(0), 0);
}
