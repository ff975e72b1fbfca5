//! Reads a file as a message and prints it in the format of Envoy's admin endpoints.
//!
//! `cargo run -p xds-protos --example reprint -- envoy.admin.v3.ConfigDump dump.json [--defaults]`

use std::path::Path;
use std::process::ExitCode;

use xds_protos::load::{self, LoadOptions};
use xds_protos::print::{self, PrintOptions};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, message, path, rest @ ..] = args.as_slice() else {
        eprintln!("usage: reprint MESSAGE FILE [--defaults]");
        return ExitCode::from(2);
    };
    let options = PrintOptions {
        always_print_defaults: rest.iter().any(|arg| arg == "--defaults"),
        ..Default::default()
    };
    match load::from_file(Path::new(path), message, &LoadOptions::default()) {
        Ok(loaded) => {
            println!("{}", print::json(&loaded.message, options));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
