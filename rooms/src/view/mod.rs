//! Rooms as users see them: what is visible to whom, events in the form clients get, pages of a timeline.

mod client_event;
mod pages;
mod relations;
mod visibility;

pub use client_event::{Format, Viewer};
pub use pages::{Direction, Page, Stretch, TimelineToken};
pub use relations::RelationQuery;
