//! What the processes of a server use, read from `/proc`: CPU time and memory of its processes and all their children.

use crate::link::Error;
use std::collections::HashMap;
use std::fs;
use std::time::Instant;

/// Clock ticks a second in `/proc/<pid>/stat`; 100 on every Linux that Debian ships.
const TICKS: f64 = 100.0;

/// One process: its parent and the CPU seconds it and its reaped children used.
struct Process {
    parent: u32,
    cpu: f64,
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| Error::File(path.to_owned(), error))
}

fn processes() -> Result<HashMap<u32, Process>, Error> {
    let failed = |error| Error::File("/proc".to_owned(), error);
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold spaces: fields count from behind it.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let (Some(parent), Some(cpu)) =
            (fields.get(1).and_then(|field| field.parse().ok()), (11..=14).map(number).sum::<Option<f64>>())
        else {
            continue;
        };
        found.insert(pid, Process { parent, cpu: cpu / TICKS });
    }
    Ok(found)
}

/// `roots` and all processes below them.
fn family(roots: &[u32], all: &HashMap<u32, Process>) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(all.iter().filter(|(_, process)| process.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// CPU seconds, user and system, that `roots` and all their children have used so far.
pub fn cpu(roots: &[u32]) -> Result<f64, Error> {
    let all = processes()?;
    Ok(family(roots, &all).iter().filter_map(|pid| all.get(pid)).map(|process| process.cpu).sum())
}

/// Memory of `roots` and all their children, bytes. Pages that several processes share count once (proportional set
/// size); where that may not be read, the resident size is taken.
pub fn memory(roots: &[u32]) -> Result<f64, Error> {
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let mut kibibytes = 0.0;
    for pid in family(roots, &processes()?) {
        let shared = read(&format!("/proc/{pid}/smaps_rollup")).ok();
        let size = shared.and_then(|text| field(&text, "Pss:")).or_else(|| {
            let status = read(&format!("/proc/{pid}/status")).ok()?;
            field(&status, "VmRSS:")
        });
        kibibytes += size.unwrap_or(0.0);
    }
    Ok(kibibytes * 1024.0)
}

/// Time and CPU time since its start.
#[derive(Debug)]
pub struct Meter<'a> {
    roots: &'a [u32],
    cpu: f64,
    at: Instant,
}

impl<'a> Meter<'a> {
    /// Starts to measure the processes `roots`.
    pub fn start(roots: &'a [u32]) -> Result<Self, Error> {
        Ok(Self { cpu: cpu(roots)?, at: Instant::now(), roots })
    }

    /// Seconds of CPU and of wall time since the start.
    pub fn read(&self) -> Result<(f64, f64), Error> {
        Ok((cpu(self.roots)? - self.cpu, self.at.elapsed().as_secs_f64()))
    }
}
