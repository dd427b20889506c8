//! The decision itself: the policies in force, and a candidate beside them.

use super::{
    explain::Explanation,
    problem::Refused,
    question::Question,
    rules::{Base, Revision, RuleSet, Text},
    schema::{Asked, Unfit},
};
use arc_swap::ArcSwap;
use cedar_policy_core::{
    ast::{Expr, Literal, SlotEnv, ValueKind},
    evaluator::Evaluator,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a set of policies answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    pub allowed: bool,
    /// The ids of the policies that decided, in their order: every `forbid` that applied, else every `permit` that
    /// did. Empty where nothing permits it.
    #[serde(default)]
    pub rules: Vec<String>,
    /// What could not be evaluated. Not empty: denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Of the set that answered.
    pub revision: Revision,
}

/// A decision, and what the candidate would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What counts.
    pub enforced: Answer,
    /// What the candidate says, where there is one; it has no effect.
    pub shadow: Option<Answer>,
}

impl Decision {
    /// What counts.
    pub fn allowed(&self) -> bool {
        self.enforced.allowed
    }

    /// Does the candidate decide otherwise?
    pub fn differs(&self) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.allowed != self.enforced.allowed)
    }
}

#[derive(Debug, Clone)]
struct InForce {
    enforced: Arc<RuleSet>,
    shadow: Option<Arc<RuleSet>>,
}

/// Decides by the policies in force. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Decider(Arc<ArcSwap<InForce>>);

impl Decider {
    /// Decides by this set from now on.
    pub fn new(set: RuleSet) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(InForce { enforced: Arc::new(set), shadow: None })))
    }

    /// Decides by the base and these texts from now on. Decisions under way are finished by the old set.
    ///
    /// # Errors
    /// What is wrong with the texts; the old set stays in force.
    pub fn reload(&self, base: Base, texts: &[Text]) -> Result<Revision, Refused> {
        Ok(self.enforce(RuleSet::build(base, texts)?))
    }

    /// Decides by this set from now on.
    pub fn enforce(&self, set: RuleSet) -> Revision {
        let enforced = Arc::new(set);
        self.0.rcu(|now| InForce { enforced: enforced.clone(), shadow: now.shadow.clone() });
        enforced.revision()
    }

    /// Asks this candidate too from now on, or none.
    pub fn shadow(&self, candidate: Option<RuleSet>) -> Option<Revision> {
        let shadow = candidate.map(Arc::new);
        self.0.rcu(|now| InForce { enforced: now.enforced.clone(), shadow: shadow.clone() });
        shadow.map(|shadow| shadow.revision())
    }

    /// The candidate is in force from now on, and there is no candidate any more. `None` where there was none.
    pub fn promote(&self) -> Option<Revision> {
        let before = self.0.rcu(|now| InForce {
            enforced: now.shadow.clone().unwrap_or_else(|| now.enforced.clone()),
            shadow: None,
        });
        before.shadow.as_ref().map(|set| set.revision())
    }

    /// Of the set in force.
    pub fn revision(&self) -> Revision {
        self.0.load().enforced.revision()
    }

    /// The set in force.
    pub fn rules(&self) -> Arc<RuleSet> {
        self.0.load().enforced.clone()
    }

    /// The candidate.
    pub fn candidate(&self) -> Option<Arc<RuleSet>> {
        self.0.load().shadow.clone()
    }

    /// May it be? Whatever cannot be evaluated is denied.
    pub fn decide(&self, question: &Question) -> Decision {
        let now = self.0.load();
        let asked = Asked::of(question);
        let answer = |set: &Arc<RuleSet>| set.answer_to(question, &asked);
        Decision { enforced: answer(&now.enforced), shadow: now.shadow.as_ref().map(answer) }
    }

    /// Why the policies in force decide so: see [`RuleSet::explain`].
    pub fn explain(&self, question: &Question) -> Explanation {
        self.0.load().enforced.explain(question)
    }
}

impl RuleSet {
    /// What this set answers. Whatever cannot be evaluated is denied.
    pub fn answer(&self, question: &Question) -> Answer {
        self.answer_to(question, &Asked::of(question))
    }

    pub(super) fn answer_to(&self, question: &Question, asked: &Result<Asked, Unfit>) -> Answer {
        let revision = self.revision();
        let denied =
            |error: String| Answer { allowed: false, rules: Vec::new(), errors: vec![error], revision };
        let asked = match asked {
            Ok(asked) => asked,
            Err(unfit) => return denied(unfit.to_string()),
        };
        let Some(policies) = self.concerned(question) else {
            return denied(format!("the schema has no question like this: {question}"));
        };
        let evaluator = asked.evaluator();
        let (mut permits, mut forbids, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for policy in policies {
            match holds(&evaluator, &policy.condition) {
                Ok(false) => {}
                Ok(true) if policy.permits => permits.push(policy.id.clone()),
                Ok(true) => forbids.push(policy.id.clone()),
                Err(error) => errors.push(format!("policy {:?} cannot be evaluated: {error}", policy.id)),
            }
        }
        // Cedar goes on without a policy that it cannot evaluate, which may be the one that forbids.
        let allowed = forbids.is_empty() && !permits.is_empty() && errors.is_empty();
        let rules = if forbids.is_empty() { permits } else { forbids };
        Answer { allowed, rules, errors, revision }
    }
}

/// Does a condition hold? The error is of its evaluation.
pub(super) fn holds(evaluator: &Evaluator<'_>, condition: &Expr) -> Result<bool, String> {
    let value = evaluator.interpret(condition, &SlotEnv::new()).map_err(|error| error.to_string())?;
    match value.value_kind() {
        ValueKind::Lit(Literal::Bool(holds)) => Ok(*holds),
        other => Err(format!("{other} is neither true nor false")),
    }
}
