//! Accounts: who the users of this server are, what speaks for them, and what they keep.

mod account_data;
mod accounts;
mod error;
pub mod limits;
mod passwords;
mod push;
pub mod secrets;
mod sessions;
mod uiaa;
mod users;

pub use account_data::TypedContent;
pub use accounts::{Account, NewAccount, RegistrationToken};
pub use error::Error;
pub use passwords::Cost;
pub use sessions::{Device, Session, Tokens};
pub use uiaa::Uiaa;
pub use users::{Settings, Users};
