//! What a thousand servers cost: what they are sent, and nothing beside.

use super::*;
use crate::outbox::queue::{Queue, work_off};

/// Servers with a user in the room.
const SERVERS: usize = 1_000;
/// Entries of the store that a message needs, whoever it is for: its own, the cursor's.
const OF_A_MESSAGE: u64 = 100;
/// Entries for each server it is sent to: into the queue and out, the transaction and its end.
const OF_A_SERVER: u64 = 4;
/// A server that is waited for may take this much memory, bytes.
const WAITING: usize = 4 << 10;

fn server(n: usize) -> OwnedServerName {
    ServerName::parse(format!("s{n}")).unwrap()
}

/// Entries of the store written and removed by what is done.
macro_rules! writes {
    ($here:expr, $done:expr) => {{
        let before = $here.graph.writes();
        $done;
        $here.graph.writes() - before
    }};
}

#[tokio::test]
async fn a_thousand_servers_cost_what_they_are_sent_and_nothing_while_they_are_sent_nothing() {
    let (dir, far) = (tempfile::tempdir().unwrap(), Arc::<Far>::default());
    let here = Here::open(&dir, &far, LATE);
    let (room, small) = (here.room().await, here.room().await);
    here.join(&small, bob()).await;
    for n in 0..SERVERS {
        here.join(&room, &UserId::parse(format!("@user:s{n}")).unwrap()).await;
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = async || {
        let last = here.graph.applied();
        eventually!(*here.outbox.0.due.followed.lock() >= last && here.is_idle());
    };
    // The first gives the servers their numbers.
    here.say(&room, "0").await;
    idle().await;
    far.got.lock().clear();
    let before = tasks();

    // All can be reached.
    for n in 1..=3 {
        let writes = writes!(here, {
            here.say(&room, &n.to_string()).await;
            idle().await;
        });
        assert_eq!(far.got.lock().len(), n * SERVERS, "one transaction each");
        assert!(writes <= OF_A_MESSAGE + OF_A_SERVER * SERVERS as u64, "{writes} entries");
    }
    assert!((0..SERVERS).all(|n| far.texts(&server(n)) == numbers(1, 4)));
    assert!(far.most_under_way.load(Relaxed) <= AT_ONCE, "more at a time");
    assert_eq!(tasks(), before, "nobody has a task who is due nothing");
    let writes = writes!(here, {
        here.say(&small, "between us").await;
        here.tell(&server(7), "one", 1).await;
        idle().await;
    });
    assert_eq!(far.got.lock().len(), 3 * SERVERS + 2);
    assert!(writes <= 2 * OF_A_MESSAGE, "{writes} entries for two transactions");

    // All but one are gone.
    far.got.lock().clear();
    far.mute.lock().extend((1..SERVERS).map(server));
    let waiting = || here.outbox.0.queues.lock().len();
    here.say(&room, "1").await;
    eventually!(far.got.lock().len() == SERVERS && waiting() == SERVERS - 1);
    for n in 2..=4 {
        let writes = writes!(here, {
            here.say(&room, &n.to_string()).await;
            eventually!(far.texts(&server(0)).len() == n && waiting() == SERVERS - 1);
        });
        assert!(writes <= OF_A_MESSAGE + SERVERS as u64 + OF_A_SERVER, "{writes} entries");
    }
    assert_eq!(far.got.lock().len(), SERVERS - 1 + 4, "whoever was not reached is left alone");
    assert_eq!(tasks(), before + SERVERS - 1, "one task each");
    let queued = here.graph.scan::<OutboxEvents, _>(&()).iter().count();
    assert_eq!(queued, 3 * (SERVERS - 1), "beside what is in their transactions");
    let queue = Arc::new(Queue::new(&server(1)));
    let size = size_of::<Queue>() + size_of_val(&work_off(here.outbox.clone(), queue));
    println!("{size} bytes for each server that is waited for");
    assert!(size <= WAITING, "{size} bytes");
    here.close().await;
}
