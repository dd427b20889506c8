//! Decisions by Cedar policies.
//!
//! A caller asks a [`Question`] of a [`Decider`] and gets a [`Decision`]. What may be asked is in the schema
//! ([`SCHEMA`]); what is answered is in a [`RuleSet`]: the rail, the base that comes with Postern, and the operator's
//! policies. `docs/policies.md` is for whoever writes these.

mod bundle;
mod cases;
mod decider;
mod depth;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod limits;
mod problem;
mod question;
mod recorded;
mod rules;
mod schema;
mod sources;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use bundle::{Accepted, Bundle, BundleError, Digest256, FORMAT, Keys, Verified, public_key};
pub use cases::{Case, CaseResult, Cases, CasesError, Expect};
pub use decider::{Answer, Decider, Decision};
pub use explain::{Explanation, Outcome, RuleReport};
pub use problem::{Problem, Refused, Severity};
pub use question::{
    Action, Appservice, Context, Direction, Door, Encryption, Event, Kind, Link, Media, Principal, Question,
    Resource, Room, Server, Space, Trust, User,
};
pub use recorded::{Change, RecordError, Recorded, Replay, diff, replay};
pub use rules::{Base, Revision, Rule, RuleSet, Text, check};
pub use schema::{SCHEMA, Unfit};
pub use sources::{BUNDLE_ENDING, Handed, Loaded, Sources, TEXT_ENDING, read};
pub(crate) use sources::{read_bounded, read_one};
