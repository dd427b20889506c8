//! Which transactions of other servers were taken, so that one that comes again is not taken again.

use crate::Error;
use parking_lot::Mutex;
use postern_graph::{Commit, Graph, schema::ReceivedTransactions};
use postern_rooms::now_ms;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use std::{collections::VecDeque, sync::Arc};

/// Transactions of one server that are remembered: it repeats only its last.
const REMEMBERED: usize = 32;
/// Servers of which it is known in memory what is remembered, at most about 10 KiB each.
const SERVERS: usize = 2_000;
/// Longest id of a transaction, bytes (specification: opaque identifiers).
pub(crate) const ID_BYTES: usize = 255;

/// The ids of the transactions taken of a server, the oldest first.
type Ids = Arc<Mutex<VecDeque<String>>>;

/// The transactions that were taken.
///
/// Their ids are stored. In memory it is kept in which order those of a server came: to read that from the store is to
/// walk over all that was forgotten there.
#[derive(Debug)]
pub(crate) struct Taken {
    graph: Arc<Graph>,
    orders: Cache<OwnedServerName, Ids>,
}

impl Taken {
    pub(crate) fn new(graph: Arc<Graph>) -> Self {
        Self { graph, orders: Cache::new(SERVERS) }
    }

    /// Whether a transaction of a server was taken.
    pub(crate) fn has(&self, server: &ServerName, id: &str) -> Result<bool, Error> {
        Ok(self.graph.has::<ReceivedTransactions>(&(server.to_string(), id.to_owned()))?)
    }

    /// A transaction is taken by this commit; an old one is forgotten.
    pub(crate) fn take(&self, commit: &mut Commit, server: &ServerName, id: &str) -> Result<(), Error> {
        let order = self.orders.get_or_insert_with(server, || self.order(server))?;
        let mut order = order.lock();
        while order.len() >= REMEMBERED {
            let Some(oldest) = order.pop_front() else { break };
            commit.delete::<ReceivedTransactions>(&(server.to_string(), oldest));
        }
        order.push_back(id.to_owned());
        commit.put::<ReceivedTransactions>(&(server.to_string(), id.to_owned()), &now_ms());
        Ok(())
    }

    fn order(&self, server: &ServerName) -> Result<Ids, Error> {
        let stored = self.graph.scan::<ReceivedTransactions, _>(&(server.to_string(),));
        let mut found: Vec<_> = stored.iter().collect::<Result<_, _>>()?;
        found.sort_by_key(|(_, at)| *at);
        Ok(Arc::new(Mutex::new(found.into_iter().map(|((_, id), _)| id).collect())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scene::Parts;
    use ruma::server_name;

    fn take(taken: &Taken, server: &ServerName, ids: std::ops::Range<usize>) {
        for n in ids {
            let mut commit = taken.graph.begin();
            taken.take(&mut commit, server, &n.to_string()).unwrap();
            taken.graph.commit(commit).unwrap();
        }
    }

    #[test]
    fn the_last_transactions_of_a_server_are_remembered_and_no_more_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let graph = Parts::open(dir.path()).graph;
        let (busy, quiet) = (server_name!("b"), server_name!("c"));
        let taken = Taken::new(graph.clone());
        take(&taken, quiet, 0..1);
        take(&taken, busy, 0..100);
        let stored = || graph.scan::<ReceivedTransactions, _>(&()).iter().count();
        assert_eq!(stored(), REMEMBERED + 1);
        // What is read anew is as old as the clock says: those of one millisecond are alike.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let taken = Taken::new(graph.clone());
        take(&taken, busy, 100..110);
        assert_eq!(stored(), REMEMBERED + 1);
        for n in 100..110 {
            assert!(taken.has(busy, &n.to_string()).unwrap(), "{n}");
        }
        assert!(taken.has(quiet, "0").unwrap() && !taken.has(busy, "0").unwrap());
    }

    #[test]
    fn taking_a_transaction_writes_as_much_however_many_came_before() {
        let dir = tempfile::tempdir().unwrap();
        let graph = Parts::open(dir.path()).graph;
        let taken = Taken::new(graph.clone());
        take(&taken, server_name!("b"), 0..500);
        let before = graph.writes();
        take(&taken, server_name!("b"), 500..510);
        assert!(graph.writes() - before <= 10 * 4, "one in, one out, and the log's");
    }
}
