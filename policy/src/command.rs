//! `postern policy …`: what is done with policies where no server runs.

mod signing;

use crate::decide::{
    Accepted, BUNDLE_ENDING, Base, Cases, Change, Loaded, Question, RecordError, Recorded, Refused, Severity,
    Sources, TEXT_ENDING, diff, limits, read_bounded, read_one, replay,
};
use clap::{Args, Subcommand};
use signing::{make_key, parse_keys, sign, verify};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Reads policies and says what is wrong with them, all at once
    Check {
        #[command(flatten)]
        set: SetArgs,
    },
    /// Asks the questions of files of cases, and compares with the answers that are expected
    Test {
        #[command(flatten)]
        set: SetArgs,
        /// Files of cases (TOML)
        #[arg(required = true, value_name = "CASES")]
        cases: Vec<PathBuf>,
        /// Print results as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Says which policies allow or deny something, and why the others do not apply
    Explain {
        #[command(flatten)]
        set: SetArgs,
        /// A file with a question, recorded or bare, as JSON; `-` is the standard input
        #[arg(default_value = "-")]
        question: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Compares two sets of policies over recorded questions
    Diff {
        /// The policies as they are: a directory or file
        old: PathBuf,
        /// The policies as they might be: a directory or file
        new: PathBuf,
        /// Recorded questions, one a line
        questions: PathBuf,
        #[command(flatten)]
        how: HowArgs,
        /// The base of the old set, if it is another
        #[arg(long, value_enum)]
        old_base: Option<Base>,
        /// Print changes as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Asks policies what was asked before, and compares with what was answered then
    Replay {
        #[command(flatten)]
        set: SetArgs,
        /// Recorded questions with their answers, one a line
        recorded: PathBuf,
        /// Print changes as JSON, one a line
        #[arg(long)]
        json: bool,
    },
    /// Makes a key pair to sign policies with: writes the private key to a file, prints the public key
    Key {
        /// Must not exist
        file: PathBuf,
    },
    /// Puts policies into a signed bundle, or adds a signature to one; prints it
    Sign {
        /// A directory of policies, or a bundle to sign as well
        source: PathBuf,
        /// The file with the private key
        #[arg(long)]
        secret: PathBuf,
        /// Its id, as servers know it
        #[arg(long, value_name = "ed25519:NAME")]
        id: String,
        /// The bundle before; without it, this is version 1
        #[arg(long, value_name = "BUNDLE")]
        after: Option<PathBuf>,
    },
    /// Checks the signatures and the version of a bundle
    Verify {
        bundle: PathBuf,
        #[command(flatten)]
        keys: KeyArgs,
        /// The bundle before, which this one must follow
        #[arg(long, value_name = "BUNDLE")]
        after: Option<PathBuf>,
    },
}

/// A set of policies, and how to take it.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// A directory with `*.cedar` files or one `*.bundle.json`, or one such file
    policies: PathBuf,
    #[command(flatten)]
    how: HowArgs,
}

/// How to take policies.
#[derive(Debug, Args)]
pub struct HowArgs {
    /// What crosses the boundary before these policies say anything
    #[arg(long, value_enum, default_value = "peers")]
    base: Base,
    #[command(flatten)]
    keys: KeyArgs,
    /// Refuse what no bundle holds
    #[arg(long)]
    require_signed: bool,
}

/// Whose signatures count.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// A public key whose signatures count; may be given more than once
    #[arg(long = "key", value_name = "ed25519:NAME=BASE64")]
    keys: Vec<String>,
    /// How many of the keys must have signed
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    keys_needed: usize,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As it should be.
    Fine = 0,
    /// It was done, and found a problem, a failed case, or a change.
    Found = 1,
    /// It could not be done.
    Failed = 2,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Refused(#[from] Refused),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{0}")]
    Key(String),
    #[error("could not write: {0}")]
    Write(#[from] std::io::Error),
    #[error("could not write: {0}")]
    Json(#[from] serde_json::Error),
}

fn file(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::File { path: path.to_owned(), reason: reason.to_string() }
}

/// Does it: results go to `out`, and what prevents them to `err`. `input` is read where a file is `-`.
pub fn run(command: &PolicyCommand, input: &mut dyn Read, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let done = match command {
        PolicyCommand::Check { set } => check(set, out),
        PolicyCommand::Test { set, cases, json } => test(set, cases, *json, out),
        PolicyCommand::Explain { set, question, json } => explain(set, question, *json, input, out),
        PolicyCommand::Diff { old, new, questions, how, old_base, json } => {
            changes_between((old, *old_base), new, how, questions, *json, out)
        }
        PolicyCommand::Replay { set, recorded, json } => replayed(set, recorded, *json, out),
        PolicyCommand::Key { file } => make_key(file, out),
        PolicyCommand::Sign { source, secret, id, after } => sign(source, secret, id, after.as_deref(), out),
        PolicyCommand::Verify { bundle, keys, after } => verify(bundle, keys, after.as_deref(), out),
    };
    done.unwrap_or_else(|failure| {
        // Where this cannot be written either, the exit code still says it.
        let _ = writeln!(err, "{failure}");
        Exit::Failed
    })
}

fn check(set: &SetArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Loaded { set, bundle } = match load(&set.policies, set.how.base, &set.how) {
        Ok(loaded) => loaded,
        Err(Failure::Refused(Refused(problems))) => {
            for problem in &problems {
                writeln!(out, "{problem}")?;
            }
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
            writeln!(out, "refused: {errors} errors")?;
            return Ok(Exit::Found);
        }
        Err(other) => return Err(other),
    };
    for warning in set.warnings() {
        writeln!(out, "{warning}")?;
    }
    if let Some(Accepted { version, digest }) = bundle {
        writeln!(out, "bundle version {version}, {digest}")?;
    }
    writeln!(out, "valid: {} policies, revision {}", set.rules().count(), set.revision())?;
    Ok(Exit::Fine)
}

fn test(set: &SetArgs, files: &[PathBuf], json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let (mut failed, mut all) = (0, 0);
    for path in files {
        let cases = Cases::parse(&text(path, limits::LARGEST_CASES)?).map_err(|error| file(path, error))?;
        let loaded = load(&set.policies, cases.base.unwrap_or(set.how.base), &set.how)?;
        for result in cases.run(&loaded.set) {
            all += 1;
            failed += usize::from(!result.passed());
            if json {
                writeln!(out, "{}", serde_json::to_string(&result)?)?;
            } else {
                writeln!(out, "{result}")?;
            }
        }
    }
    if !json {
        writeln!(out, "{} of {all} cases passed", all - failed)?;
    }
    Ok(if failed == 0 { Exit::Fine } else { Exit::Found })
}

fn explain(
    set: &SetArgs,
    path: &Path,
    json: bool,
    input: &mut dyn Read,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let loaded = load(&set.policies, set.how.base, &set.how)?;
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        let most = limits::LARGEST_QUESTION;
        input.take(most as u64 + 1).read_to_end(&mut text).map_err(|error| file(path, error))?;
        if text.len() > most {
            return Err(file(path, RecordError::TooLarge(text.len())));
        }
        text
    } else {
        read_bounded(path, limits::LARGEST_QUESTION).map_err(|reason| file(path, reason))?
    };
    let recorded =
        serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|value| value.get("v").is_some());
    let question: Question = if recorded {
        Recorded::parse(&text).map_err(|error| file(path, error))?.question
    } else {
        serde_json::from_slice(&text).map_err(|error| file(path, error))?
    };
    let explanation = loaded.set.explain(&question);
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&explanation)?)?;
    } else {
        writeln!(out, "{explanation}")?;
    }
    Ok(Exit::Fine)
}

