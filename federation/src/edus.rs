//! stand-in
use crate::Federation;
use ruma::ServerName;
use serde::Deserialize;
use serde_json::Value;
#[derive(Debug, Deserialize)]
pub(crate) struct Edu {
    #[serde(rename = "edu_type")]
    pub(crate) _kind: String,
    #[serde(rename = "content")]
    pub(crate) _content: Value,
}
pub(crate) async fn receive(_: &Federation, _: &ServerName, _: Edu) {}
