//! The schema, and questions as Cedar has them.
//!
//! `policies/postern.cedarschema` is the schema. A question becomes a Cedar request and the few entities it names;
//! what it says of one that it names twice is taken from the principal first, then the resource, then the context.

use super::{
    limits,
    question::{
        Action, Appservice, Context, Event, Link, Media, Principal, Question, Resource, Room, Server, Space,
        User,
    },
};
use cedar_policy::{EntityTypeName, Schema};
use cedar_policy_core::{
    ast::{self, Eid, Entity, EntityType, EntityUID, EntityUIDEntry, Value},
    entities::{Entities, NoEntitiesSchema, TCComputation},
    evaluator::Evaluator,
    extensions::Extensions,
};
use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    sync::{Arc, LazyLock},
};

/// The schema as text.
pub const SCHEMA: &str = include_str!("../../policies/postern.cedarschema");

/// What is derived from the schema once.
pub(super) struct Known {
    pub schema: Schema,
    types: HashMap<&'static str, EntityType>,
    /// With the groups each is in.
    actions: HashMap<Action, Entity>,
    /// Every action with the types of principal and resource that it may be asked of.
    pub shapes: Vec<(Action, &'static str, &'static str)>,
}

#[expect(clippy::expect_used, reason = "of the text above alone, and tested")]
pub(super) static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let schema = Schema::from_str(SCHEMA).expect("the schema is valid");
    let names = [
        "User",
        "Server",
        "Appservice",
        "Link",
        "Room",
        "Event",
        "Media",
        "Space",
        "Action",
        "Kind",
        "Encryption",
        "Trust",
        "Direction",
        "Door",
    ];
    let types = names
        .into_iter()
        .map(|name| (name, EntityType::from_normalized_str(name).expect("a name of a type")))
        .collect();
    let entities = schema.action_entities().expect("the actions of the schema");
    let actions = Action::ALL
        .iter()
        .map(|action| {
            let uid = format!("Action::\"{action}\"").parse().expect("a name of an action");
            (*action, entities.get(&uid).expect("an action of the schema").as_ref().clone())
        })
        .collect();
    let shapes = schema.request_envs().filter_map(|env| {
        let name = |of: &EntityTypeName| names.into_iter().find(|name| *name == of.basename());
        let action = Action::ALL.iter().find(|action| action.as_str() == env.action().id().unescaped())?;
        Some((*action, name(env.principal())?, name(env.resource())?))
    });
    Known { shapes: shapes.collect(), schema, types, actions }
});

/// A question that the schema has no place for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("a set of names has more than {} of them", limits::MOST_NAMES)]
    TooMany,
    #[error("{0}")]
    Cedar(String),
}

/// A question as Cedar has it.
///
/// Values are put together as Cedar keeps them, and not checked against the schema once more: that they fit it follows
/// from the types of a [`Question`], and is a property test. The schema is asked whether there is such a question where
/// the policies are looked up ([`RuleSet::concerned`](super::rules::RuleSet::concerned)).
pub(super) struct Asked {
    pub request: ast::Request,
    pub entities: Entities,
}

impl Asked {
    /// # Errors
    /// Where a set of names is too large, or the schema lacks a name.
    pub fn of(question: &Question) -> Result<Self, Unfit> {
        if !question.is_bounded() {
            return Err(Unfit::TooMany);
        }
        let mut known = Cast { said: Vec::with_capacity(8) };
        let principal = match &question.principal {
            Principal::User(user) => known.user(user)?,
            Principal::Server(server) => known.server(server)?,
            Principal::Appservice(appservice) => known.appservice(appservice)?,
            Principal::Link(link) => known.link(link)?,
        };
        let resource = match &question.resource {
            Resource::Room(room) => known.room(room)?,
            Resource::Event(event) => known.event(event)?,
            Resource::Media(media) => known.media(media)?,
            Resource::Space(space) => known.space(space)?,
            Resource::User(user) => known.user(user)?,
            Resource::Server(server) => known.server(server)?,
        };
        let context = known.context(&question.context)?;
        let action = KNOWN
            .actions
            .get(&question.action)
            .ok_or_else(|| Unfit::Cedar(format!("no action {}", question.action)))?;
        let entry = |euid| EntityUIDEntry::Known { euid, loc: None };
        let request = ast::Request::new_unchecked(
            entry(principal),
            entry(Arc::new(action.uid().clone())),
            entry(resource),
            Some(context),
        );
        let entities = Entities::from_entities(
            known.said.into_iter().map(|(_, entity)| entity).chain([action.clone()]),
            None::<&NoEntitiesSchema>,
            TCComputation::AssumeAlreadyComputed,
            Extensions::all_available(),
        );
        Ok(Self { request, entities: entities.map_err(|error| Unfit::Cedar(error.to_string()))? })
    }

