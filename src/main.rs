//! The program: runs the command line, says why it failed, ends with its code.

use std::process::ExitCode;

use tofufs::cli::{self, output};

fn main() -> ExitCode {
    match cli::run(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
