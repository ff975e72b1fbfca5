//! All cases, as part of `cargo test --workspace`. Arguments of libtest are understood as far as
//! they make sense: a bare word selects cases by their id.

use std::process::ExitCode;

use differential::cli::{self, Args};

fn main() -> ExitCode {
    let mut args = Args {
        test: true,
        ..Args::default()
    };
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--list" => return ExitCode::SUCCESS,
            flag if flag.starts_with('-') => {}
            name => args.only = Some(name.to_owned()),
        }
    }
    cli::main(args)
}
