//! A one-way diode: bundles over UDP to where nothing can answer.
//!
//! A bundle is cut into blocks, and each block is sent as RaptorQ symbols (RFC 6330): any `k` of them, and rarely one or two
//! more, give the block back, whichever were lost. The sender goes over each bundle several times, with other symbols each
//! time, and over the last keyframe whenever there is nothing else to do. Each datagram is authenticated by itself: a
//! forged symbol would spoil a whole block. The receiver puts complete bundles into a spool and knows exactly which
//! ones are missing.
//!
//! Cutting and putting together ([`Sender`], [`Receiver`]) know nothing of sockets; [`send`] and [`receive`] do.

mod blocks;
mod ledger;
mod packet;
mod receiver;
mod sender;
mod socket;

pub use blocks::Settings;
pub use packet::{DiodeKey, HEADER, Packet, Refused, TAG};
pub use receiver::{Outcome, Receiver, ReceiverError, Statistics};
pub use sender::{Pacer, Sender};
pub use socket::{receive, send};

#[cfg(test)]
mod tests;
