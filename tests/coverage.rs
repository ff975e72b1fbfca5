//! `docs/coverage.md` says of every field that is read whether it is supported, ignored or rejected. It is made
//! from the `coverage!` lists in the source: `UPDATE_COVERAGE=1 cargo test --test coverage` writes it, and
//! without that the test fails when the page is not what the source says.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use regex::Regex;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coverage.md");

#[derive(Default)]
struct Message {
    file: String,
    supported: Vec<String>,
    ignored: Vec<(String, String)>,
    rejected: Vec<(String, String)>,
}

#[test]
fn the_page_says_what_the_source_does() {
    let mut messages: BTreeMap<String, Message> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    visit(&root.join("src"), &mut |path, text| {
        let file = path.strip_prefix(root).unwrap().display().to_string();
        collect(&file, text, &mut messages);
    });
    assert!(
        messages.len() > 50,
        "only {} messages found: does the scan still understand the macro?",
        messages.len()
    );
    let page = render(&messages);
    if std::env::var_os("UPDATE_COVERAGE").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    let there = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        there == page,
        "docs/coverage.md is not what the source says; write it with UPDATE_COVERAGE=1 cargo test --test coverage"
    );
}

fn visit(dir: &Path, f: &mut impl FnMut(&Path, &str)) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            visit(&path, f);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("config/coverage.rs") {
            f(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// Finds the lists of a file. The message's name is the type as imported there; `use .. as Proto` is followed.
fn collect(file: &str, text: &str, messages: &mut BTreeMap<String, Message>) {
    let call = Regex::new(r"coverage!\(\s*[^,]+,\s*(?s:.{1,60}?)=>\s*([\w:]+)\s*\{").unwrap();
    let pair = Regex::new(r#"(\w+)\s*:\s*"((?:[^"\\]|\\.)*)""#).unwrap();
    let lists: Vec<(&str, Regex)> = ["supported", "ignored", "rejected"]
        .into_iter()
        .map(|list| (list, Regex::new(&format!(r"\b{list}\s*\{{")).unwrap()))
        .collect();
    for found in call.captures_iter(text) {
        let name = original_name(text, &found[1]);
        let body = braces(&text[found.get(0).unwrap().end() - 1..]);
        let message = messages.entry(format!("{name} ({file})")).or_default();
        message.file = file.to_owned();
        for (list, start) in &lists {
            let Some(at) = start.find(body) else { continue };
            let inner = braces(&body[at.end() - 1..]);
            if *list != "supported" {
                let pairs = pair.captures_iter(inner).map(|c| (c[1].to_owned(), c[2].to_owned()));
                if *list == "ignored" {
                    message.ignored.extend(pairs)
                } else {
                    message.rejected.extend(pairs)
                }
            } else {
                message
                    .supported
                    .extend(inner.split(',').map(|f| f.trim().to_owned()).filter(|f| !f.is_empty()));
            }
        }
    }
}

fn original_name(text: &str, used: &str) -> String {
    let last = used.rsplit("::").next().unwrap();
    let alias = Regex::new(&format!(r"(\w+) as {last}\b")).unwrap();
    alias
        .captures(text)
        .map_or_else(|| last.to_owned(), |c| c[1].to_owned())
}

/// What stands between the first brace and the one that closes it.
fn braces(text: &str) -> &str {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return &text[1..i];
                }
            }
            _ => {}
        }
    }
    text
}

fn render(messages: &BTreeMap<String, Message>) -> String {
    let (mut supported, mut ignored, mut rejected) = (0, 0, 0);
    for m in messages.values() {
        supported += m.supported.len();
        ignored += m.ignored.len();
        rejected += m.rejected.len();
    }
    let mut out = String::from("# Coverage of Envoy's API\n\n");
    let _ = writeln!(
        out,
        "Made from the `coverage!` lists in the source; do not edit. {} messages are read: {supported} fields are supported,\n\
         {ignored} ignored (accepted, warned about once per resource, harmless) and {rejected} rejected (a NACK that names the field).\n\
         A message that is not listed is not read: an extension of that type is refused by name.\n",
        messages.len()
    );
    for (name, m) in messages {
        let _ = writeln!(out, "## {}\n", name.split(" (").next().unwrap());
        let _ = writeln!(out, "`{}`\n", m.file);
        if !m.supported.is_empty() {
            let _ = writeln!(
                out,
                "- supported: {}",
                m.supported
                    .iter()
                    .map(|f| format!("`{f}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        for (field, why) in &m.ignored {
            let _ = writeln!(out, "- ignored: `{field}`: {why}");
        }
        for (field, why) in &m.rejected {
            let _ = writeln!(out, "- rejected: `{field}`: {why}");
        }
        out.push('\n');
    }
    out
}