fn changes_between(
    (old, old_base): (&Path, Option<Base>),
    new: &Path,
    how: &HowArgs,
    questions: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let old = load(old, old_base.unwrap_or(how.base), how)?.set;
    let new = load(new, how.base, how)?.set;
    let questions = recorded(questions)?;
    let asked = questions.len();
    let changes = diff(&old, &new, questions.into_iter().map(|recorded| recorded.question));
    print_changes(&changes, json, out)?;
    if !json {
        writeln!(out, "{} of {asked} decisions change", changes.len())?;
    }
    Ok(if changes.is_empty() { Exit::Fine } else { Exit::Found })
}

fn replayed(set: &SetArgs, path: &Path, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let candidate = load(&set.policies, set.how.base, &set.how)?.set;
    let result = replay(recorded(path)?, &candidate);
    print_changes(&result.changes, json, out)?;
    if !json {
        writeln!(out, "{} of {} decisions change", result.changes.len(), result.asked)?;
        if result.unanswered > 0 {
            writeln!(out, "{} were recorded without an answer", result.unanswered)?;
        }
    }
    Ok(if result.changes.is_empty() { Exit::Fine } else { Exit::Found })
}

fn print_changes(changes: &[Change], json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    for change in changes {
        if json {
            writeln!(out, "{}", serde_json::to_string(change)?)?;
        } else {
            let word = if change.new.allowed { "allowed now" } else { "denied now" };
            let by = match change.new.rules.as_slice() {
                [] => "since nothing permits it".to_owned(),
                rules => format!("by {}", rules.join(", ")),
            };
            writeln!(out, "{}: {word} {by}: {}", change.index + 1, change.question)?;
        }
    }
    Ok(())
}

