//! Telling clients what happened: `/sync`, sliding sync, and what wakes those who wait.

mod changes;
mod devices;
mod lazy;
mod room;
mod sliding;
mod token;
mod v3;
mod wake;

pub(crate) use changes::Changes;
pub(crate) use devices::shares_room;
pub use lazy::Lazy;
pub(crate) use room::Comings;
pub use sliding::Connections;
#[cfg(any(test, fuzzing))]
pub(crate) use sliding::Position;
pub(crate) use token::SyncToken;
pub use wake::Wake;

use crate::Api;
use axum::Router;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often it is checked who has stopped typing without saying so.
const TYPING_CHECK: Duration = Duration::from_millis(500);

/// The tasks that work for clients in the background.
#[derive(Debug)]
pub struct Followers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Followers {
    /// Ends them, and waits until they have.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

pub(crate) fn routes() -> Router<Api> {
    v3::routes().merge(sliding::routes())
}

/// Starts what works in the background.
pub fn start(api: &Api) -> Followers {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(wake::follow(api.graph.clone(), api.rooms.clone(), api.wake.clone(), stop.clone()));
    tasks.spawn(follow_typing(api.clone(), stop.clone()));
    Followers { tasks, stop }
}

/// Wakes those who are to see who types, and ends what nobody has ended.
async fn follow_typing(api: Api, stop: CancellationToken) {
    let mut every = tokio::time::interval(TYPING_CHECK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            rooms = api.typing.changed() => {
                for room in rooms {
                    api.wake_room(room);
                }
            }
            _ = every.tick() => {
                for (room, user) in api.typing.expire() {
                    match api.rooms.user_id(user) {
                        Ok(user) if api.rooms.is_local(&user) => api.elsewhere.typing(room, &user, false),
                        Ok(_) => {}
                        Err(error) => tracing::error!(%error, "others were not told that somebody types no more"),
                    }
                }
            }
        }
    }
}
