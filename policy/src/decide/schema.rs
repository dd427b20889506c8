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
use cedar_policy::{
    Context as CedarContext, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression, Schema,
};
use std::{
    collections::{HashMap, HashSet, hash_map},
    str::FromStr,
    sync::LazyLock,
};

/// The schema as text.
pub const SCHEMA: &str = include_str!("../../policies/postern.cedarschema");

/// What is derived from the schema once.
pub(super) struct Known {
    pub schema: Schema,
    types: HashMap<&'static str, EntityTypeName>,
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
        .map(|name| (name, EntityTypeName::from_str(name).expect("a name of a type")))
        .collect();
    let entities = schema.action_entities().expect("the actions of the schema");
    let actions = Action::ALL
        .iter()
        .map(|action| {
            let uid = format!("Action::\"{action}\"").parse().expect("a name of an action");
            (*action, entities.get(&uid).expect("an action of the schema").clone())
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

impl Unfit {
    fn cedar(error: impl std::fmt::Display) -> Self {
        Self::Cedar(error.to_string())
    }
}

/// A question as Cedar has it.
pub(super) struct Asked {
    pub request: Request,
    pub entities: Entities,
}

impl Asked {
    /// # Errors
    /// Where the schema has no such question: this action is not for such a principal or resource.
    pub fn of(question: &Question) -> Result<Self, Unfit> {
        if !question.is_bounded() {
            return Err(Unfit::TooMany);
        }
        let mut known = Cast { said: HashMap::with_capacity(8) };
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
        let request = Request::new(principal, action.uid(), resource, context, Some(&KNOWN.schema))
            .map_err(Unfit::cedar)?;
        let entities = known.said.into_values().chain([action.clone()]);
        let entities = Entities::from_entities(entities, None).map_err(Unfit::cedar)?;
        Ok(Self { request, entities })
    }
}

fn uid(of: &str, id: &str) -> Result<EntityUid, Unfit> {
    let of = KNOWN.types.get(of).ok_or_else(|| Unfit::Cedar(format!("no type {of}")))?;
    Ok(EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id)))
}

/// The attributes of an entity, as they are put together.
#[derive(Default)]
struct Attrs(Vec<(String, RestrictedExpression)>);

impl Attrs {
    fn put(mut self, name: &str, value: RestrictedExpression) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        self.put(name, RestrictedExpression::new_string(value.to_owned()))
    }

    fn text_if(self, name: &str, value: Option<&String>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    fn bool(self, name: &str, value: bool) -> Self {
        self.put(name, RestrictedExpression::new_bool(value))
    }

    fn long(self, name: &str, value: impl TryInto<i64>) -> Self {
        self.put(name, RestrictedExpression::new_long(value.try_into().unwrap_or(i64::MAX)))
    }

    fn names<'n>(self, name: &str, values: impl IntoIterator<Item = &'n str>) -> Self {
        let values = values.into_iter().map(|value| RestrictedExpression::new_string(value.to_owned()));
        self.put(name, RestrictedExpression::new_set(values))
    }

    fn entity(self, name: &str, value: EntityUid) -> Self {
        self.put(name, RestrictedExpression::new_entity_uid(value))
    }

    fn word(self, name: &str, of: &str, value: &str) -> Result<Self, Unfit> {
        Ok(self.entity(name, uid(of, value)?))
    }
}

/// The entities a question names.
struct Cast {
    said: HashMap<EntityUid, Entity>,
}

impl Cast {
    /// Takes in what is said of an entity, unless something was said of it before.
    fn add(
        &mut self,
        of: &str,
        id: &str,
        say: impl FnOnce(&mut Self) -> Result<(Attrs, Option<EntityUid>), Unfit>,
    ) -> Result<EntityUid, Unfit> {
        let uid = uid(of, id)?;
        if self.said.contains_key(&uid) {
            return Ok(uid);
        }
        let (attrs, parent) = say(self)?;
        if let hash_map::Entry::Vacant(place) = self.said.entry(uid.clone()) {
            let attrs = attrs.0.into_iter().collect();
            let parents = parent.into_iter().collect::<HashSet<_>>();
            place.insert(Entity::new(uid.clone(), attrs, parents).map_err(Unfit::cedar)?);
        }
        Ok(uid)
    }

    fn server(&mut self, server: &Server) -> Result<EntityUid, Unfit> {
        self.add("Server", &server.name, |cast| {
            let mut attrs = Attrs::default()
                .text("name", &server.name)
                .bool("local", server.local)
                .bool("accredited", server.accredited)
                .names("federations", server.federations.iter().map(String::as_str))
                .text_if("clearance", server.clearance.as_ref());
            if let Some(link) = &server.link {
                attrs = attrs.entity("link", cast.link(link)?);
            }
            Ok((attrs, None))
        })
    }

