//! Why it was decided so.
//!
//! Cedar says which policies decided. Why another did not apply is found by asking its parts one after the other: its
//! scope, then each of its conditions, cut at `&&` (and below `unless` at `||`). The first part that does not fit is the
//! reason.

use super::{
    decider::{self, Answer},
    depth::with_room,
    question::Question,
    rules::{Rule, RuleSet, has},
    schema::Asked,
};
use cedar_policy::{
    Policy,
    pst::{
        ActionConstraint, BinaryOp, Clause, Effect, Expr, Policy as Parts, PrincipalConstraint,
        PstConstructionError, ResourceConstraint, StaticPolicy, Template,
    },
};
use cedar_policy_core::evaluator::Evaluator;
use serde::Serialize;
use std::{fmt, sync::Arc};

/// A decision with its reasons. Shown as text, it is for people; as JSON, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// In one line.
    pub question: String,
    pub answer: Answer,
    /// Every policy that has to do with the action: those that applied, then those whose scope fits, then the rest.
    pub rules: Vec<RuleReport>,
}

/// What became of one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    pub id: String,
    pub permits: bool,
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What its `@reason` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub outcome: Outcome,
}

/// Did a policy apply, and if not, why not?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Applied,
    /// It could not be evaluated, so that the answer is no.
    Failed {
        part: String,
        error: String,
    },
    /// This condition does not hold.
    Unmet {
        condition: String,
    },
    /// This exception holds.
    Excepted {
        condition: String,
    },
    /// It is about another principal or resource.
    OutOfScope {
        scope: String,
    },
}

impl RuleSet {
    /// Why this set answers as it does. Costs about as much as a decision for each part of each policy.
    pub fn explain(&self, question: &Question) -> Explanation {
        let asked = Asked::of(question);
        let answer = self.answer_to(question, &asked);
        let mut rules = Vec::new();
        if let (Ok(asked), Some(_)) = (&asked, self.concerned(question)) {
            let concerned = self.rules().filter(|rule| has(&rule.policy, question.action));
            let evaluator = asked.evaluator();
            rules = with_room(|| concerned.map(|rule| report(rule, &evaluator)).collect());
        }
        rules.sort_by(|a, b| {
            (&a.outcome.rank(), a.permits, &a.id).cmp(&(&b.outcome.rank(), b.permits, &b.id))
        });
        Explanation { question: question.to_string(), answer, rules }
    }
}

impl Outcome {
    fn rank(&self) -> u8 {
        match self {
            Self::Applied => 0,
            Self::Failed { .. } => 1,
            Self::Unmet { .. } | Self::Excepted { .. } => 2,
            Self::OutOfScope { .. } => 3,
        }
    }
}

fn report(rule: &Rule, evaluator: &Evaluator<'_>) -> RuleReport {
    RuleReport {
        id: rule.id.clone(),
        permits: rule.permits,
        file: rule.file.clone(),
        line: rule.line,
        reason: rule.reason.clone(),
        outcome: outcome(&rule.policy, evaluator).unwrap_or_else(|error| Outcome::Failed {
            part: "the policy".to_owned(),
            error: error.to_string(),
        }),
    }
}

/// Asks the parts in the order in which Cedar does.
fn outcome(policy: &Policy, evaluator: &Evaluator<'_>) -> Result<Outcome, PstConstructionError> {
    let parts = policy.to_pst()?;
    let Template { principal, resource, .. } = parts.body();
    let any = (PrincipalConstraint::Any, ResourceConstraint::Any);
    let scopes = [
        (format!("principal {principal}"), principal.clone(), any.1.clone()),
        (format!("resource {resource}"), any.0.clone(), resource.clone()),
    ];
    for (scope, principal, resource) in scopes {
        if !matches!(holds(principal, resource, None, evaluator)?, Ok(true)) {
            return Ok(Outcome::OutOfScope { scope });
        }
    }
    for clause in parts.body().clauses() {
        let (whole, cut, wanted) = match clause {
            Clause::When(condition) => (condition, BinaryOp::And, true),
            Clause::Unless(condition) => (condition, BinaryOp::Or, false),
        };
        let mut conditions = Vec::new();
        split(whole, &cut, &mut conditions);
        for condition in conditions {
            let shown = condition.to_string();
            match holds(any.0.clone(), any.1.clone(), Some(condition), evaluator)? {
                Err(error) => return Ok(Outcome::Failed { part: shown, error }),
                Ok(held) if held == wanted => {}
                Ok(true) => return Ok(Outcome::Excepted { condition: shown }),
                Ok(false) => return Ok(Outcome::Unmet { condition: shown }),
            }
        }
    }
    Ok(Outcome::Applied)
}

