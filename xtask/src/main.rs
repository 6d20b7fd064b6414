//! The project's own tools: `cargo xtask TASK`.

mod sim;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((task, rest)) if task == "sim" => sim::run(rest),
        _ => anyhow::bail!("usage: cargo xtask sim [--seed S] [--steps N]"),
    }
}