    fn link(&mut self, link: &Link) -> Result<EntityUid, Unfit> {
        self.add("Link", &link.name, |_| {
            let attrs = Attrs::default()
                .text("name", &link.name)
                .bool("accredited", link.accredited)
                .text_if("clearance", link.clearance.as_ref());
            Ok((attrs, None))
        })
    }

    fn user(&mut self, user: &User) -> Result<EntityUid, Unfit> {
        self.add("User", &user.id, |cast| {
            let mut attrs = Attrs::default()
                .text("id", &user.id)
                .text("localpart", user.localpart())
                .entity("server", cast.server(&user.server)?)
                .bool("local", user.server.local)
                .bool("admin", user.admin)
                .bool("guest", user.guest)
                .names("roles", user.roles.iter().map(String::as_str))
                .text_if("clearance", user.clearance.as_ref());
            if let Some(device) = user.device {
                attrs = attrs.word("device", "Trust", device.as_str())?;
            }
            Ok((attrs, None))
        })
    }

    fn appservice(&mut self, appservice: &Appservice) -> Result<EntityUid, Unfit> {
        self.add("Appservice", &appservice.id, |_| {
            let attrs = Attrs::default()
                .text("id", &appservice.id)
                .names("roles", appservice.roles.iter().map(String::as_str))
                .text_if("clearance", appservice.clearance.as_ref());
            Ok((attrs, None))
        })
    }

    fn space(&mut self, space: &Space) -> Result<EntityUid, Unfit> {
        self.add("Space", &space.id, |_| {
            Ok((Attrs::default().text("id", &space.id).text_if("label", space.label.as_ref()), None))
        })
    }

    fn room(&mut self, room: &Room) -> Result<EntityUid, Unfit> {
        self.add("Room", &room.id, |cast| {
            let mut attrs = Attrs::default()
                .text("id", &room.id)
                .text_if("policy", room.policy.as_ref())
                .text_if("label", room.label.as_ref())
                .long("rank", room.rank)
                .word("encryption", "Encryption", room.encryption.as_str())?
                .bool("federate", room.federate)
                .bool("public", room.public)
                .bool("direct", room.direct)
                .long("servers", room.servers);
            let space = room.space.as_deref().map(|space| cast.space(space)).transpose()?;
            if let Some(space) = &space {
                attrs = attrs.entity("space", space.clone());
            }
            Ok((attrs, space))
        })
    }

    fn event(&mut self, event: &Event) -> Result<EntityUid, Unfit> {
        self.add("Event", &event.id, |cast| {
            let room = cast.room(&event.room)?;
            let attrs = Attrs::default()
                .text("type", &event.r#type)
                .word("kind", "Kind", event.kind.as_str())?
                .entity("room", room.clone())
                .entity("sender", cast.user(&event.sender)?)
                .text_if("label", event.label.as_ref())
                .bool("has_media", event.has_media)
                .long("size", event.size);
            Ok((attrs, Some(room)))
        })
    }

    fn media(&mut self, media: &Media) -> Result<EntityUid, Unfit> {
        self.add("Media", &media.id, |cast| {
            let mut attrs = Attrs::default()
                .text("id", &media.id)
                .text("type", &media.r#type)
                .long("size", media.size)
                .text_if("label", media.label.as_ref());
            let room = media.room.as_deref().map(|room| cast.room(room)).transpose()?;
            if let Some(room) = &room {
                attrs = attrs.entity("room", room.clone());
            }
            Ok((attrs, room))
        })
    }

    fn context(&mut self, context: &Context) -> Result<CedarContext, Unfit> {
        // A policy cannot ask for the beginning of a text in a set: the class of a finding stands beside it.
        let classes = context.guard.iter().filter_map(|finding| Some(finding.split_once(':')?.0));
        let findings = context.guard.iter().map(String::as_str).chain(classes);
        let mut attrs = Attrs::default()
            .bool("dominates", context.dominates)
            .bool("sender_dominates", context.sender_dominates)
            .bool("encrypted", context.encrypted)
            .names("guard", findings)
            .long("hour", context.hour())
            .long("weekday", context.weekday())
            .word("via", "Door", context.via.as_str())?
            .word("direction", "Direction", context.direction.as_str())?
            .text_if("reason", context.reason.as_ref());
        let others = [("target", &context.target), ("second_person", &context.second_person)];
        for (name, user) in others {
            if let Some(user) = user {
                attrs = attrs.entity(name, self.user(user)?);
            }
        }
        CedarContext::from_pairs(attrs.0).map_err(Unfit::cedar)
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
