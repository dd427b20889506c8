//! The command line.

use crate::{bundles, logging, maintain, probe, serve};
use clap::{Parser, Subcommand};
use postern_config::{Config, Sources};
use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode};

#[derive(Debug, Parser)]
#[command(name = "postern", version, about = "A federated Matrix homeserver for enclaves")]
struct Cli {
    /// The configuration file; without one, defaults hold.
    #[arg(long, short, env = "POSTERN_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// A setting, such as `server.name=example.org`. Wins over file and environment. May be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", global = true, value_parser = setting)]
    set: Vec<(String, String)>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what is done when nothing else is asked for).
    Serve,
    /// Check, show or explain the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Take, list, verify and restore backups.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Examine the database and report what is wrong with it. It is not changed; the server has to be stopped.
    Doctor,
    /// Check, test, explain and compare the policies of the border, and sign bundles of them.
    #[command(subcommand)]
    Policy(postern_policy::command::PolicyCommand),
    /// Exchange bundles with enclaves that no network leads to
    #[command(subcommand)]
    Bundle(bundles::BundleCommand),
    /// Ask the running server of this configuration whether it is ready; ends with 0 if it is.
    Health,
}

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Take a backup, also while the server runs. What earlier backups in the directory hold already is not copied again.
    Create {
        /// Where to.
        dir: PathBuf,
    },
    /// List the backups of a directory.
    List {
        /// Where they are.
        dir: PathBuf,
    },
    /// Read every file of all backups and compare it with what was backed up.
    Verify {
        /// Where they are.
        dir: PathBuf,
    },
    /// Make the database anew from a backup. `database.path` has to be empty or absent.
    Restore {
        /// Where the backups are.
        dir: PathBuf,
        /// Which one; the newest if not given.
        #[arg(long)]
        number: Option<u32>,
    },
    /// Remove all but the newest backups.
    Prune {
        /// Where they are.
        dir: PathBuf,
        /// How many stay.
        #[arg(long)]
        keep: usize,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is right, and if not, what would be.
    Check,
    /// Print the settings in force and where each comes from; secrets are not shown.
    Show,
    /// Print a file with every setting and its default.
    Sample,
    /// Print the manual page of all settings.
    Manual,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is written section.key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The arguments with every `--set` before the command: of an option that stands on both sides of a command, the parser
/// would take only those behind it.
fn settings_first(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut first: Vec<OsString> = args.next().into_iter().collect();
    let mut rest = Vec::new();
    while let Some(arg) = args.next() {
        if arg == "--set" {
            first.push(arg);
            first.extend(args.next());
        } else if arg.to_str().is_some_and(|text| text.starts_with("--set=")) {
            first.push(arg);
        } else {
            rest.push(arg);
        }
    }
    first.extend(rest);
    first
}

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let cli = Cli::parse_from(settings_first(std::env::args_os()));
    let sources = Sources::of_process(cli.config, cli.set);
    let load = || {
        Config::load(&sources).map_err(|problems| {
            eprintln!("{problems}");
            ExitCode::from(2)
        })
    };
    match cli.command.unwrap_or(Command::Serve) {
        Command::Config(ConfigCommand::Sample) => print(&postern_config::sample()),
        Command::Config(ConfigCommand::Manual) => print(&postern_config::manual()),
        Command::Config(ConfigCommand::Show) => {
            load().map_or_else(|code| code, |loaded| print(&loaded.show()))
        }
        Command::Config(ConfigCommand::Check) => {
            load().map_or_else(|code| code, |_| print("The configuration is right.\n"))
        }
        Command::Backup(command) => {
            load().map_or_else(|code| code, |loaded| maintain::backup(command, &loaded.config))
        }
        Command::Doctor => load().map_or_else(|code| code, |loaded| maintain::doctor(&loaded.config)),
        Command::Policy(command) => {
            let (mut input, mut out, mut err) =
                (std::io::stdin().lock(), std::io::stdout().lock(), std::io::stderr().lock());
            postern_policy::command::run(&command, &mut input, &mut out, &mut err).into()
        }
        Command::Bundle(command) => bundles::run(&command, || load().map(|loaded| loaded.config)),
        Command::Health => load().map_or_else(|code| code, |loaded| health(&loaded.config)),
        Command::Serve => load().map_or_else(|code| code, |loaded| start(loaded.config)),
    }
}

/// Standard output may be a pipe that is closed early; that is no failure of ours.
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn health(config: &Config) -> ExitCode {
    match probe::ask(&config.listeners) {
        Ok(said) => print(&format!("{said}\n")),
        Err(error) => failed(&error),
    }
}

fn start(config: Config) -> ExitCode {
    logging::start(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(serve::serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

pub fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("postern: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_on_both_sides_of_the_command_all_count() {
        let args = ["postern", "--set", "a.b=1", "serve", "--set=c.d=2", "--set", "e.f=3"];
        let cli = Cli::try_parse_from(settings_first(args.map(OsString::from))).unwrap();
        let keys: Vec<&str> = cli.set.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a.b", "c.d", "e.f"]);
        assert!(matches!(cli.command, Some(Command::Serve)));
    }
}
