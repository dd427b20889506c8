//! Push rules: a user's ruleset, kept as the account data `m.push_rules` (specification: push rules).

use crate::{Error, Users, limits};
use postern_graph::{RoomNum, Seq, UserNum};
use ruma::{
    RoomId, UserId,
    power_levels::NotificationPowerLevelsKey,
    push::{
        Action, AnyPushRule, ConditionalPushRuleInit, EventMatchConditionData, HighlightTweakValue,
        InsertPushRuleError, NewPushRule, NewSimplePushRule, PatternedPushRuleInit, PushCondition,
        RemovePushRuleError, RuleKind, Ruleset, SenderNotificationPermissionConditionData, SoundTweakValue,
        Tweak,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const TYPE: &str = "m.push_rules";

#[derive(Serialize, Deserialize)]
struct Content {
    global: Ruleset,
}

/// The specification's rules with those for polls (MSC3930), and the three for events that name somebody in their text only:
/// what bots and older clients send has no `m.mentions`, and its readers expect to be notified as they were before version 1.7.
#[must_use]
pub fn default_push_rules(user: &UserId) -> Ruleset {
    let mut rules = Ruleset::server_default(user);
    let highlight = [
        Action::Notify,
        Action::SetTweak(Tweak::Sound(SoundTweakValue::Default)),
        Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes)),
    ];
    rules.content.insert(
        PatternedPushRuleInit {
            actions: highlight.to_vec(),
            default: true,
            enabled: true,
            rule_id: ".m.rule.contains_user_name".to_owned(),
            pattern: user.localpart().to_owned(),
        }
        .into(),
    );
    #[allow(deprecated, reason = "the rule is for those who send no m.mentions")]
    let named = PushCondition::ContainsDisplayName;
    let rule = ConditionalPushRuleInit {
        actions: highlight.to_vec(),
        default: true,
        enabled: true,
        rule_id: ".m.rule.contains_display_name".to_owned(),
        conditions: vec![named],
    };
    // After the rule for mentions of the same kind, before those that keep quiet.
    let after = |rules: &Ruleset, rule: &str| rules.override_.get_index_of(rule).map_or(0, |index| index + 1);
    rules.override_.shift_insert(after(&rules, ".m.rule.is_user_mention"), rule.into());
    let rule = ConditionalPushRuleInit {
        actions: vec![Action::Notify, Action::SetTweak(Tweak::Highlight(HighlightTweakValue::Yes))],
        default: true,
        enabled: true,
        rule_id: ".m.rule.roomnotif".to_owned(),
        conditions: vec![
            EventMatchConditionData::new("content.body".to_owned(), "@room".to_owned()).into(),
            SenderNotificationPermissionConditionData::new(NotificationPowerLevelsKey::Room).into(),
        ],
    };
    rules.override_.shift_insert(after(&rules, ".m.rule.is_room_mention"), rule.into());
    rules
}

/// # Errors
/// [`Error::TooLarge`] if actions are longer than any that are of use.
fn check_actions(actions: &[Action]) -> Result<(), Error> {
    let text = serde_json::to_string(actions).map_err(|error| Error::Internal(error.to_string()))?;
    if text.len() > limits::PUSH_ACTIONS_BYTES {
        return Err(Error::TooLarge("the actions of the push rule are too long".to_owned()));
    }
    Ok(())
}

/// # Errors
/// [`Error::TooLarge`] if a pattern or the actions are longer than any that are of use.
fn check_rule(rule: &NewPushRule) -> Result<(), Error> {
    check_actions(match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) | NewPushRule::PostContent(rule) => {
            &rule.actions
        }
        NewPushRule::Content(rule) => &rule.actions,
        NewPushRule::Room(rule) => &rule.actions,
        NewPushRule::Sender(rule) => &rule.actions,
        _ => &[],
    })?;
    let pattern = |condition: &PushCondition| match condition {
        PushCondition::EventMatch(condition) => condition.pattern.len(),
        _ => 0,
    };
    let longest = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) | NewPushRule::PostContent(rule) => {
            rule.conditions.iter().map(pattern).max().unwrap_or(0)
        }
        NewPushRule::Content(rule) => rule.pattern.len(),
        // Rooms and senders are no patterns.
        _ => 0,
    };
    if longest > limits::PUSH_PATTERN_BYTES {
        return Err(Error::TooLarge("the pattern of the push rule is too long".to_owned()));
    }
    Ok(())
}

