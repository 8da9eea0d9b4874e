//! `senet`: parse, run, print one error, choose the exit code. Everything else is in the library.

use std::process::ExitCode;

/// In place of the system's malloc, for libtorch as well. A training step frees and asks again for gigabytes in blocks
/// of many sizes: glibc either returns them to the kernel, which costs time, or keeps them, a third of it in pieces too
/// small to be used again.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let large_blocks_kept = senet::torch_ext::keep_large_blocks();
    ExitCode::from(senet::cli::run(large_blocks_kept))
}
