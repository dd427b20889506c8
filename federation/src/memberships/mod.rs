//! Joining, knocking, leaving and inviting across servers (specification: joining rooms, inviting to a room, leaving
//! rooms, knocking upon a room, third-party invites).

mod ask;
mod serve;
mod third_party;
mod whole;

use crate::Federation;
use axum::Router;

pub(crate) fn routes() -> Router<Federation> {
    serve::routes().merge(third_party::routes())
}

pub(crate) use serve::{Invite, create_content, invited};
pub(crate) use third_party::open_routes;
