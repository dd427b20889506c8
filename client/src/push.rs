//! Push rules (specification: push notifications).

use crate::{
    Api,
    http::{Answer, ApiError, Body, Caller, Params, Query, done},
};
use axum::{Json, Router, extract::State, routing::get};
use ruma::push::{
    Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, PushCondition,
    RuleKind,
};
use serde::Deserialize;
use serde_json::{Value, json};

pub fn routes() -> Router<Api> {
    let mut router = Router::new();
    for version in ["r0", "v3"] {
        let base = format!("/_matrix/client/{version}");
        let rule = format!("{base}/pushrules/global/{{kind}}/{{rule}}");
        router = router
            .route(&format!("{base}/pushrules/"), get(all))
            .route(&format!("{base}/pushrules"), get(all))
            .route(&format!("{base}/pushrules/global/"), get(global))
            .route(&format!("{base}/pushrules/global"), get(global))
            .route(&format!("{base}/pushrules/global/{{kind}}/"), get(of_kind))
            .route(&format!("{base}/pushrules/global/{{kind}}"), get(of_kind))
            .route(&rule, get(one).put(put).delete(delete))
            .route(&format!("{rule}/enabled"), get(enabled).put(set_enabled))
            .route(&format!("{rule}/actions"), get(actions).put(set_actions));
    }
    router
}

async fn all(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!({ "global": api.users.push_rules(&session.user_id, session.user)? })))
}

async fn global(State(api): State<Api>, Caller(session): Caller) -> Answer {
    Ok(Json(json!(api.users.push_rules(&session.user_id, session.user)?)))
}

async fn of_kind(State(api): State<Api>, Caller(session): Caller, Params(kind): Params<String>) -> Answer {
    let kind = parse_kind(&kind)?;
    let rules = json!(api.users.push_rules(&session.user_id, session.user)?);
    Ok(Json(rules.get(kind.as_str()).cloned().unwrap_or_else(|| json!([]))))
}

fn parse_kind(kind: &str) -> Result<RuleKind, ApiError> {
    match kind {
        "override" | "underride" | "sender" | "room" | "content" | "postcontent" => Ok(RuleKind::from(kind)),
        _ => Err(ApiError::invalid_param("no such kind of push rule")),
    }
}

type Rule = (String, String);

async fn one(State(api): State<Api>, Caller(session): Caller, Params((kind, rule)): Params<Rule>) -> Answer {
    let rule = api.users.push_rule(&session.user_id, session.user, parse_kind(&kind)?, &rule)?;
    Ok(Json(rule_json(rule)))
}

fn rule_json(rule: ruma::push::AnyPushRule) -> Value {
    use ruma::push::AnyPushRule as R;
    match rule {
        R::Override(rule) | R::Underride(rule) => json!(rule),
        R::Content(rule) => json!(rule),
        R::Room(rule) => json!(rule),
        R::Sender(rule) => json!(rule),
        other => {
            json!({ "rule_id": other.rule_id(), "enabled": other.enabled(), "actions": other.actions() })
        }
    }
}

#[derive(Debug, Deserialize)]
struct Place {
    before: Option<String>,
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Put {
    actions: Vec<Action>,
    #[serde(default)]
    conditions: Vec<PushCondition>,
    pattern: Option<String>,
}

async fn put(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
    Query(place): Query<Place>,
    Body(request): Body<Put>,
) -> Answer {
    let conditional =
        |request: Put| NewConditionalPushRule::new(rule.clone(), request.conditions, request.actions);
    let new = match kind.as_str() {
        "override" => NewPushRule::Override(conditional(request)),
        "underride" => NewPushRule::Underride(conditional(request)),
        "content" => {
            let pattern =
                request.pattern.ok_or_else(|| ApiError::missing_param("a content rule needs a pattern"))?;
            NewPushRule::Content(NewPatternedPushRule::new(rule, pattern, request.actions))
        }
        "room" => {
            let room =
                ruma::RoomId::parse(&rule).map_err(|error| ApiError::invalid_param(error.to_string()))?;
            NewPushRule::Room(NewSimplePushRule::new(room, request.actions))
        }
        "sender" => {
            let user =
                ruma::UserId::parse(&rule).map_err(|error| ApiError::invalid_param(error.to_string()))?;
            NewPushRule::Sender(NewSimplePushRule::new(user, request.actions))
        }
        _ => return Err(ApiError::invalid_param("no such kind of push rule")),
    };
    api.users
        .put_push_rule(&session.user_id, session.user, new, place.after.as_deref(), place.before.as_deref())
        .await?;
    Ok(done())
}

async fn delete(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
) -> Answer {
    api.users.remove_push_rule(&session.user_id, session.user, parse_kind(&kind)?, &rule).await?;
    Ok(done())
}

async fn enabled(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
) -> Answer {
    let rule = api.users.push_rule(&session.user_id, session.user, parse_kind(&kind)?, &rule)?;
    Ok(Json(json!({ "enabled": rule.enabled() })))
}

#[derive(Debug, Deserialize)]
struct Enabled {
    enabled: bool,
}

async fn set_enabled(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
    Body(request): Body<Enabled>,
) -> Answer {
    let kind = parse_kind(&kind)?;
    api.users.enable_push_rule(&session.user_id, session.user, kind, &rule, request.enabled).await?;
    Ok(done())
}

async fn actions(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
) -> Answer {
    let rule = api.users.push_rule(&session.user_id, session.user, parse_kind(&kind)?, &rule)?;
    Ok(Json(json!({ "actions": rule.actions() })))
}

#[derive(Debug, Deserialize)]
struct Actions {
    actions: Vec<Value>,
}

async fn set_actions(
    State(api): State<Api>,
    Caller(session): Caller,
    Params((kind, rule)): Params<Rule>,
    Body(request): Body<Actions>,
) -> Answer {
    let kind = parse_kind(&kind)?;
    api.users.set_push_actions(&session.user_id, session.user, kind, &rule, request.actions).await?;
    Ok(done())
}
