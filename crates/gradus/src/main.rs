//! The program `gradus`.

mod commands;

use clap::{Parser, Subcommand};

/// Trains neural networks on any GPU that wgpu reaches, and on the CPU.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures how fast devices are, and how near to what they can do.
    Bench(commands::bench::Arguments),
    /// Lists every adapter of this machine, what it can do, and which one is taken by default.
    Devices(commands::devices::Arguments),
    /// Measures which of the ways to cut up kernels are fastest on an adapter, and keeps what it finds. Never needed.
    Tune(commands::tune::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Bench(arguments) => commands::bench::run(&arguments),
        Command::Devices(arguments) => commands::devices::run(&arguments),
        Command::Tune(arguments) => commands::tune::run(&arguments),
    }
}
