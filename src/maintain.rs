//! Looking after a database: backups, and the doctor.

use crate::cli::{BackupCommand, failed, print};
use postern_config::Config;
use postern_graph::{backup, doctor as examination};
use std::{fmt::Write, process::ExitCode};

/// Does one of the backup commands.
pub fn backup(command: BackupCommand, config: &Config) -> ExitCode {
    let path = &config.database.path;
    let done = match command {
        BackupCommand::Create { dir } => backup::back_up_from_outside(path, &dir).map(|report| {
            format!(
                "Backup {} in {}: {} files, {} bytes, of which {} files, {} bytes are new.\n",
                report.number,
                dir.display(),
                report.files,
                report.bytes,
                report.new_files,
                report.new_bytes
            )
        }),
        BackupCommand::List { dir } => backup::list(&dir).map(|backups| {
            backups.iter().fold(String::new(), |mut text, backup| {
                // Writing into a string cannot fail.
                let _ = writeln!(
                    text,
                    "{}\ttaken {} ms since 1970\t{} files\t{} bytes",
                    backup.number, backup.taken_ms, backup.files, backup.bytes
                );
                text
            })
        }),
        BackupCommand::Verify { dir } => match backup::verify(&dir) {
            Ok(wrong) if wrong.is_empty() => Ok("Every file is as it was backed up.\n".to_owned()),
            Ok(wrong) => {
                print(&(wrong.join("\n") + "\n"));
                return ExitCode::FAILURE;
            }
            Err(error) => Err(error),
        },
        BackupCommand::Restore { dir, number } => {
            let restored = match number {
                Some(number) => backup::restore_number(&dir, number, path),
                None => backup::restore(&dir, path),
            };
            restored.map(|info| format!("Backup {} is restored in {}.\n", info.number, path.display()))
        }
        BackupCommand::Prune { dir, keep } => backup::prune(&dir, keep).map(|()| String::new()),
    };
    match done {
        Ok(text) => print(&text),
        Err(error) => failed(&error),
    }
}

/// Examines the database. Findings make it fail, so that scripts notice.
pub fn doctor(config: &Config) -> ExitCode {
    match examination::check(&config.database.path) {
        Ok(findings) if findings.is_healthy() => {
            print(&format!("Nothing is wrong: {} entries were read.\n", findings.entries))
        }
        Ok(findings) => {
            print(&(findings.sentences.join("\n") + "\n"));
            if findings.more > 0 {
                print(&format!("… and {} more.\n", findings.more));
            }
            ExitCode::FAILURE
        }
        Err(error) => failed(&error),
    }
}
