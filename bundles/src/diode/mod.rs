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

/// Any bytes as a datagram, and as symbols of one block that pass for authentic: the first byte is `k`, the second the length of a
/// symbol, and each symbol has its number before it.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(packet) = Packet::read(bytes) {
        _ = blocks::IncomingBlock::new(&packet, &[0; 64]);
    }
    let [k, length, symbols @ ..] = bytes else { return };
    let place = crate::Place { link: crate::LinkId([1; 8]), epoch: 1, seq: 1 };
    let packet = |esi| Packet { place, block: u16::from(*k >> 7), esi, k: u16::from(*k & 0x1f) + 1 };
    let length = usize::from(*length & 0x3f) + 1;
    let Ok(mut block) = blocks::IncomingBlock::new(&packet(0), &vec![0; length]) else { return };
    for symbol in symbols.chunks_exact(length + 3) {
        let [a, b, c, symbol @ ..] = symbol else { return };
        if !matches!(block.add(&packet(u32::from_be_bytes([0, *a, *b, *c])), symbol), Ok(None)) {
            return;
        }
    }
}
