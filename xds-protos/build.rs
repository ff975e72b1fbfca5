//! Writes the one descriptor set that everything in this crate reads: `OUT_DIR/descriptors.bin`.
//!
//! The set of envoy-types (it ships its own as `src/generated/types.bin`) is taken over byte for byte but for the source
//! comments, which are four fifths of it. It is cut on the wire level, because decoding it with prost-types would lose
//! the custom options (validation rules, `sensitive`, `deprecated_at_minor_version`) that are the point of having it.
//! To it come the messages and fields of `overlay/`, which Envoy or Istio have and envoy-types lacks.

// A build script has no caller to hand an error to: its panic is cargo's error message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeSet, HashMap, HashSet};
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
    let overlay = Overlay::compile(&set);
    let mut merged = shipped_files(&set, &overlay);
    // Two sets one after the other are one set.
    merged.extend_from_slice(&overlay.files);
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

// Field numbers of descriptor.proto.
const SET_FILE: u64 = 1;
const FILE_NAME: u64 = 1;
const FILE_PACKAGE: u64 = 2;
const FILE_DEPENDENCY: u64 = 3;
const FILE_MESSAGE: u64 = 4;
const FILE_SOURCE_CODE_INFO: u64 = 9;
const MESSAGE_NAME: u64 = 1;
const MESSAGE_FIELD: u64 = 2;
const MESSAGE_NESTED: u64 = 3;
const FIELD_TYPE_NAME: u64 = 6;

/// What our own `.proto` files add to the set; they may import those of envoy-types.
struct Overlay {
    /// A set of the files that define messages of their own.
    files: Vec<u8>,
    /// The parts to append to messages that exist, by the full name of the message with underscores for dots.
    additions: HashMap<String, Vec<u8>>,
}

impl Overlay {
    fn compile(set: &[u8]) -> Overlay {
        println!("cargo::rerun-if-changed=overlay");
        let mut paths = Vec::new();
        for folder in ["envoy", "istio", "udpa", "xds"] {
            for entry in fs::read_dir(Path::new("overlay").join(folder)).expect("read the overlay") {
                paths.push(entry.expect("read the overlay").path());
            }
        }
        paths.sort();
        let files = compile(set, paths);
        let additions = compile(set, vec!["overlay/additions.proto".into()]);
        let (_, _, file) = fields(&additions).next().expect("additions.proto was compiled");
        let messages = fields(file).filter(|(number, ..)| *number == FILE_MESSAGE);
        let additions = messages
            .map(|(_, _, message)| (name_of(message), additions_in(message)))
            .collect();
        Overlay { files, additions }
    }
}

fn compile(set: &[u8], paths: Vec<PathBuf>) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(DescriptorSetFileResolver::decode(set).expect("decode envoy-types' descriptors"));
    resolver.add(IncludeFileResolver::new(".".into()));
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(false).include_source_info(false);
    compiler.open_files(paths).unwrap_or_else(|e| panic!("overlay: {e}"));
    compiler.encode_file_descriptor_set()
}

/// All of a message of `additions.proto` but its name.
fn additions_in(message: &[u8]) -> Vec<u8> {
    fields(message)
        .filter(|(number, ..)| *number != MESSAGE_NAME)
        .flat_map(|(_, whole, _)| whole.to_vec())
        .collect()
}

