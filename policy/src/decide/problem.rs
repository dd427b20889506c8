//! What is wrong with policies, in a form that a person can act on.

use cedar_policy::{ParseError, ValidationError, ValidationWarning};
use miette::Diagnostic;
use serde::Serialize;
use std::fmt;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The set is used all the same.
    Warning,
    /// The set is refused.
    Error,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The name of the text: a file's name, or what the caller called it.
    pub file: String,
    /// From 1; 0 where it is the text as a whole.
    pub line: usize,
    /// From 1, in characters; 0 where it is the text as a whole.
    pub column: usize,
    pub severity: Severity,
    /// The policy it is in, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
}

/// Policies that are not taken, with all that is wrong with them. What was in force stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Refused(pub Vec<Problem>);

impl Refused {
    /// Of a text as a whole.
    pub(super) fn whole(file: &str, reason: impl Into<String>) -> Self {
        Self(vec![Problem::whole(file, reason)])
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

impl Problem {
    /// Of a text as a whole.
    pub(super) fn whole(file: &str, reason: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            severity: Severity::Error,
            rule: None,
            reason: reason.into(),
        }
    }

    /// At a byte of a text.
    pub(super) fn at(file: &str, text: &str, offset: usize, reason: impl Into<String>) -> Self {
        let (line, column) = place(text, offset);
        Self { line, column, ..Self::whole(file, reason) }
    }

    pub(super) fn of_rule(self, rule: &str) -> Self {
        Self { rule: Some(rule.to_owned()), ..self }
    }

    /// What Cedar says of a text that it cannot read.
    pub(super) fn parse(file: &str, text: &str, error: &ParseError) -> Self {
        Self::diagnosed(file, text, 0, error)
    }

    /// What Cedar says of a policy that the schema does not fit. `start` is where the policy stands.
    pub(super) fn invalid(file: &str, text: &str, start: usize, error: &ValidationError) -> Self {
        Self::diagnosed(file, text, start, error)
    }

    /// What Cedar finds suspicious.
    pub(super) fn warning(file: &str, text: &str, start: usize, warning: &ValidationWarning) -> Self {
        // What is read in another order than it is shown misleads whoever reviews it, and so does what looks like a
        // rule and never applies. The rest (names in several scripts) is common in names of rooms.
        let misleads = matches!(
            warning,
            ValidationWarning::BidiCharsInString(_)
                | ValidationWarning::BidiCharsInIdentifier(_)
                | ValidationWarning::ImpossiblePolicy(_)
                | ValidationWarning::InvalidActionApplication(_)
        );
        let severity = if misleads { Severity::Error } else { Severity::Warning };
        Self { severity, ..Self::diagnosed(file, text, start, warning) }
    }

    fn diagnosed(file: &str, text: &str, start: usize, error: &(impl Diagnostic + fmt::Display)) -> Self {
        let label = error.labels().and_then(|mut labels| labels.next());
        let offset = label.as_ref().map_or(start, |label| label.offset());
        let mut reason = error.to_string();
        for more in [
            label.as_ref().and_then(|label| label.label()),
            error.help().map(|help| help.to_string()).as_deref(),
        ]
        .into_iter()
        .flatten()
        {
            reason.push_str("; ");
            reason.push_str(more);
        }
        // Cedar names the policy by its place in the text, which is said already.
        let named = reason.strip_prefix("for policy `");
        if let Some((_, rest)) =
            named.and_then(|rest| rest.split_once("`, ").or_else(|| rest.split_once("`: ")))
        {
            reason = rest.to_owned();
        }
        Self::at(file, text, offset, visible(&reason))
    }
}

/// What Cedar says may quote the text: on one line, and with what a terminal would act upon spelt out.
fn visible(reason: &str) -> String {
    let mut shown = String::with_capacity(reason.len());
    for char in reason.chars() {
        match char {
            '\n' => shown.push(' '),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(char.escape_unicode());
            }
            _ if char.is_control() => shown.extend(char.escape_unicode()),
            _ => shown.push(char),
        }
    }
    shown
}

/// Line and column of a byte, both from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (line, before[start..].chars().count() + 1)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "policy {rule:?}: ")?;
        }
        f.write_str(&self.reason)
    }
}
