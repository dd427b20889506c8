//! What other servers say about the devices of their users and to the devices of ours.

use crate::{Error, Federation};
use ruma::ServerName;
use serde_json::Value;

/// Takes an EDU about devices: `m.direct_to_device`, `m.device_list_update` or `m.signing_key_update`.
///
/// # Errors
/// The store's.
pub(crate) async fn receive(
    _federation: &Federation,
    origin: &ServerName,
    edu_type: &str,
    _content: Value,
) -> Result<(), Error> {
    tracing::debug!(%origin, edu_type, "an EDU about devices is not taken");
    Ok(())
}
