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

/// The first symbol of a block, and the first one beyond it, for the vectors.
#[cfg(test)]
pub(crate) fn vector_datagrams(key: &DiodeKey, place: crate::Place, bundle: &[u8]) -> [Vec<u8>; 2] {
    let settings = Settings { symbol_bytes: 64, block_symbols: 20, ..Settings::default() };
    let block = blocks::EncodedBlock::read(&mut &bundle[..], 0, bundle.len() as u64, &settings).unwrap();
    let symbols = block.symbols(0, 25);
    let symbol = |at: usize| {
        let (id, bytes) = symbols[at].clone().split();
        let packet = Packet { place, block: block.number, esi: id.encoding_symbol_id(), k: block.k };
        packet.encode(&bytes, &key.of(place.link, place.epoch))
    };
    [symbol(0), symbol(usize::from(block.k))]
}