/// The conditions that an operator joins, from the left.
fn split(whole: &Arc<Expr>, cut: &BinaryOp, into: &mut Vec<Arc<Expr>>) {
    match &**whole {
        Expr::BinaryOp { op, left, right } if op == cut => {
            split(left, cut, into);
            split(right, cut, into);
        }
        _ => into.push(whole.clone()),
    }
}

/// Is this part of a policy satisfied? The inner error is of its evaluation.
fn holds(
    principal: PrincipalConstraint,
    resource: ResourceConstraint,
    condition: Option<Arc<Expr>>,
    evaluator: &Evaluator<'_>,
) -> Result<Result<bool, String>, PstConstructionError> {
    let part = Template::new("part", Effect::Permit, principal, ActionConstraint::Any, resource)
        .try_with_clauses(condition.map(Clause::When))?;
    let part = Policy::from_pst(Parts::Static(StaticPolicy::try_from(part)?))?;
    Ok(decider::holds(evaluator, &part.as_ref().condition()))
}

impl fmt::Display for RuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.permits { "permit" } else { "forbid" };
        write!(f, "{effect} {:?} ({}:{})", self.id, self.file, self.line)?;
        match &self.outcome {
            Outcome::Applied => {}
            Outcome::Failed { part, error } => write!(f, " could not be evaluated at `{part}`: {error}")?,
            Outcome::Unmet { condition } => write!(f, " does not apply: not `{condition}`")?,
            Outcome::Excepted { condition } => write!(f, " does not apply: excepted by `{condition}`")?,
            Outcome::OutOfScope { scope } => write!(f, " does not apply: it is for `{scope}`")?,
        }
        match &self.reason {
            Some(reason) if self.outcome == Outcome::Applied => write!(f, ": {reason}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.answer.allowed { "allowed" } else { "denied" };
        writeln!(f, "{verdict}: {}", self.question)?;
        for error in &self.answer.errors {
            writeln!(f, "  error: {error}")?;
        }
        let (decided, others): (Vec<_>, Vec<_>) =
            self.rules.iter().partition(|rule| self.answer.rules.contains(&rule.id));
        for rule in &decided {
            writeln!(f, "  by {rule}")?;
        }
        if decided.is_empty() && self.answer.errors.is_empty() {
            writeln!(f, "  because nothing permits it")?;
        }
        for rule in others {
            writeln!(f, "  {rule}")?;
        }
        write!(f, "  policies {}", self.answer.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Action, Base, Kind, samples::*};

    fn outcome_of(policy: &str) -> Outcome {
        let set = set(Base::Peers, policy);
        let explanation = set.explain(&ask(partner(), Action::Release, event(Kind::Message)));
        explanation.rules.into_iter().find(|rule| rule.id == "own.cedar:1").unwrap().outcome
    }

    #[test]
    fn the_first_part_that_does_not_fit_is_the_reason() {
        let unmet = "permit (principal, action, resource is Event)
            when { resource.size > 1 && resource.size < 100 && context.encrypted };";
        assert_eq!(outcome_of(unmet), Outcome::Unmet { condition: "resource.size < 100".to_owned() });
        let excepted = "forbid (principal is Server, action, resource)
            unless { context.encrypted || principal.federations.contains(\"coalition\") };";
        let condition = "principal.federations.contains(\"coalition\")".to_owned();
        assert_eq!(outcome_of(excepted), Outcome::Excepted { condition });
        let other = "permit (principal, action, resource == Room::\"!x\");";
        assert_eq!(outcome_of(other), Outcome::OutOfScope { scope: "resource == Room::\"!x\"".to_owned() });
        let guarded =
            "forbid (principal, action, resource) when { context has reason && context.reason == \"\" };";
        assert_eq!(outcome_of(guarded), Outcome::Unmet { condition: "context has reason".to_owned() });
        let failed = "forbid (principal, action, resource is Event)
            when { resource.size * 9223372036854775807 > 0 };";
        assert!(matches!(outcome_of(failed), Outcome::Failed { error, .. } if error.contains("overflow")));
    }

    #[test]
    fn what_nothing_permits_is_said_to_be_so() {
        let shown =
            set(Base::Closed, "").explain(&ask(partner(), Action::Release, event(Kind::Message))).to_string();
        assert!(shown.contains("because nothing permits it"), "{shown}");
    }
}