/// A directory, or one file.
fn load(path: &Path, base: Base, how: &HowArgs) -> Result<Loaded, Failure> {
    let mut sources =
        Sources { base, directory: None, keys: parse_keys(&how.keys)?, require_signed: how.require_signed };
    if path.is_dir() {
        sources.directory = Some(path.to_owned());
        return Ok(sources.load(&[], None)?);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.ends_with(TEXT_ENDING) && !name.ends_with(BUNDLE_ENDING) {
        return Err(file(path, format!("neither a directory, nor *{TEXT_ENDING}, nor *{BUNDLE_ENDING}")));
    }
    let one = read_one(path, name).map_err(|problem| Refused(vec![problem]))?;
    Ok(sources.load(&[one], None)?)
}

fn text(path: &Path, most: usize) -> Result<String, Failure> {
    let bytes = read_bounded(path, most).map_err(|reason| file(path, reason))?;
    String::from_utf8(bytes).map_err(|_| file(path, "this is not UTF-8"))
}

/// Every line of a file, blank ones aside.
fn recorded(path: &Path) -> Result<Vec<Recorded>, Failure> {
    let mut reader = BufReader::new(File::open(path).map_err(|error| file(path, error))?);
    let mut recorded = Vec::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let most = limits::LARGEST_QUESTION as u64 + 2;
        if reader.by_ref().take(most).read_until(b'\n', &mut line).map_err(|error| file(path, error))? == 0 {
            break;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if recorded.len() >= limits::MOST_QUESTIONS {
            return Err(file(path, format!("more than {} questions: cut it", limits::MOST_QUESTIONS)));
        }
        let one = Recorded::parse(line).map_err(|error| file(path, format!("line {number}: {error}")))?;
        recorded.push(one);
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: PolicyCommand,
    }

    /// Runs a command line in a directory; gives what it printed, errors last.
    pub(super) fn policy(directory: &Path, line: &str, input: &str) -> (Exit, String) {
        let words = line.split(' ').map(|word| match word.strip_prefix('@') {
            Some(file) => directory.join(file).display().to_string(),
            None => word.to_owned(),
        });
        let line = Line::try_parse_from(["policy".to_owned()].into_iter().chain(words)).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&line.command, &mut input.as_bytes(), &mut out, &mut err);
        out.extend(err);
        (exit, String::from_utf8(out).unwrap())
    }

    pub(super) fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("site")).unwrap();
        put(
            directory.path(),
            "site/a.cedar",
            "@id(\"none\") forbid (principal is Server, action, resource);\n",
        );
        directory
    }

    pub(super) fn put(directory: &Path, name: &str, text: &str) {
        std::fs::write(directory.join(name), text).unwrap();
    }

    const QUESTION: &str = r#"{"principal":{"server":{"name":"b.example","accredited":true}},"action":"release","resource":{"room":{"id":"!r"}},"context":{"dominates":true,"via":"transaction","direction":"out"}}"#;

    fn recorded(allowed: bool) -> String {
        let revision = "0".repeat(64);
        format!(
            "{{\"v\":1,\"question\":{QUESTION},\"answer\":{{\"allowed\":{allowed},\"revision\":\"{revision}\"}}}}\n"
        )
    }

    #[test]
    fn check_says_what_is_wrong_and_where() {
        let directory = directory();
        let (exit, said) = policy(directory.path(), "check @site", "");
        assert!(exit == Exit::Fine && said.contains("revision"), "{said}");
        put(
            directory.path(),
            "site/b.cedar",
            "\nforbid (principal, action, resource) when { context.houer > 1 };",
        );
        let (exit, said) = policy(directory.path(), "check @site", "");
        assert!(
            exit == Exit::Found && said.contains("b.cedar:2:45") && said.contains("did you mean `hour`"),
            "{said}"
        );
        assert_eq!(policy(directory.path(), "check @nowhere", "").0, Exit::Failed);
    }

    #[test]
    fn test_fails_with_a_case() {
        let directory = directory();
        let case = "[[case]]\nname = \"b\"\nexpect = \"deny\"\naction = \"release\"\n\
            principal.server = { name = \"b.example\", accredited = true }\n\
            resource.room = { id = \"!r\" }\ncontext = { dominates = true }\n";
        put(directory.path(), "cases.toml", case);
        let (exit, said) = policy(directory.path(), "test @site @cases.toml", "");
        assert!(exit == Exit::Fine && said.ends_with("1 of 1 cases passed\n"), "{said}");
        put(directory.path(), "cases.toml", &case.replace("deny", "allow"));
        let (exit, said) = policy(directory.path(), "test @site @cases.toml", "");
        assert!(exit == Exit::Found && said.contains("FAILED  b: denied by none"), "{said}");
    }

    #[test]
    fn explain_reads_a_question_bare_or_recorded() {
        let directory = directory();
        for question in [QUESTION, &recorded(true)] {
            let (exit, said) = policy(directory.path(), "explain @site", question);
            assert!(exit == Exit::Fine && said.contains("by forbid \"none\" (a.cedar:1)"), "{said}");
        }
        let (exit, said) = policy(directory.path(), "explain @site --json", QUESTION);
        let json: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((exit, &json["answer"]["allowed"]), (Exit::Fine, &false.into()));
        assert_eq!(policy(directory.path(), "explain @site", "{}").0, Exit::Failed);
    }

    #[test]
    fn diff_and_replay_find_what_changes() {
        let directory = directory();
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        put(directory.path(), "recorded.jsonl", &format!("{}\n{}", recorded(true), recorded(false)));
        let (exit, said) = policy(directory.path(), "diff @empty @site @recorded.jsonl", "");
        assert!(exit == Exit::Found && said.contains("2 of 2 decisions change"), "{said}");
        let (exit, said) = policy(directory.path(), "replay @site @recorded.jsonl", "");
        assert!(exit == Exit::Found && said.starts_with("1: denied now by none"), "{said}");
        assert!(said.contains("1 of 2 decisions change"), "{said}");
        let (exit, _) = policy(directory.path(), "diff @site @site @recorded.jsonl", "");
        assert_eq!(exit, Exit::Fine);
        put(directory.path(), "recorded.jsonl", &format!("{}oops\n", recorded(true)));
        let (exit, said) = policy(directory.path(), "replay @site @recorded.jsonl", "");
        assert!(exit == Exit::Failed && said.contains("line 2"), "{said}");
    }
}
