use xds_protos::{
    google::protobuf::Any,
    load::{LoadOptions, Syntax, typed},
};

use super::*;
use crate::route::test_support::server;

const KINDS: [&str; 3] = ["gzip", "brotli", "zstd"];

fn config(kind: &str, side: &str, yaml: &str) -> TypedExtensionConfig {
    let message = match kind {
        "gzip" => "Gzip",
        "brotli" => "Brotli",
        _ => "Zstd",
    };
    let text = format!(
        "name: x\ntyped_config: {{\"@type\": type.googleapis.com/envoy.extensions.compression.{kind}.{side}.v3.{message}, {yaml}}}"
    );
    typed(&text, Syntax::Yaml, &LoadOptions::default()).unwrap()
}

fn pair(kind: &str) -> (Box<dyn Compressor>, Box<dyn Decompressor>) {
    let server = server();
    let cx = &mut BuildCx::new(&server);
    let compressor = compressor(config(kind, "compressor", ""), cx).unwrap();
    let decompressor = decompressor(config(kind, "decompressor", ""), cx).unwrap();
    assert_eq!(compressor.encoding, decompressor.encoding);
    (compressor.make().unwrap(), decompressor.make().unwrap())
}

fn noise(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..len).map(|_| rng.u8(b'a'..=b'p')).collect()
}

#[test]
fn what_is_flushed_can_be_read() {
    for kind in KINDS {
        let (mut compressor, mut decompressor) = pair(kind);
        for part in [b"first ".to_vec(), noise(100_000), b"last".to_vec()] {
            let compressed = compressor.compress(&part, Flush::Sync).unwrap();
            assert!(decompressor.decompress(&compressed).unwrap() == part, "{kind}");
        }
        let end = compressor.compress(b"end", Flush::Finish).unwrap();
        assert_eq!(decompressor.decompress(&end).unwrap(), b"end", "{kind}");
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    for kind in KINDS {
        let (mut compressor, mut decompressor) = pair(kind);
        let compressed = compressor.compress(&noise(3000), Flush::Finish).unwrap();
        let plain: Vec<u8> = compressed
            .iter()
            .flat_map(|b| decompressor.decompress(&[*b]).unwrap())
            .collect();
        assert!(plain == noise(3000), "{kind}");
    }
}

#[test]
fn a_bomb_and_nonsense_are_errors() {
    for kind in KINDS {
        let (mut compressor, mut decompressor) = pair(kind);
        let bomb = compressor.compress(&vec![0; 1_000_000], Flush::Finish).unwrap();
        assert!(decompressor.decompress(&bomb).is_err(), "{kind}");
        let (_, mut decompressor) = pair(kind);
        assert!(decompressor.decompress(b"this is not compressed").is_err(), "{kind}");
    }
}

#[test]
fn an_unknown_library_is_refused() {
    let server = server();
    let proto = TypedExtensionConfig {
        name: "x".to_owned(),
        typed_config: Some(Any {
            type_url: "type.googleapis.com/some.Library".to_owned(),
            value: Vec::new(),
        }),
    };
    assert!(compressor(proto, &mut BuildCx::new(&server)).is_err());
}
