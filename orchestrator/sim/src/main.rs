//! `podium-sim`: one seed in detail, or a thousand in a row.

mod losses;
mod many;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mimalloc::MiMalloc;
use podium_sim::cluster;
use podium_sim::mistake::UnknownMistake;
use podium_sim::{Mistakes, Options, Report, USUAL_STEPS, run};

/// A simulated cluster does little but allocate: a tenth of its time is the allocator's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs the whole cluster in one process, from one seed.
#[derive(Parser)]
#[command(name = "podium-sim", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    one: One,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and prints what happened in all of them.
    Run(Many),
    /// Puts to the proof what the default timings promise when machines are lost.
    Loss(losses::Losses),
}

/// What runs beside the store.
#[derive(Clone, Copy, ValueEnum)]
enum Load {
    /// Nothing.
    Store,
    /// API, controllers, scheduler and agents.
    Orchestrator,
    /// What makes a cluster of blank machines.
    Forming,
}

impl From<Load> for cluster::Load {
    fn from(load: Load) -> Self {
        match load {
            Load::Store => Self::Store,
            Load::Orchestrator => Self::Orchestrator,
            Load::Forming => Self::Forming,
        }
    }
}

/// One run.
#[derive(Args)]
struct One {
    /// Everything follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Actions of clients and faults.
    #[arg(long, default_value_t = USUAL_STEPS)]
    steps: u64,
    /// How many nodes; the seed chooses if this is not given.
    #[arg(long)]
    nodes: Option<u16>,
    /// What runs beside the store; the seed chooses if this is not given.
    #[arg(long)]
    load: Option<Load>,
    /// A mistake to make (needs the feature `planted-bugs`).
    #[arg(long)]
    bug: Option<String>,
    /// Prints what the cluster logs, for example `debug` or `podium_store=trace`.
    #[arg(long)]
    log: Option<String>,
}

/// Many runs.
#[derive(Args)]
struct Many {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Steps of each.
    #[arg(long, default_value_t = USUAL_STEPS)]
    steps: u64,
    /// How many nodes; each seed chooses if this is not given.
    #[arg(long)]
    nodes: Option<u16>,
    /// What runs beside the store; the seed chooses if this is not given.
    #[arg(long)]
    load: Option<Load>,
    /// A mistake to make (needs the feature `planted-bugs`); the first seed that finds it ends the run.
    #[arg(long)]
    bug: Option<String>,
    /// How many seeds at a time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    print_how_to_repeat_a_panic();
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Run(many)) => many::run_many(&many),
        Some(Command::Loss(losses)) => losses::run(&losses),
        None => run_one(&cli.one),
    }
}

/// The release profile aborts on a panic, so the hook is the last that is heard of it.
fn print_how_to_repeat_a_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        if let Some(repeat) = podium_sim::run::running() {
            eprintln!("a panic in simulated code; to repeat it: {repeat}");
        }
    }));
}

fn mistakes_of(name: Option<&str>) -> Result<Mistakes, UnknownMistake> {
    name.map_or(Ok(Mistakes::none()), Mistakes::named)
}

fn run_one(one: &One) -> ExitCode {
    if let Some(filter) = &one.log {
        podium_sim::log::to_standard_error(filter);
    }
    let mistakes = match mistakes_of(one.bug.as_deref()) {
        Ok(mistakes) => mistakes,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let report = run(Options {
        seed: one.seed,
        steps: one.steps,
        nodes: one.nodes,
        mistakes,
        load: one.load.map(Into::into),
    });
    println!("{}", many::line(&report));
    print!("{}", report.coverage);
    verdict(&report)
}

fn verdict(report: &Report) -> ExitCode {
    match &report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!(
                "seed {} violates: {violation}\nto repeat it: {}",
                report.options.seed, report.options
            );
            ExitCode::FAILURE
        }
    }
}
