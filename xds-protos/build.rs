//! Writes the one descriptor set that everything in this crate reads: `OUT_DIR/descriptors.bin`.
//!
//! The set of envoy-types (it ships its own as `src/generated/types.bin`) is taken over byte for byte but for the source
//! comments, which are four fifths of it. It is cut on the wire level, because decoding it with prost-types would lose
//! the custom options (validation rules, `sensitive`, `deprecated_at_minor_version`) that are the point of having it.
//! To it come the messages of `overlay/`, which Envoy or Istio have and envoy-types lacks.

// A build script has no caller to hand an error to: its panic is cargo's error message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use protox::Compiler;
use protox::file::{ChainFileResolver, DescriptorSetFileResolver, IncludeFileResolver};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let types = envoy_types_folder().join("src/generated/types.bin");
    println!("cargo::rerun-if-changed={}", types.display());
    let set = fs::read(&types).unwrap_or_else(|e| panic!("{}: {e}", types.display()));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut merged = without_source_info(&set);
    // Two sets one after the other are one set.
    merged.extend_from_slice(&overlay(&set));
    fs::write(out.join("descriptors.bin"), merged).expect("write descriptors.bin");
}

/// Where cargo unpacked (or vendored) the envoy-types that this crate links.
fn envoy_types_folder() -> PathBuf {
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let manifest = Path::new(&var("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    // Without the platform filters cargo wants crates of other platforms too, which an offline machine lacks.
    let out = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--manifest-path",
        ])
        .arg(&manifest)
        .args(["--filter-platform", &var("TARGET"), "--filter-platform", &var("HOST")])
        .output()
        .expect("run cargo metadata");
    assert!(
        out.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let package = packages
        .iter()
        .find(|p| p["name"] == "envoy-types")
        .expect("envoy-types is a dependency");
    let manifest = package["manifest_path"]
        .as_str()
        .expect("a package has a manifest path");
    Path::new(manifest)
        .parent()
        .expect("a manifest is in a folder")
        .to_owned()
}

/// The descriptors of our own `.proto` files, which may import those of envoy-types.
fn overlay(set: &[u8]) -> Vec<u8> {
    println!("cargo::rerun-if-changed=overlay");
    let mut files = Vec::new();
    for folder in ["istio", "udpa", "xds"] {
        for entry in fs::read_dir(Path::new("overlay").join(folder)).expect("read the overlay") {
            files.push(entry.expect("read the overlay").path());
        }
    }
    files.sort();
    let mut resolver = ChainFileResolver::new();
    resolver.add(DescriptorSetFileResolver::decode(set).expect("decode envoy-types' descriptors"));
    resolver.add(IncludeFileResolver::new(".".into()));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(false).include_source_info(false);
    compiler.open_files(files).unwrap_or_else(|e| panic!("overlay: {e}"));
    compiler.encode_file_descriptor_set()
}

/// The file descriptor set without each file's `source_code_info`.
fn without_source_info(set: &[u8]) -> Vec<u8> {
    const FILE: u64 = 1; // FileDescriptorSet.file
    const SOURCE_CODE_INFO: u64 = 9; // FileDescriptorProto.source_code_info
    let mut out = Vec::with_capacity(set.len() / 4);
    for (number, _, file) in fields(set) {
        assert_eq!(number, FILE, "a descriptor set holds files only");
        let file: Vec<u8> = fields(file)
            .filter(|(number, ..)| *number != SOURCE_CODE_INFO)
            .flat_map(|(_, whole, _)| whole.iter().copied())
            .collect();
        out.push((FILE as u8) << 3 | 2);
        put_varint(&mut out, file.len() as u64);
        out.extend_from_slice(&file);
    }
    out
}

/// The length-delimited and varint fields of a message: number, whole field with its tag, payload.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, &[u8], &[u8])> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest;
        let tag = take_varint(&mut rest);
        let length = match tag & 7 {
            0 => {
                take_varint(&mut rest);
                0
            }
            2 => take_varint(&mut rest) as usize,
            wire => panic!("wire type {wire} is not used by descriptors"),
        };
        let (payload, after) = rest.split_at(length);
        rest = after;
        Some((tag >> 3, &start[..start.len() - rest.len()], payload))
    })
}

fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().expect("the descriptor set is cut short");
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint has at most ten bytes");
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
