//! Decisions by Cedar policies.
//!
//! A caller asks a [`Question`] of a [`Decider`] and gets a [`Decision`]. What may be asked is in the schema
//! ([`SCHEMA`]); what is answered is in a [`RuleSet`]: the rail, the base that comes with Postern, and the operator's
//! policies. `docs/policies.md` is for whoever writes these.

mod decider;
pub mod limits;
mod problem;
mod question;
mod rules;
mod schema;

#[cfg(test)]
mod tests;

pub use decider::{Answer, Decider, Decision};
pub use problem::{Problem, Refused, Severity};
pub use question::{
    Action, Appservice, Context, Direction, Door, Encryption, Event, Kind, Link, Media, Principal, Question,
    Resource, Room, Server, Space, Trust, User,
};
pub use rules::{Base, Revision, Rule, RuleSet, Text, check};
pub use schema::{SCHEMA, Unfit};
