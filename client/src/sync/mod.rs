//! Telling clients what happened: `/sync`, sliding sync, and what wakes those who wait.

mod changes;
mod devices;
mod lazy;
mod room;
mod sliding;
mod token;
mod typing;
mod unread;
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
pub use typing::Typing;
pub use unread::Unread;
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
    tasks.spawn(expire_typing(api.clone(), stop.clone()));
    Followers { tasks, stop }
}

async fn expire_typing(api: Api, stop: CancellationToken) {
    let mut every = tokio::time::interval(TYPING_CHECK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for room in api.typing.expire() {
            api.wake_room(room);
        }
    }
}
