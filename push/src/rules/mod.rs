//! Push rules, compiled: which of them applies to an event, and what it asks for (specification: push rules).
//!
//! ruma has the rules as types, and a way to evaluate them. That takes display names for patterns, fails on patterns that
//! grow large, and recurses with the text, none of which may happen with what others send; so what is here evaluates them.

mod pattern;
mod subject;

pub(crate) use pattern::Pattern;
pub(crate) use subject::Subject;

use pattern::has_word;
use ruma::push::{Action, AnyPushRuleRef, PushCondition, Ruleset, ScalarJsonValue};
use serde_json::Value;
use std::{ops::RangeBounds, sync::Arc};

/// Patterns with wildcards that count in one user's rules; further ones match nothing.
const GLOBS: usize = 100;
/// Rules for events that name somebody in their text only.
const LEGACY: [&str; 3] =
    [".m.rule.contains_display_name", ".m.rule.contains_user_name", ".m.rule.roomnotif"];

/// What a rule asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The user is notified.
    pub(crate) notify: bool,
    /// It is shown as particularly important.
    pub(crate) highlight: bool,
    /// The actions as JSON.
    pub(crate) actions: Box<str>,
}

#[derive(Debug)]
struct Rule {
    conditions: Vec<Condition>,
    /// It does not count where the sender says who is mentioned.
    is_legacy: bool,
    verdict: Arc<Verdict>,
}

#[derive(Debug)]
enum Condition {
    Match(String, Pattern),
    Room(String),
    Is(String, Value),
    Contains(String, Value),
    Members(ruma::push::RoomMemberCountIs),
    Permission(String),
    DisplayName,
    /// Not known here, or not supported.
    Never,
}

/// The room of an event, as far as rules ask for it.
pub(crate) trait Scene {
    /// Why something cannot be told.
    type Error;
    /// The room.
    fn room_id(&self) -> &str;
    /// Its joined members.
    fn members(&self) -> Result<u64, Self::Error>;
    /// Whether the sender may notify all whom `name` stands for.
    fn sender_may_notify(&self, name: &str) -> Result<bool, Self::Error>;
    /// The display name there of the user whose rules they are.
    fn display_name(&self) -> Result<Option<String>, Self::Error>;
}

/// A user's rules that are switched on, the most important first.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// From a user's rule set.
    pub(crate) fn new(rules: &Ruleset) -> Self {
        let mut globs = 0;
        let enabled = rules.iter().filter(|rule| rule.enabled());
        Self(enabled.filter_map(|rule| compile(rule, &mut globs)).collect())
    }

    /// How much memory they take, in patterns.
    pub(crate) fn weight(&self) -> u64 {
        let conditions = self.0.iter().flat_map(|rule| &rule.conditions);
        let globs =
            conditions.filter(|one| matches!(one, Condition::Match(_, pattern) if pattern.is_compiled()));
        1 + u64::try_from(globs.count()).unwrap_or(u64::MAX)
    }

    /// What the first rule that applies asks for; nothing if none does. An event of the user's own is for the caller to leave out.
    pub(crate) fn verdict<S: Scene>(
        &self,
        event: &Subject,
        scene: &S,
    ) -> Result<Option<&Arc<Verdict>>, S::Error> {
        'rules: for rule in &self.0 {
            if rule.is_legacy && event.has_mentions() {
                continue;
            }
            for condition in &rule.conditions {
                if !applies(condition, event, scene)? {
                    continue 'rules;
                }
            }
            return Ok(Some(&rule.verdict));
        }
        Ok(None)
    }
}

fn applies<S: Scene>(condition: &Condition, event: &Subject, scene: &S) -> Result<bool, S::Error> {
    Ok(match condition {
        Condition::Match(key, pattern) => match key.as_str() {
            "content.body" => event.body().is_some_and(|body| pattern.matches(body)),
            // Not in every event.
            "room_id" => pattern.matches(&scene.room_id().to_lowercase()),
            key => event.text(key).is_some_and(|text| pattern.matches(&text.to_lowercase())),
        },
        Condition::Room(room) => scene.room_id() == room,
        Condition::Is(key, value) => event.get(key) == Some(value),
        Condition::Contains(key, value) => {
            event.get(key).and_then(Value::as_array).is_some_and(|values| values.contains(value))
        }
        Condition::Members(is) => {
            let members = scene.members()?;
            ruma::UInt::try_from(members).is_ok_and(|members| is.contains(&members))
        }
        Condition::Permission(name) => scene.sender_may_notify(name)?,
        Condition::DisplayName => {
            let Some(body) = event.body() else { return Ok(false) };
            let name = scene.display_name()?.unwrap_or_default().to_lowercase();
            !name.is_empty() && has_word(body, &name)
        }
        Condition::Never => false,
    })
}

fn compile(rule: AnyPushRuleRef<'_>, globs: &mut usize) -> Option<Rule> {
    let mut pattern = |text: &str, within: bool| {
        let pattern = Pattern::new(text, within);
        if !pattern.is_compiled() {
            return pattern;
        }
        *globs += 1;
        if *globs <= GLOBS { pattern } else { Pattern::Nothing }
    };
    let conditions = match rule {
        AnyPushRuleRef::Override(rule)
        | AnyPushRuleRef::PostContent(rule)
        | AnyPushRuleRef::Underride(rule) => {
            rule.conditions.iter().map(|one| condition(one, &mut pattern)).collect()
        }
        AnyPushRuleRef::Content(rule) => {
            vec![Condition::Match("content.body".to_owned(), pattern(&rule.pattern, true))]
        }
        AnyPushRuleRef::Room(rule) => vec![Condition::Room(rule.rule_id.to_string())],
        AnyPushRuleRef::Sender(rule) => {
            vec![Condition::Is("sender".to_owned(), rule.rule_id.as_str().into())]
        }
        #[allow(unreachable_patterns, reason = "there may be other kinds one day")]
        _ => return None,
    };
    let actions = rule.actions();
    let verdict = Verdict {
        notify: actions.iter().any(Action::should_notify),
        highlight: actions.iter().any(Action::is_highlight),
        actions: serde_json::to_string(actions).ok()?.into(),
    };
    let is_legacy = rule.is_server_default() && LEGACY.contains(&rule.rule_id());
    Some(Rule { conditions, is_legacy, verdict: Arc::new(verdict) })
}

fn condition(condition: &PushCondition, pattern: &mut impl FnMut(&str, bool) -> Pattern) -> Condition {
    #[allow(deprecated, reason = "the rule is for those who send no m.mentions")]
    match condition {
        PushCondition::EventMatch(data) => {
            Condition::Match(data.key.clone(), pattern(&data.pattern, data.key == "content.body"))
        }
        PushCondition::ContainsDisplayName => Condition::DisplayName,
        PushCondition::RoomMemberCount(data) => Condition::Members(data.is),
        PushCondition::SenderNotificationPermission(data) => Condition::Permission(data.key.to_string()),
        PushCondition::EventPropertyIs(data) => Condition::Is(data.key.clone(), scalar(&data.value)),
        PushCondition::EventPropertyContains(data) => {
            Condition::Contains(data.key.clone(), scalar(&data.value))
        }
        _ => Condition::Never,
    }
}

fn scalar(value: &ScalarJsonValue) -> Value {
    match value {
        ScalarJsonValue::Null => Value::Null,
        ScalarJsonValue::Bool(value) => (*value).into(),
        ScalarJsonValue::Integer(value) => i64::from(*value).into(),
        ScalarJsonValue::String(value) => value.as_str().into(),
    }
}

#[cfg(test)]
mod tests;