/// The files of envoy-types, without source comments and with what is added to their messages.
fn shipped_files(set: &[u8], overlay: &Overlay) -> Vec<u8> {
    let additions = &overlay.additions;
    let defined_in: HashMap<_, _> = definitions(set).chain(definitions(&overlay.files)).collect();
    let mut out = Vec::with_capacity(set.len() / 4);
    let mut used = Vec::new();
    for (number, _, file) in fields(set) {
        assert_eq!(number, SET_FILE, "a descriptor set holds files only");
        let package = package_of(file);
        let mut kept = Vec::with_capacity(file.len());
        let used_before = used.len();
        for (number, whole, payload) in fields(file) {
            match number {
                FILE_SOURCE_CODE_INFO => {}
                FILE_MESSAGE => put(&mut kept, number, &extended(payload, &package, additions, &mut used)),
                _ => kept.extend_from_slice(whole),
            }
        }
        let imported: HashSet<_> = fields(file)
            .filter(|(number, ..)| *number == FILE_DEPENDENCY)
            .map(|(_, _, name)| text(name))
            .collect();
        let types = used[used_before..].iter().flat_map(|key| added_types(&additions[key]));
        for import in types.filter_map(|name| defined_in.get(&name)).collect::<BTreeSet<_>>() {
            if !imported.contains(import) {
                put(&mut kept, FILE_DEPENDENCY, import.as_bytes());
            }
        }
        put(&mut out, SET_FILE, &kept);
    }
    for name in additions.keys() {
        assert!(
            used.contains(name),
            "overlay/additions.proto: no message is called {name}"
        );
    }
    out
}

/// A message, and those nested in it, with what is added to them.
fn extended(message: &[u8], scope: &str, additions: &HashMap<String, Vec<u8>>, used: &mut Vec<String>) -> Vec<u8> {
    let full_name = format!("{scope}.{}", name_of(message));
    let mut out = Vec::with_capacity(message.len());
    for (number, whole, payload) in fields(message) {
        match number {
            MESSAGE_NESTED => put(&mut out, number, &extended(payload, &full_name, additions, used)),
            _ => out.extend_from_slice(whole),
        }
    }
    let key = full_name.replace('.', "_");
    for (number, whole, payload) in fields(additions.get(&key).map_or(&[], Vec::as_slice)) {
        match number {
            MESSAGE_FIELD => put(&mut out, number, &moved_field(payload, &key, &full_name)),
            _ => out.extend_from_slice(whole),
        }
    }
    if additions.contains_key(&key) {
        used.push(key);
    }
    out
}

/// A field whose type, if it was nested in the message of `additions.proto`, is nested in the real one.
fn moved_field(field: &[u8], key: &str, full_name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    for (number, whole, payload) in fields(field) {
        match text(payload).strip_prefix(&format!(".nuncio.additions.{key}.")) {
            Some(nested) if number == FIELD_TYPE_NAME => {
                put(&mut out, number, format!(".{full_name}.{nested}").as_bytes());
            }
            _ => out.extend_from_slice(whole),
        }
    }
    out
}

/// The outer messages of a set, as types are named, with the file that defines each.
fn definitions(set: &[u8]) -> impl Iterator<Item = (String, String)> {
    fields(set).flat_map(|(_, _, file)| {
        let name = fields(file)
            .find(|(number, ..)| *number == FILE_NAME)
            .map(|(_, _, name)| text(name));
        let (name, package) = (name.unwrap_or_default(), package_of(file));
        let messages = fields(file).filter(|(number, ..)| *number == FILE_MESSAGE);
        messages.map(move |(_, _, message)| (format!(".{package}.{}", name_of(message)), name.clone()))
    })
}

/// The types of the fields that are added to a message.
fn added_types(addition: &[u8]) -> Vec<String> {
    let added = fields(addition).filter(|(number, ..)| *number == MESSAGE_FIELD);
    let parts = added.flat_map(|(_, _, field)| fields(field));
    parts
        .filter(|(number, ..)| *number == FIELD_TYPE_NAME)
        .map(|(_, _, name)| text(name))
        .collect()
}

fn package_of(file: &[u8]) -> String {
    let package = fields(file).find(|(number, ..)| *number == FILE_PACKAGE);
    package.map(|(_, _, name)| text(name)).unwrap_or_default()
}

fn name_of(message: &[u8]) -> String {
    let name = fields(message).find(|(number, ..)| *number == MESSAGE_NAME);
    text(name.expect("a message has a name").2)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Appends a length-delimited field.
fn put(out: &mut Vec<u8>, number: u64, payload: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, payload.len() as u64);
    out.extend_from_slice(payload);
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
