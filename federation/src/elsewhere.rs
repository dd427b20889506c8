//! What local users ask of other servers.

use crate::{Federation, user_keys};
use postern_web::{Elsewhere, Pending};
use ruma::ServerName;
use serde_json::Value;

impl Elsewhere for Federation {
    fn query_keys<'a>(&'a self, server: &'a ServerName, request: Value) -> Pending<'a, Value> {
        Box::pin(user_keys::query_keys(self, server, request))
    }

    fn claim_keys<'a>(&'a self, server: &'a ServerName, request: Value) -> Pending<'a, Value> {
        Box::pin(user_keys::claim_keys(self, server, request))
    }
}