    /// What says whether conditions hold of it.
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator::new(self.request.clone(), &self.entities, Extensions::all_available())
    }
}

fn uid(of: &str, id: &str) -> Result<Arc<EntityUID>, Unfit> {
    let of = KNOWN.types.get(of).ok_or_else(|| Unfit::Cedar(format!("no type {of}")))?;
    Ok(Arc::new(EntityUID::from_components(of.clone(), Eid::new(id), None)))
}

/// The attributes of an entity, as they are put together.
#[derive(Default)]
struct Attrs(Vec<(&'static str, Value)>);

impl Attrs {
    fn put(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    fn text_if(self, name: &'static str, value: Option<&String>) -> Self {
        match value {
            Some(value) => self.put(name, value.as_str()),
            None => self,
        }
    }

    fn long(self, name: &'static str, value: impl TryInto<i64>) -> Self {
        self.put(name, value.try_into().unwrap_or(i64::MAX))
    }

    fn names<'n>(self, name: &'static str, values: impl IntoIterator<Item = &'n str>) -> Self {
        self.put(name, Value::set_of_lits(values.into_iter().map(Into::into), None))
    }

    fn word(self, name: &'static str, of: &str, value: &str) -> Result<Self, Unfit> {
        Ok(self.put(name, uid(of, value)?))
    }
}

/// What an entity lies in: what it is directly in, and what that is in.
#[derive(Default)]
struct Within {
    parents: HashSet<EntityUID>,
    above: HashSet<EntityUID>,
}

/// The entities a question names; they are few.
struct Cast {
    said: Vec<(Arc<EntityUID>, Entity)>,
}

impl Cast {
    /// Takes in what is said of an entity, unless something was said of it before.
    fn add(
        &mut self,
        of: &str,
        id: &str,
        say: impl FnOnce(&mut Self) -> Result<(Attrs, Within), Unfit>,
    ) -> Result<Arc<EntityUID>, Unfit> {
        let uid = uid(of, id)?;
        if let Some((known, _)) = self.said(&uid) {
            return Ok(known.clone());
        }
        let (attrs, within) = say(self)?;
        if self.said(&uid).is_none() {
            let entity = Entity::new_with_attr_partial_value(
                (*uid).clone(),
                attrs.0.into_iter().map(|(name, value)| (name.into(), value.into())),
                within.above,
                within.parents,
                [],
            );
            self.said.push((uid.clone(), entity));
        }
        Ok(uid)
    }

    fn said(&self, uid: &EntityUID) -> Option<&(Arc<EntityUID>, Entity)> {
        self.said.iter().find(|(known, _)| **known == *uid)
    }

    /// What lies directly in this.
    fn within(&self, parent: &Arc<EntityUID>) -> Within {
        let above = self.said(parent).into_iter().flat_map(|(_, entity)| entity.parents().cloned());
        Within { parents: [(**parent).clone()].into(), above: above.collect() }
    }

    fn server(&mut self, server: &Server) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Server", &server.name, |cast| {
            let mut attrs = Attrs::default()
                .put("name", server.name.as_str())
                .put("local", server.local)
                .put("accredited", server.accredited)
                .names("federations", server.federations.iter().map(String::as_str))
                .text_if("clearance", server.clearance.as_ref());
            if let Some(link) = &server.link {
                attrs = attrs.put("link", cast.link(link)?);
            }
            Ok((attrs, Within::default()))
        })
    }

    fn link(&mut self, link: &Link) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Link", &link.name, |_| {
            let attrs = Attrs::default()
                .put("name", link.name.as_str())
                .put("accredited", link.accredited)
                .text_if("clearance", link.clearance.as_ref());
            Ok((attrs, Within::default()))
        })
    }

    fn user(&mut self, user: &User) -> Result<Arc<EntityUID>, Unfit> {
        self.add("User", &user.id, |cast| {
            let mut attrs = Attrs::default()
                .put("id", user.id.as_str())
                .put("localpart", user.localpart())
                .put("server", cast.server(&user.server)?)
                .put("local", user.server.local)
                .put("admin", user.admin)
                .put("guest", user.guest)
                .names("roles", user.roles.iter().map(String::as_str))
                .text_if("clearance", user.clearance.as_ref());
            if let Some(device) = user.device {
                attrs = attrs.word("device", "Trust", device.as_str())?;
            }
            Ok((attrs, Within::default()))
        })
    }

    fn appservice(&mut self, appservice: &Appservice) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Appservice", &appservice.id, |_| {
            let attrs = Attrs::default()
                .put("id", appservice.id.as_str())
                .names("roles", appservice.roles.iter().map(String::as_str))
                .text_if("clearance", appservice.clearance.as_ref());
            Ok((attrs, Within::default()))
        })
    }

    fn space(&mut self, space: &Space) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Space", &space.id, |_| {
            let attrs = Attrs::default().put("id", space.id.as_str()).text_if("label", space.label.as_ref());
            Ok((attrs, Within::default()))
        })
    }

    fn room(&mut self, room: &Room) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Room", &room.id, |cast| {
            let attrs = Attrs::default()
                .put("id", room.id.as_str())
                .text_if("policy", room.policy.as_ref())
                .text_if("label", room.label.as_ref())
                .long("rank", room.rank)
                .word("encryption", "Encryption", room.encryption.as_str())?
                .put("federate", room.federate)
                .put("public", room.public)
                .put("direct", room.direct)
                .long("servers", room.servers);
            Ok(match &room.space {
                Some(space) => {
                    let space = cast.space(space)?;
                    let within = cast.within(&space);
                    (attrs.put("space", space), within)
                }
                None => (attrs, Within::default()),
            })
        })
    }

    fn event(&mut self, event: &Event) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Event", &event.id, |cast| {
            let room = cast.room(&event.room)?;
            let within = cast.within(&room);
            let attrs = Attrs::default()
                .put("type", event.r#type.as_str())
                .word("kind", "Kind", event.kind.as_str())?
                .put("room", room)
                .put("sender", cast.user(&event.sender)?)
                .text_if("label", event.label.as_ref())
                .put("has_media", event.has_media)
                .long("size", event.size);
            Ok((attrs, within))
        })
    }

    fn media(&mut self, media: &Media) -> Result<Arc<EntityUID>, Unfit> {
        self.add("Media", &media.id, |cast| {
            let attrs = Attrs::default()
                .put("id", media.id.as_str())
                .put("type", media.r#type.as_str())
                .long("size", media.size)
                .text_if("label", media.label.as_ref());
            Ok(match &media.room {
                Some(room) => {
                    let room = cast.room(room)?;
                    let within = cast.within(&room);
                    (attrs.put("room", room), within)
                }
                None => (attrs, Within::default()),
            })
        })
    }

    fn context(&mut self, context: &Context) -> Result<ast::Context, Unfit> {
        // A policy cannot ask for the beginning of a text in a set: the class of a finding stands beside it.
        let classes = context.guard.iter().filter_map(|finding| Some(finding.split_once(':')?.0));
        let findings = context.guard.iter().map(String::as_str).chain(classes);
        let mut attrs = Attrs::default()
            .put("dominates", context.dominates)
            .put("sender_dominates", context.sender_dominates)
            .put("encrypted", context.encrypted)
            .names("guard", findings)
            .long("hour", context.hour())
            .long("weekday", context.weekday())
            .word("via", "Door", context.via.as_str())?
            .word("direction", "Direction", context.direction.as_str())?
            .text_if("reason", context.reason.as_ref());
        let others = [("target", &context.target), ("second_person", &context.second_person)];
        for (name, user) in others {
            if let Some(user) = user {
                attrs = attrs.put(name, self.user(user)?);
            }
        }
        let attrs = attrs.0.into_iter().map(|(name, value)| (name.into(), value));
        Ok(ast::Context::Value(Arc::new(attrs.collect())))
    }
}

