//! Questions that were asked, and what other policies would answer.
//!
//! A recorded question is one line of JSON:
//!
//! ```json
//! {"v":1,"question":{"principal":{"server":{"name":"b.example","accredited":true}},"action":"release","resource":{"room":{"id":"!r"}},"context":{"dominates":true,"via":"transaction","direction":"out"}},"answer":{"allowed":true,"rules":["base-peer"],"revision":"…"}}
//! ```
//!
//! The form is stable: fields may be added, with `v` unchanged where an older reader may do without them.

use super::{
    decider::{Answer, Decision},
    limits::LARGEST_QUESTION,
    question::Question,
    rules::RuleSet,
};
use serde::{Deserialize, Serialize};

/// The version of the form.
const VERSION: u8 = 1;

/// A question, and what was answered if that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    v: u8,
    pub question: Question,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// A line that is no recorded question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("{0} bytes: a recorded question is at most {LARGEST_QUESTION}")]
    TooLarge(usize),
    #[error("version {0} of the form; {VERSION} is known")]
    Version(u8),
    #[error("{0}")]
    Json(String),
}

impl Recorded {
    /// For the ledger: what was asked and what counted.
    pub fn new(question: Question, decision: &Decision) -> Self {
        Self { v: VERSION, question, answer: Some(decision.enforced.clone()) }
    }

    /// A question that nobody has answered.
    pub fn unanswered(question: Question) -> Self {
        Self { v: VERSION, question, answer: None }
    }

    /// Reads one line.
    ///
    /// # Errors
    /// For what is no recorded question of this version.
    pub fn parse(line: &[u8]) -> Result<Self, RecordError> {
        if line.len() > LARGEST_QUESTION {
            return Err(RecordError::TooLarge(line.len()));
        }
        let recorded: Self =
            serde_json::from_slice(line).map_err(|error| RecordError::Json(error.to_string()))?;
        if recorded.v != VERSION {
            return Err(RecordError::Version(recorded.v));
        }
        Ok(recorded)
    }

    /// One line, without its end.
    ///
    /// # Errors
    /// Where it is longer than can be read back.
    pub fn to_line(&self) -> Result<String, RecordError> {
        let line = serde_json::to_string(self).map_err(|error| RecordError::Json(error.to_string()))?;
        if line.len() > LARGEST_QUESTION {
            return Err(RecordError::TooLarge(line.len()));
        }
        Ok(line)
    }
}

/// A question that is decided otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Which one, from 0, of those that were given.
    pub index: usize,
    pub question: Question,
    pub old: Answer,
    pub new: Answer,
}

/// The questions that two sets decide differently.
pub fn diff(old: &RuleSet, new: &RuleSet, questions: impl IntoIterator<Item = Question>) -> Vec<Change> {
    let compare = |(index, question): (usize, Question)| {
        let (old, new) = (old.answer(&question), new.answer(&question));
        (old.allowed != new.allowed).then_some(Change { index, question, old, new })
    };
    questions.into_iter().enumerate().filter_map(compare).collect()
}

/// What a candidate makes of the past.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    pub asked: usize,
    /// Of these, recorded without an answer: there is nothing to compare with.
    pub unanswered: usize,
    pub changes: Vec<Change>,
}

/// Asks a candidate what was asked, and compares with what was answered then.
pub fn replay(recorded: impl IntoIterator<Item = Recorded>, candidate: &RuleSet) -> Replay {
    let mut replay = Replay::default();
    for (index, Recorded { question, answer, .. }) in recorded.into_iter().enumerate() {
        replay.asked += 1;
        let Some(old) = answer else {
            replay.unanswered += 1;
            continue;
        };
        let new = candidate.answer(&question);
        if old.allowed != new.allowed {
            replay.changes.push(Change { index, question, old, new });
        }
    }
    replay
}
