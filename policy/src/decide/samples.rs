//! What tests of this module speak of.

use super::{
    Action, Base, Context, Event, Kind, Link, Principal, Question, Resource, Room, RuleSet, Server, Text,
    User,
};
use std::sync::Arc;

pub fn text(name: &str, text: &str) -> Text {
    Text { name: name.to_owned(), text: text.to_owned() }
}

pub fn set(base: Base, own: &str) -> RuleSet {
    RuleSet::build(base, &[text("own.cedar", own)]).unwrap()
}

pub fn server(name: &str) -> Server {
    Server { name: name.to_owned(), ..Server::default() }
}

pub fn hq() -> Arc<Server> {
    Arc::new(Server { local: true, ..server("hq.example") })
}

pub fn partner() -> Server {
    let link = Link { name: "satellite".to_owned(), accredited: true, clearance: None };
    Server {
        accredited: true,
        federations: ["coalition".to_owned()].into(),
        link: Some(Arc::new(link)),
        ..server("b.example")
    }
}

/// A user of this server.
pub fn user(localpart: &str, roles: &[&str]) -> User {
    User {
        id: format!("@{localpart}:hq.example"),
        server: hq(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..User::default()
    }
}

pub fn room() -> Room {
    Room { id: "!ops:hq.example".to_owned(), servers: 2, ..Room::default() }
}

pub fn event(kind: Kind) -> Event {
    Event {
        id: "$1".to_owned(),
        r#type: "m.room.message".to_owned(),
        kind,
        room: Arc::new(room()),
        sender: Arc::new(user("anna", &[])),
        label: None,
        has_media: kind == Kind::Media,
        size: 700,
    }
}

pub fn dominated() -> Context {
    Context { dominates: true, ..Context::default() }
}

pub fn ask(principal: impl Into<Principal>, action: Action, resource: impl Into<Resource>) -> Question {
    Question { principal: principal.into(), action, resource: resource.into(), context: dominated() }
}

macro_rules! into {
    ($($whole:ident: $($part:ident),+;)+) => {
        $($(impl From<$part> for $whole {
            fn from(part: $part) -> Self {
                Self::$part(Arc::new(part))
            }
        })+)+
    };
}

use super::{Appservice, Media, Space};

into! {
    Principal: User, Server, Appservice, Link;
    Resource: Room, Event, Media, Space, User, Server;
}
