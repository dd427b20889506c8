//! What is to be sent to other servers.

use crate::Error;
use postern_graph::{Commit, Graph, codec::Raw, schema::EduOutbox};
use ruma::ServerName;
use serde_json::Value;

/// Queues an EDU (with `edu_type` and `content`) for a server, in the commit of what it tells. A new one of a kind takes
/// the place of an older one that was not sent yet.
pub(crate) fn edu(
    graph: &Graph,
    commit: &mut Commit,
    server: &ServerName,
    kind: &str,
    edu: &Value,
) -> Result<(), Error> {
    edu_for_all(graph, commit, [server], kind, edu)
}

/// The same for several servers.
pub(crate) fn edu_for_all<'s>(
    _graph: &Graph,
    commit: &mut Commit,
    servers: impl IntoIterator<Item = &'s ServerName>,
    kind: &str,
    edu: &Value,
) -> Result<(), Error> {
    for server in servers {
        let key = (server.as_str().to_owned(), kind.to_owned());
        commit.put::<EduOutbox>(&key, &Raw(edu.to_string().into_bytes()));
    }
    Ok(())
}
