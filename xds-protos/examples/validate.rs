//! Checks a bootstrap as far as the API itself says what is right: syntax, fields and validation rules.
//!
//! `cargo run -p xds-protos --example validate -- --mode validate -c envoy.yaml`

use std::path::PathBuf;
use std::process::ExitCode;

use xds_protos::load::{self, LoadOptions};
use xds_protos::pgv;

fn main() -> ExitCode {
    // Envoy's other flags are let pass, so that the same command line can be given to both.
    let mut args = std::env::args_os()
        .skip_while(|arg| arg != "-c" && arg != "--config-path")
        .skip(1);
    let Some(path) = args.next().map(PathBuf::from) else {
        eprintln!("usage: validate --mode validate -c FILE");
        return ExitCode::from(2);
    };
    match check(&path) {
        Ok(()) => {
            println!("configuration '{}' OK", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error initializing configuration '{}': {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

fn check(path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let loaded = load::from_file(path, "envoy.config.bootstrap.v3.Bootstrap", &LoadOptions::default())?;
    pgv::validate_with_anys(&loaded.message)?;
    Ok(())
}