/// Keeps the two alike: the words of an enum here and in the schema.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::question::{Direction, Door, Encryption, Kind, Trust};

    #[test]
    fn the_words_of_the_schema_are_those_of_the_code() {
        let words = |name: &str| -> Vec<String> {
            let start = format!("entity {name} enum [");
            let (_, rest) = SCHEMA.split_once(&start).unwrap();
            let (list, _) = rest.split_once(']').unwrap();
            let list = list.split(',').map(|word| word.trim().trim_matches('"').to_owned());
            list.filter(|word| !word.is_empty()).collect()
        };
        let same = |name: &str, mut ours: Vec<&str>| {
            let mut theirs = words(name);
            theirs.sort();
            ours.sort_unstable();
            assert_eq!(theirs, ours, "{name}");
        };
        same("Kind", Kind::ALL.iter().map(|word| word.as_str()).collect());
        same("Encryption", Encryption::ALL.iter().map(|word| word.as_str()).collect());
        same("Trust", Trust::ALL.iter().map(|word| word.as_str()).collect());
        same("Direction", Direction::ALL.iter().map(|word| word.as_str()).collect());
        same("Door", Door::ALL.iter().map(|word| word.as_str()).collect());
        // The group of all admin.* is no action anybody asks for.
        let mut actions: Vec<_> = KNOWN.schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
        actions.retain(|action| action != "admin");
        actions.sort();
        let mut ours: Vec<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        ours.sort_unstable();
        assert_eq!(actions, ours);
        assert_eq!(KNOWN.shapes.len(), KNOWN.schema.request_envs().count());
    }
}
