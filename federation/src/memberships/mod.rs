//! Joining, knocking, leaving and inviting across servers (specification: joining rooms, inviting to a room, leaving
//! rooms, knocking upon a room).

mod ask;
mod serve;
mod whole;

pub(crate) use serve::routes;
