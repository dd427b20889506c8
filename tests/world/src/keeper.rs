//! Whoever starts processes ends them: also when the program that runs the tests is killed, or leaves without
//! dropping what it holds.
//!
//! The keeper is a shell that is told which processes run. Its input ends when this program ends, in whatever way; then it
//! kills what is left and removes the data.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
running=' '
while read -r sign process; do
  case $sign in
    +) running="$running$process " ;;
    -) running="${running%% "$process" *} ${running#* "$process" }" ;;
  esac
done
[ "$running" = ' ' ] || kill -KILL $running 2>/dev/null
[ -n "${POSTERN_KEEP:-}" ] || rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

/// The keeper of this program.
pub(crate) struct Keeper {
    tell: Mutex<std::process::ChildStdin>,
    /// Where the servers of this program keep their data.
    pub(crate) root: PathBuf,
}

impl Keeper {
    /// The one of this program.
    pub(crate) fn get() -> &'static Self {
        static KEEPER: OnceLock<Keeper> = OnceLock::new();
        KEEPER.get_or_init(Self::start)
    }

    #[allow(clippy::zombie_processes, reason = "it outlives this program, as it must")]
    fn start() -> Self {
        let root = tempfile::Builder::new().prefix("postern-world-").tempdir().unwrap().keep();
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "keeper"])
            .arg(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let tell = shell.stdin.take().expect("its input");
        Self { tell: Mutex::new(tell), root }
    }

    fn tell(&self, sign: char, process: u32) {
        let mut tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(tell, "{sign} {process}").expect("the keeper listens");
    }

    /// A process was started.
    pub(crate) fn runs(&self, process: u32) {
        self.tell('+', process);
    }

    /// A process has ended and will be waited for: to be told before its number can go to another.
    pub(crate) fn ended(&self, process: u32) {
        self.tell('-', process);
    }
}
