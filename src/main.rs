//! The `bindery` command: see [`cli`].

mod cli;

/// `wgpu` allocates while it records a step, some times for each dispatch; this takes a seventh less time than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
