//! Queueing EDUs.

use crate::Error;
use postern_graph::{
    Commit, Graph, NameKind, Seq, ServerNum,
    codec::Raw,
    log::LogEntry,
    schema::{OutboxEdus, OutboxLatest},
};
use ruma::ServerName;
use serde_json::Value;

/// Queues an EDU (with `edu_type` and `content`) for a server, in the commit of what it tells. A new one of a kind (a
/// name of the caller's choice) takes the place of an older one that was not sent yet; what must not be lost has a
/// kind of its own. EDUs are sent in the order of their commits.
///
/// # Errors
/// The store's.
pub(crate) fn edu(
    graph: &Graph,
    commit: &mut Commit,
    server: &ServerName,
    kind: &str,
    edu: &Value,
) -> Result<(), Error> {
    edu_for_all(graph, commit, [server], kind, edu)
}

/// The same for several servers: all of it takes one sequence number of the commit.
///
/// # Errors
/// The store's.
pub(crate) fn edu_for_all<'s>(
    graph: &Graph,
    commit: &mut Commit,
    servers: impl IntoIterator<Item = &'s ServerName>,
    kind: &str,
    edu: &Value,
) -> Result<(), Error> {
    let seq = commit.take_seq();
    for server in servers {
        let server = ServerNum(graph.intern(NameKind::Server, server.as_str(), commit)?);
        put(graph, commit, (server, seq, 0), kind, edu)?;
        commit.log(LogEntry::Outbox { server });
    }
    Ok(())
}

/// Puts an EDU in its place in the queue, and the older one of its kind out of it.
pub(super) fn put(
    graph: &Graph,
    commit: &mut Commit,
    at: (ServerNum, Seq, u32),
    kind: &str,
    edu: &Value,
) -> Result<(), Error> {
    let of_kind = (at.0, kind.to_owned());
    if let Some((seq, n)) = graph.get::<OutboxLatest>(&of_kind)? {
        commit.delete::<OutboxEdus>(&(at.0, seq, n));
    }
    commit.put::<OutboxLatest>(&of_kind, &(at.1, at.2));
    commit.put::<OutboxEdus>(&at, &(kind.to_owned(), Raw(edu.to_string().into_bytes())));
    Ok(())
}
