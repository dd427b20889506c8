//! Tests of policies: questions with the answers that are expected, in a TOML file.
//!
//! ```toml
//! base = "peers"                      # closed, peers or open; else as the command line says
//!
//! [[case]]
//! name = "a partner gets messages"
//! expect = "allow"                    # or "deny"
//! rules = ["base-peer"]               # optional: each of these must have decided
//! principal.server = { name = "b.example", accredited = true }
//! action = "release"
//! resource.room = { id = "!ops:hq.example" }
//! context = { dominates = true, via = "transaction", direction = "out" }
//! ```
//!
//! Principal, action, resource and context are those of a recorded question: see [`Question`].

use super::{
    decider::Answer,
    limits::{LARGEST_CASES, MOST_QUESTIONS},
    question::{Action, Context, Principal, Question, Resource},
    rules::{Base, RuleSet},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A file of cases.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// Under which base they are meant, where the file says.
    #[serde(default)]
    pub base: Option<Base>,
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// A question and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub expect: Expect,
    /// Each of these must be among those that decided.
    #[serde(default)]
    pub rules: Vec<String>,
    pub principal: Principal,
    pub action: Action,
    pub resource: Resource,
    #[serde(default)]
    pub context: Context,
}

/// The expected answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    Allow,
    Deny,
}

/// A file that holds no cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CasesError {
    #[error("{0} bytes: a file of cases is at most {LARGEST_CASES}")]
    TooLarge(usize),
    #[error("{0}")]
    Toml(String),
    #[error("there are no cases in it, or more than {MOST_QUESTIONS}")]
    Number,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    pub name: String,
    pub expect: Expect,
    pub answer: Answer,
    /// Expected to decide, and did not.
    pub missing: Vec<String>,
}

impl CaseResult {
    /// Is it as expected? What could not be evaluated never is, since a denial for that reason tests nothing.
    pub fn passed(&self) -> bool {
        self.answer.allowed == (self.expect == Expect::Allow)
            && self.missing.is_empty()
            && self.answer.errors.is_empty()
    }
}

impl fmt::Display for CaseResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            return write!(f, "ok      {}", self.name);
        }
        let allowed = if self.answer.allowed { "allowed" } else { "denied" };
        write!(f, "FAILED  {}: {allowed}", self.name)?;
        match self.answer.rules.as_slice() {
            [] => write!(f, ", since nothing permits it")?,
            rules => write!(f, " by {}", rules.join(", "))?,
        }
        if !self.missing.is_empty() {
            write!(f, "; not by {}", self.missing.join(", "))?;
        }
        self.answer.errors.iter().try_for_each(|error| write!(f, "; {error}"))
    }
}

impl Cases {
    /// Reads a file of cases.
    ///
    /// # Errors
    /// With line and column, for what is not understood.
    pub fn parse(text: &str) -> Result<Self, CasesError> {
        if text.len() > LARGEST_CASES {
            return Err(CasesError::TooLarge(text.len()));
        }
        let cases: Self = toml::from_str(text).map_err(|error| CasesError::Toml(error.to_string()))?;
        if cases.cases.is_empty() || cases.cases.len() > MOST_QUESTIONS {
            return Err(CasesError::Number);
        }
        Ok(cases)
    }

    /// Asks each, in order.
    pub fn run(&self, set: &RuleSet) -> Vec<CaseResult> {
        self.cases.iter().map(|case| case.run(set)).collect()
    }
}

impl Case {
    fn run(&self, set: &RuleSet) -> CaseResult {
        let question = Question {
            principal: self.principal.clone(),
            action: self.action,
            resource: self.resource.clone(),
            context: self.context.clone(),
        };
        let answer = set.answer(&question);
        let missing = self.rules.iter().filter(|rule| !answer.rules.contains(rule)).cloned().collect();
        CaseResult { name: self.name.clone(), expect: self.expect, answer, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::set;

    const CASE: &str = "[[case]]
name = \"a partner gets the room\"
expect = \"allow\"
rules = [\"base-peer\"]
action = \"release\"
principal.server = { name = \"b.example\", accredited = true }
resource.room = { id = \"!ops:hq.example\" }
context = { dominates = true }
";

    fn result(text: &str) -> CaseResult {
        Cases::parse(text).unwrap().run(&set(Base::Peers, "")).remove(0)
    }

    #[test]
    fn a_case_passes_by_its_answer_and_the_policies_that_decided() {
        assert!(result(CASE).passed());
        let denied = result(&CASE.replace("dominates = true", ""));
        assert!(!denied.passed());
        assert_eq!(
            denied.to_string(),
            "FAILED  a partner gets the room: denied by rail-release; not by base-peer"
        );
        assert!(!result(&CASE.replace("\"allow\"", "\"deny\"")).passed());
    }

    #[test]
    fn a_denial_for_a_question_that_cannot_be_asked_is_no_pass() {
        let unfit =
            CASE.replace("\"allow\"", "\"deny\"").replace("release", "send").replace("[\"base-peer\"]", "[]");
        assert!(!result(&unfit).passed());
    }

    #[test]
    fn a_slip_in_a_file_of_cases_is_an_error_with_its_line() {
        let error = Cases::parse(&CASE.replace("accredited", "acredited")).unwrap_err().to_string();
        assert!(error.contains("line 6") && error.contains("acredited"), "{error}");
        assert_eq!(Cases::parse("case = []"), Err(CasesError::Number));
    }
}
