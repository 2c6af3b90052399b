//! The program; everything it does is in the library.

/// Chosen by measurement (`docs/performance.md#allocator`): it gives back what a burst of work took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    batchd::cli::main()
}
