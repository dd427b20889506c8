//! The load generator: the same work, step by step and in turns, against this server and others that speak the Matrix
//! client-server API, and a table of what it cost each of them. `bench/run.sh` starts the servers and calls it.

mod federation;
mod link;
mod steps;
mod target;
mod usage;

use clap::{Parser, Subcommand};
use federation::peer::Peer;
use http::Method;
use link::{Error, Link};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use steps::{Row, Sizes};
use target::{Target, Until};

#[derive(Debug, Parser)]
#[command(about = "Measures Matrix homeservers")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all steps against each server in turn and print the table.
    Run {
        /// NAME=HOST:PORT,PID,… Ratios are those of the other servers over the first.
        #[arg(long = "server", required = true, value_parser = parse_target)]
        servers: Vec<String>,
        /// Size of every step, as a factor.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only steps whose name contains this, and those they need.
        #[arg(long)]
        only: Option<String>,
    },
    /// Run the steps of federation against each server in turn and print the table.
    Federation {
        /// NAME=HOST:PORT,PID,… Ratios are those of the other servers over the first.
        #[arg(long = "server", required = true, value_parser = parse_target)]
        servers: Vec<String>,
        /// Where the certificate of the recorded peer is.
        #[arg(long)]
        directory: PathBuf,
        /// The port of the recorded peer, on addresses from 127.0.1.1.
        #[arg(long)]
        port: u16,
        /// Size of every step, as a factor.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only steps whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Send messages to 20 servers, from each server in turn, and print the table. The first has no border, so the room there
    /// has no label.
    Border {
        /// NAME=HOST:PORT,PID. Ratios are those of the other servers over the first.
        #[arg(long = "server", required = true, value_parser = parse_target)]
        servers: Vec<String>,
        /// Where the certificate of the recorded peer is.
        #[arg(long)]
        directory: PathBuf,
        /// The port of the recorded peer, on addresses from 127.0.1.1.
        #[arg(long)]
        port: u16,
        /// Size of the step, as a factor.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
    },
    /// Make a certificate for the recorded peer, and its authority.
    Certify {
        /// Where to.
        directory: PathBuf,
    },
    /// Send messages into 100 rooms of one server.
    Fill {
        /// NAME=HOST:PORT,PID,…
        #[arg(long, value_parser = parse_target)]
        server: String,
        /// How many messages.
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// Wait until a server answers at this path, and print after how many milliseconds it did.
    Ready {
        /// HOST:PORT
        #[arg(long)]
        address: String,
        /// Asked again every millisecond until it answers 200.
        #[arg(long, default_value = "/_matrix/client/versions")]
        path: String,
        /// When to give up, seconds.
        #[arg(long, default_value_t = 120)]
        patience: u64,
    },
}

fn parse_target(text: &str) -> Result<String, String> {
    Target::parse(text).map(|_| text.to_owned())
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    // One thread, so that the servers have the others.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(carry_out(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Run { servers, scale, only } => {
            let targets = servers.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
            run(&targets, Sizes { scale }, only.as_deref()).await;
        }
        Command::Federation { servers, directory, port, scale, only } => {
            let targets = servers.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
            let peer = Peer::start(&directory, port, federation::peer::SERVERS).await?;
            let rows = federation::run(&targets, &peer, Sizes { scale }, only.as_deref()).await;
            print(&targets, &rows);
        }
        Command::Border { servers, directory, port, scale } => {
            let targets = servers.iter().map(|text| Target::parse(text)).collect::<Result<Vec<_>, _>>()?;
            let peer = Peer::start(&directory, port, federation::peer::MANY_SERVERS).await?;
            let mut rows = Vec::new();
            for (at, target) in targets.iter().enumerate() {
                eprintln!("outbound: {}", target.name);
                let found = federation::outbound(target, &peer, Sizes { scale }, at > 0).await?;
                note(&mut rows, targets.len(), at, found);
            }
            print(&targets, &rows);
        }
        Command::Certify { directory } => federation::peer::certify(&directory)?,
        Command::Fill { server, events } => fill(&Target::parse(&server)?, events).await?,
        Command::Ready { address, path, patience } => {
            let taken = ready(&address, &path, Duration::from_secs(patience)).await?;
            println!("{:.0}", taken.as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

/// Does every step on each target before the next step. A step that fails on one target leaves a gap there.
async fn run(targets: &[Target], sizes: Sizes, only: Option<&str>) {
    let mut rows: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    macro_rules! steps {
        ($($step:ident),*) => {$(
            let name = stringify!($step);
            // Later steps use the users and rooms of these two.
            if only.is_none_or(|only| name.contains(only) || ["join", "send"].contains(&name)) {
                for (at, target) in targets.iter().enumerate() {
                    eprintln!("{name}: {}", target.name);
                    match steps::$step(target, sizes).await {
                        Ok(found) => note(&mut rows, targets.len(), at, found),
                        Err(error) => eprintln!("{name}: {}: {error}", target.name),
                    }
                }
            }
        )*};
    }
    steps!(idle, join, send, delivery, fan_out, first_sync, paging, state, loaded);
    print(targets, &rows);
}

fn note(rows: &mut Vec<(String, Vec<Option<f64>>)>, width: usize, at: usize, found: Vec<Row>) {
    for (name, value) in found {
        eprintln!("  {name}: {value:.3}");
        let known = rows.iter().position(|(known, _)| *known == name);
        let place = known.unwrap_or_else(|| {
            rows.push((name, vec![None; width]));
            rows.len() - 1
        });
        if let Some(cell) = rows.get_mut(place).and_then(|(_, cells)| cells.get_mut(at)) {
            *cell = Some(value);
        }
    }
}

/// The table in Markdown. A ratio above 1 says that the first server is so many times better.
fn print(targets: &[Target], rows: &[(String, Vec<Option<f64>>)]) {
    let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let ratios: String = names.iter().skip(1).map(|name| format!(" {name} ratio |")).collect();
    println!("| measured | {} |{ratios}", names.join(" | "));
    println!("| --- |{}", " ---: |".repeat(names.len() * 2 - 1));
    for (name, cells) in rows {
        let shown: String = cells.iter().map(|cell| format!(" {} |", number(*cell))).collect();
        let first = cells.first().copied().flatten();
        let ratios: String = cells
            .iter()
            .skip(1)
            .map(|cell| {
                let ratio = first
                    .zip(*cell)
                    .map(|(first, other)| if name.ends_with("/s") { first / other } else { other / first });
                format!(" {} |", number(ratio))
            })
            .collect();
        println!("| {name} |{shown}{ratios}");
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "failed".to_owned(),
        Some(value) if !value.is_finite() => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 1.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

async fn fill(target: &Target, events: u64) -> Result<(), Error> {
    let mut link = target.link();
    let owner = target.register(&mut link, "filler").await?;
    let mut rooms = Vec::new();
    for at in 0..100 {
        rooms.push(target.create(&mut link, &owner, &format!("fill {at}")).await?);
    }
    *target.owner.borrow_mut() = owner;
    let start = Instant::now();
    let sent = target.flood(&rooms, 128, Until::Count(events)).await?;
    eprintln!("{sent} messages in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

async fn ready(address: &str, path: &str, patience: Duration) -> Result<Duration, Error> {
    let start = Instant::now();
    loop {
        let answer = Link::to(address).answer(Method::GET, path, "", None).await;
        match answer {
            Ok((200, _)) => return Ok(start.elapsed()),
            Err(error) if start.elapsed() > patience => return Err(error),
            Ok(_) if start.elapsed() > patience => return Err(Error::Missing("200")),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}
