//! What other servers are due.

use super::Doctor;
use crate::{
    codec::Raw,
    error::Error,
    ids::{EventNum, ServerNum},
    intern::Kind,
    schema::{EventJson, EventRecords, OutboxEdus, OutboxEvents, OutboxLatest, OutboxTransactions, Relayed},
};
use serde::{Deserialize, de::IgnoredAny};
use std::collections::HashSet;

/// What an EDU has for certain.
#[derive(Deserialize)]
struct Edu {
    #[serde(rename = "edu_type")]
    _edu_type: String,
}

impl Doctor {
    /// Queues are of servers that have a name, and have only what can be sent.
    pub(super) fn outbox(&mut self) {
        let mut nameless = HashSet::new();
        self.each::<OutboxEvents>(|doctor, (server, seq), (event, _)| {
            doctor.has_name(server, &mut nameless);
            let what = format!("at {} of the queue of {}", seq.0, doctor.server(server));
            doctor.is_there(event, &what)
        });
        self.each::<Relayed>(|doctor, (event,), ()| doctor.is_there(event, "that is to be passed on"));
        self.each::<OutboxEdus>(|doctor, (server, seq, n), (_, Raw(edu))| {
            doctor.has_name(server, &mut nameless);
            if let Err(error) = serde_json::from_slice::<Edu>(&edu) {
                let server = doctor.server(server);
                doctor.say(format!("The EDU at {}.{n} of the queue of {server} is none: {error}.", seq.0));
            }
            Ok(())
        });
        self.each::<OutboxLatest>(|doctor, (server, kind), (seq, n)| {
            doctor.has_name(server, &mut nameless);
            let edu = doctor.graph.get::<OutboxEdus>(&(server, seq, n))?;
            if edu.is_none_or(|(found, _)| found != kind) {
                let server = doctor.server(server);
                doctor.say(format!(
                    "The latest EDU {kind:?} of the queue of {server} is not at {}.{n}, where it should be.",
                    seq.0
                ));
            }
            Ok(())
        });
        self.each::<OutboxTransactions>(|doctor, (server,), (id, Raw(body))| {
            doctor.has_name(server, &mut nameless);
            if let Err(error) = serde_json::from_slice::<IgnoredAny>(&body) {
                let server = doctor.server(server);
                doctor.say(format!("Transaction {id:?} to {server} is no JSON: {error}."));
            }
            Ok(())
        });
    }

    fn server(&self, server: ServerNum) -> String {
        self.named(Kind::Server, server.0, "server")
    }

    fn has_name(&mut self, server: ServerNum, nameless: &mut HashSet<ServerNum>) {
        if self.graph.name(Kind::Server, server.0).is_err() && nameless.insert(server) {
            self.say(format!("Something is queued for server {}, which has no name.", server.0));
        }
    }

    fn is_there(&mut self, event: EventNum, what: &str) -> Result<(), Error> {
        let (record, json) =
            (self.graph.has::<EventRecords>(&(event,))?, self.graph.has::<EventJson>(&(event,))?);
        for missing in [(!record).then_some("record"), (!json).then_some("JSON")].into_iter().flatten() {
            let event = self.event(event);
            self.say(format!("The {event} {what} has no {missing}."));
        }
        Ok(())
    }
}
