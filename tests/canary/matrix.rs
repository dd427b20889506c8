//! What was asked, by whom, and whether the word was in the answer.

use crate::choir::{ALIAS, CANARY};
use postern_world::Answer;
use std::{collections::BTreeMap, fmt};

/// By endpoint and asker: how many were asked, and in how many answers the word was.
#[derive(Default)]
pub struct Matrix {
    askers: Vec<&'static str>,
    cells: BTreeMap<(String, &'static str), (usize, usize)>,
    leaks: Vec<String>,
}

impl Matrix {
    /// Notes an answer to `asker`, who may hear the word or not. A word that was asked with is no leak.
    pub fn note(
        &mut self,
        endpoint: &str,
        asker: &'static str,
        may_hear: bool,
        asked: &str,
        answer: &Answer,
    ) {
        if !self.askers.contains(&asker) {
            self.askers.push(asker);
        }
        let mut said = String::from_utf8_lossy(answer.bytes()).to_lowercase();
        for (name, value) in answer.headers() {
            said.push_str(name.as_str());
            said.push_str(&String::from_utf8_lossy(value.as_bytes()).to_lowercase());
        }
        let heard = [CANARY, ALIAS].iter().any(|word| said.contains(word) && !asked.contains(word));
        let cell = self.cells.entry((endpoint.to_owned(), asker)).or_default();
        cell.0 += 1;
        cell.1 += usize::from(heard);
        if heard && !may_hear {
            self.leaks.push(format!("{asker}: {endpoint}: {}", answer.describe()));
        }
    }

    /// Whether an asker was told the word by an endpoint.
    pub fn was_heard(&self, endpoint: &str, asker: &'static str) -> bool {
        self.cells.get(&(endpoint.to_owned(), asker)).is_some_and(|(_, heard)| *heard > 0)
    }

    /// # Panics
    /// The word was told to somebody who may not hear it.
    #[track_caller]
    pub fn check(&self) {
        println!("{self}");
        assert!(self.leaks.is_empty(), "{} leaks:\n{}", self.leaks.len(), self.leaks.join("\n"));
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.cells.keys().map(|(endpoint, _)| endpoint.len()).max().unwrap_or(0);
        write!(f, "\n{:width$}", "answers, and those with the word")?;
        self.askers.iter().try_for_each(|asker| write!(f, " {asker:>12}"))?;
        let mut last = "";
        for (endpoint, _) in self.cells.keys() {
            if endpoint == last {
                continue;
            }
            last = endpoint;
            write!(f, "\n{endpoint:width$}")?;
            for asker in &self.askers {
                match self.cells.get(&(endpoint.clone(), *asker)) {
                    Some((asked, heard)) => write!(f, " {:>12}", format!("{asked} / {heard}"))?,
                    None => write!(f, " {:>12}", "-")?,
                }
            }
        }
        writeln!(f)
    }
}
