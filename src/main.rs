//! `senet`: parse, run, print one error, choose the exit code. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let large_blocks_kept = senet::torch_ext::keep_large_blocks();
    ExitCode::from(senet::cli::run(large_blocks_kept))
}
