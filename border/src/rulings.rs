//! Rulings: what the Cedar policies decide, each once, and kept with its reason.

use crate::{
    ledger::Ledger,
    standing::{Peer, Standing},
};
use postern_policy::decide::{
    Action, Context, Direction, Door, Principal, Question, Recorded, Resource, User,
};
use postern_rooms::now_ms;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// What was decided.
#[derive(Debug, Clone)]
pub(crate) struct Ruling {
    pub(crate) allowed: bool,
    /// Under what it is kept: 64 bits of the SHA-256 of its record.
    pub(crate) id: u64,
    /// Why, for people.
    pub(crate) why: String,
}

/// Decides, or finds what was decided: a question has all that policies can see, so that equal ones have equal answers.
pub(crate) fn rule(standing: &Standing, ledger: &Ledger, question: Question) -> Arc<Ruling> {
    if let Some(ruling) = standing.rulings.get(&question) {
        return ruling;
    }
    let ruling = Arc::new(decided(standing, ledger, &question));
    standing.rulings.insert(question, ruling.clone());
    ruling
}

fn decided(standing: &Standing, ledger: &Ledger, question: &Question) -> Ruling {
    let decision = standing.decider.decide(question);
    let answer = &decision.enforced;
    let why = why(standing, &answer.rules, &answer.errors);
    let outcome = if answer.allowed { "allowed" } else { "denied" };
    metrics::counter!("postern_border_rulings", "action" => question.action.as_str(), "outcome" => outcome)
        .increment(1);
    for rule in &answer.rules {
        metrics::counter!("postern_border_rules", "rule" => rule.clone(), "outcome" => outcome).increment(1);
    }
    if decision.differs() {
        metrics::counter!("postern_border_shadow_differences", "action" => question.action.as_str())
            .increment(1);
        tracing::info!(target: "postern::border", %question, enforced = answer.allowed, "the candidate decides otherwise");
    }
    tracing::debug!(target: "postern::border", %question, outcome, why, "decided");
    let allowed = answer.allowed;
    let shadow = decision.shadow.as_ref().map(|shadow| json!(shadow));
    let mut record = json!(Recorded::new(question.clone(), &decision));
    if let (Value::Object(record), Some(shadow)) = (&mut record, shadow) {
        record.insert("shadow".to_owned(), shadow);
    }
    let id = id_of(&record);
    ledger.note_ruling(id, record);
    Ruling { allowed, id, why }
}

/// Why: what the policies that decided say of themselves.
fn why(standing: &Standing, rules: &[String], errors: &[String]) -> String {
    if let Some(error) = errors.first() {
        return format!("a policy cannot be evaluated: {error}");
    }
    if rules.is_empty() {
        return "no policy permits it".to_owned();
    }
    let set = standing.decider.rules();
    let said = |id: &String| match set.rule(id).and_then(|rule| rule.reason.as_ref()) {
        Some(reason) => format!("{reason} ({id})"),
        None => id.clone(),
    };
    rules.iter().map(said).collect::<Vec<_>>().join("; ")
}

fn id_of(record: &Value) -> u64 {
    let digest = Sha256::digest(record.to_string().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(digest.get(..8).unwrap_or(&[0; 8]));
    u64::from_be_bytes(first)
}

/// The beginning of this hour, milliseconds since the epoch: policies see hour and weekday.
pub(crate) fn hour() -> u64 {
    now_ms() / 3_600_000 * 3_600_000
}

/// What is asked about a user of this server, or one of another that comes in.
pub(crate) fn within(user: Arc<User>, action: Action, resource: Resource, dominates: bool) -> Question {
    let direction = if user.server.local { Direction::Within } else { Direction::Out };
    Question {
        principal: Principal::User(user),
        action,
        resource,
        context: Context { dominates, at: hour(), via: Door::Client, direction, ..Context::default() },
    }
}

/// What is asked when something goes out to, or comes in from, another server.
pub(crate) fn across(peer: &Peer, action: Action, resource: Resource, dominates: bool) -> Question {
    let direction = if action == Action::Admit { Direction::In } else { Direction::Out };
    Question {
        principal: Principal::Server(peer.server.clone()),
        action,
        resource,
        context: Context { dominates, at: hour(), via: Door::Transaction, direction, ..Context::default() },
    }
}

/// A user of another server, as policies see them.
pub(crate) fn user_of(peer: &Peer, id: &str) -> Arc<User> {
    Arc::new(User {
        id: id.to_owned(),
        server: peer.server.clone(),
        clearance: peer.server.clearance.clone(),
        ..User::default()
    })
}
