//! Accounts: who the users of this server are, what speaks for them, and what they keep.

mod account_data;
mod accounts;
mod dehydrated;
mod error;
mod key_backup;
mod keys;
pub mod limits;
mod passwords;
mod push;
mod pushers;
pub mod secrets;
mod sessions;
mod to_device;
mod uiaa;
mod users;

pub use account_data::{FoundUser, TypedContent};
pub use accounts::{Account, NewAccount, RegistrationToken};
pub use dehydrated::DehydratedDevice;
pub use error::Error;
pub use key_backup::{BackedUpKey, BackupScope, BackupState, BackupVersion, RoomKeys, StoredRoomKeys};
pub use keys::{
    ClaimedKeys, CrossSigningUpload, DeviceUpdate, Followed, KeyClaim, KeyQuery, KeyUpload, QueriedKeys,
    RemoteKeys, SignatureFailures, SignatureUpload, Updated, check_amount,
};
pub use passwords::Cost;
pub use push::default_push_rules;
pub use pushers::Pusher;
pub use sessions::{Device, Session, Tokens};
pub use to_device::{DeviceMessages, RemoteMessage, ToDeviceTxn};
pub use uiaa::Uiaa;
pub use users::{Settings, Users};