impl Users {
    /// A user's push rules: the server's defaults until the user changed something.
    pub fn push_rules(&self, user_id: &UserId, user: UserNum) -> Result<Ruleset, Error> {
        let defaults = default_push_rules(user_id);
        let Some(text) = self.account_data(user, RoomNum::NONE, TYPE)? else { return Ok(defaults) };
        let Ok(Content { global: mut rules }) = serde_json::from_str(&text) else { return Ok(defaults) };
        // Rules the specification has added since are added to what the user has.
        rules.update_with_server_default(defaults);
        Ok(rules)
    }

    /// When a user's push rules were last changed: who keeps them knows by it whether they are still right.
    pub fn push_rules_version(&self, user: UserNum) -> Result<Seq, Error> {
        self.account_data_version(user, RoomNum::NONE, TYPE)
    }

    async fn change_push_rules(
        &self,
        user_id: &UserId,
        user: UserNum,
        change: impl FnOnce(&mut Ruleset) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _turn = self.push_turn.lock().await;
        let mut rules = self.push_rules(user_id, user)?;
        change(&mut rules)?;
        let text = serde_json::to_string(&Content { global: rules })
            .map_err(|error| Error::Internal(error.to_string()))?;
        self.set_account_data(user, RoomNum::NONE, TYPE, &text).await
    }

    /// Gives a room the rule that another room has, unless it has one already.
    pub async fn copy_room_rule(
        &self,
        user_id: &UserId,
        user: UserNum,
        from: &RoomId,
        to: &RoomId,
    ) -> Result<(), Error> {
        let rules = self.push_rules(user_id, user)?;
        let has = |room: &RoomId| rules.room.iter().find(|rule| rule.rule_id == room);
        let (Some(rule), None) = (has(from).cloned(), has(to)) else { return Ok(()) };
        self.change_push_rules(user_id, user, |rules| {
            let new = NewPushRule::Room(NewSimplePushRule::new(to.to_owned(), rule.actions));
            rules.insert(new, None, None).map_err(|error| Error::InvalidParam(error.to_string()))?;
            if !rule.enabled {
                rules
                    .set_enabled(RuleKind::Room, to, false)
                    .map_err(|error| Error::Internal(error.to_string()))?;
            }
            Ok(())
        })
        .await
    }

    /// Adds or replaces a rule, at a place relative to others of its kind.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] for what may not be a rule's id, [`Error::NotFound`] for a rule it is to stand beside.
    pub async fn put_push_rule(
        &self,
        user_id: &UserId,
        user: UserNum,
        rule: NewPushRule,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<(), Error> {
        check_rule(&rule)?;
        self.change_push_rules(user_id, user, |rules| {
            rules.insert(rule, after, before).map_err(|error| match error {
                InsertPushRuleError::UnknownRuleId => Error::NotFound(error.to_string()),
                other => Error::InvalidParam(other.to_string()),
            })
        })
        .await
    }

    /// Removes a rule of the user's own.
    pub async fn remove_push_rule(
        &self,
        user_id: &UserId,
        user: UserNum,
        kind: RuleKind,
        rule_id: &str,
    ) -> Result<(), Error> {
        self.change_push_rules(user_id, user, |rules| {
            rules.remove(kind, rule_id).map_err(|error| match error {
                RemovePushRuleError::NotFound => Error::NotFound(error.to_string()),
                other => Error::InvalidParam(other.to_string()),
            })
        })
        .await
    }

    /// Switches a rule on or off.
    pub async fn enable_push_rule(
        &self,
        user_id: &UserId,
        user: UserNum,
        kind: RuleKind,
        rule_id: &str,
        enabled: bool,
    ) -> Result<(), Error> {
        self.change_push_rules(user_id, user, |rules| {
            rules.set_enabled(kind, rule_id, enabled).map_err(|error| Error::NotFound(error.to_string()))
        })
        .await
    }

    /// Sets what a rule does.
    pub async fn set_push_actions(
        &self,
        user_id: &UserId,
        user: UserNum,
        kind: RuleKind,
        rule_id: &str,
        actions: Vec<Value>,
    ) -> Result<(), Error> {
        let actions: Vec<Action> = serde_json::from_value(Value::Array(actions))
            .map_err(|error| Error::InvalidParam(format!("not actions of a push rule: {error}")))?;
        check_actions(&actions)?;
        self.change_push_rules(user_id, user, |rules| {
            rules.set_actions(kind, rule_id, actions).map_err(|error| Error::NotFound(error.to_string()))
        })
        .await
    }

    /// One rule.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn push_rule(
        &self,
        user_id: &UserId,
        user: UserNum,
        kind: RuleKind,
        rule_id: &str,
    ) -> Result<AnyPushRule, Error> {
        self.push_rules(user_id, user)?
            .get(kind, rule_id)
            .map(|rule| rule.to_owned())
            .ok_or_else(|| Error::NotFound("no such push rule".to_owned()))
    }
}
