//! Blocks: how a bundle is cut, and how it is put together again.
//!
//! A block begins with where its bytes lie in the bundle (64 bits), how many these are (32 bits) and how long the whole
//! bundle is (64 bits), all big-endian; then the bytes, then zeros up to a whole number of symbols. So
//! whoever has one block knows the size of everything.

use std::collections::HashSet;
use std::io::{self, Read};

use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, PayloadId, SourceBlockDecoder, SourceBlockEncoder,
};

use super::packet::{HEADER, Packet, Refused, TAG};
use crate::limits;

/// Bytes at the beginning of a block.
const FRONT: usize = 8 + 4 + 8;
/// Symbols have numbers of 24 bits.
const SYMBOL_NUMBERS: u32 = 1 << 24;

/// How a diode is used. Both ends need not agree: a receiver takes what comes, within its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a symbol. With 48 more it is a datagram: 1,280 fit everywhere, 8,900 need jumbo frames.
    pub symbol_bytes: u16,
    /// Source symbols of a block, at most [`limits::BLOCK_SYMBOLS`].
    pub block_symbols: u16,
    /// Symbols sent in addition in each pass, per cent. What is lost, and ten more.
    pub repair_percent: u16,
    /// How often each bundle is sent.
    pub passes: u16,
    /// What the line takes, bits per second: 80 to 90 per cent of its rate.
    pub bits_per_second: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            symbol_bytes: 1_280,
            block_symbols: 1_000,
            repair_percent: 25,
            passes: 2,
            bits_per_second: 80_000_000,
        }
    }
}

impl Settings {
    /// The same with every value in its bounds.
    pub(super) fn bounded(self) -> Self {
        let most = (limits::DATAGRAM_BYTES - HEADER - TAG) as u16;
        Self {
            symbol_bytes: self.symbol_bytes.clamp(64, most) & !7,
            block_symbols: self.block_symbols.clamp(1, limits::BLOCK_SYMBOLS),
            repair_percent: self.repair_percent.min(1_000),
            passes: self.passes.max(1),
            bits_per_second: self.bits_per_second.max(1_000),
        }
    }

    /// Bytes of a bundle in one block.
    pub(super) fn block_bytes(&self) -> usize {
        usize::from(self.block_symbols) * usize::from(self.symbol_bytes) - FRONT
    }

    /// The longest bundle that these settings can send, bytes.
    pub fn most_bytes(&self) -> u64 {
        self.bounded().block_bytes() as u64 * limits::BLOCKS
    }
}

fn configuration(symbol_bytes: u16, k: u16) -> ObjectTransmissionInformation {
    let bytes = u64::from(symbol_bytes) * u64::from(k);
    ObjectTransmissionInformation::new(bytes, symbol_bytes, 1, 1, 1)
}

/// A block, ready to be sent in any number of symbols.
pub(super) struct EncodedBlock {
    pub number: u16,
    pub k: u16,
    encoder: SourceBlockEncoder,
}

impl EncodedBlock {
    /// Reads the next block of a bundle of `total` bytes, which begins at byte `offset`.
    pub fn read(from: &mut impl Read, offset: u64, total: u64, settings: &Settings) -> io::Result<Self> {
        let symbol = usize::from(settings.symbol_bytes);
        let len = total.saturating_sub(offset).min(settings.block_bytes() as u64) as usize;
        let mut bytes = Vec::with_capacity(settings.block_bytes() + FRONT);
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&(len as u32).to_be_bytes());
        bytes.extend_from_slice(&total.to_be_bytes());
        let read = from.take(len as u64).read_to_end(&mut bytes)?;
        if read < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let k = bytes.len().div_ceil(symbol);
        bytes.resize(k * symbol, 0);
        let k = u16::try_from(k).map_err(io::Error::other)?;
        let number = u16::try_from(offset / settings.block_bytes() as u64).map_err(io::Error::other)?;
        let encoder = SourceBlockEncoder::new(0, &configuration(settings.symbol_bytes, k), &bytes);
        Ok(Self { number, k, encoder })
    }

    /// The symbols of one pass: in the first those of the block itself and some more, later ones that were not sent before.
    pub fn symbols(&self, pass: u32, repair_percent: u16) -> Vec<EncodingPacket> {
        let k = u32::from(self.k);
        let repair = (k * u32::from(repair_percent)).div_ceil(100);
        if pass == 0 {
            let mut symbols = self.encoder.source_packets();
            symbols.extend(self.encoder.repair_packets(0, repair));
            return symbols;
        }
        let each = k + repair;
        let passes = (SYMBOL_NUMBERS - k - repair) / each;
        self.encoder.repair_packets(repair + (pass - 1) % passes.max(1) * each, each)
    }
}

/// Bytes of a bundle, and where they lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: u64,
    pub total: u64,
    /// Bytes of each block but the last.
    pub step: u64,
    pub bytes: Vec<u8>,
}

/// A block that symbols come in for.
pub(super) struct IncomingBlock {
    k: u16,
    symbol_bytes: usize,
    decoder: SourceBlockDecoder,
    /// Numbers of the symbols that came.
    symbols: HashSet<u32>,
    /// When the last symbol came, in datagrams received: for finding the one that waits longest.
    pub touched: u64,
}

impl IncomingBlock {
    pub fn new(packet: &Packet, symbol: &[u8]) -> Result<Self, Refused> {
        if packet.k > limits::BLOCK_SYMBOLS || symbol.is_empty() {
            return Err(Refused::Size);
        }
        let symbol_bytes = u16::try_from(symbol.len()).map_err(|_| Refused::Size)?;
        let configuration = configuration(symbol_bytes, packet.k);
        let decoder = SourceBlockDecoder::new(0, &configuration, configuration.transfer_length());
        Ok(Self { k: packet.k, symbol_bytes: symbol.len(), decoder, symbols: HashSet::new(), touched: 0 })
    }

    /// Bytes held for it.
    pub fn held(&self) -> usize {
        self.symbols.len() * self.symbol_bytes
    }

    /// Whether a symbol is of this block, cut as it is here.
    pub fn is_of(&self, packet: &Packet, symbol: &[u8]) -> bool {
        packet.k == self.k && symbol.len() == self.symbol_bytes
    }

    /// Takes a symbol in that [`IncomingBlock::is_of`] this block, and gives the block when it is complete.
    pub fn add(&mut self, packet: &Packet, symbol: &[u8]) -> Result<Option<Piece>, Refused> {
        // Four times as many as are needed give no block: what came was not made by one sender.
        if self.symbols.len() > usize::from(self.k) * 4 {
            return Err(Refused::Contradiction);
        }
        if !self.symbols.insert(packet.esi) {
            return Ok(None);
        }
        let symbol = EncodingPacket::new(PayloadId::new(0, packet.esi), symbol.to_vec());
        self.decoder.decode([symbol]).map(|block| piece(packet.block, &block)).transpose()
    }
}

fn piece(number: u16, block: &[u8]) -> Result<Piece, Refused> {
    let read = || {
        let (offset, rest) = block.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (total, rest) = rest.split_first_chunk()?;
        let bytes = rest.get(..u32::from_be_bytes(*len) as usize)?.to_vec();
        let (offset, total) = (u64::from_be_bytes(*offset), u64::from_be_bytes(*total));
        // All blocks but the last have as many bytes as this one lies behind the first for each block before it.
        let step = match number {
            0 => bytes.len() as u64,
            number => offset / u64::from(number),
        };
        let piece = Piece { offset, total, step, bytes };
        let regular = step > 0 && offset == step * u64::from(number);
        (regular && piece.bytes.len() as u64 == step.min(total.checked_sub(offset)?)).then_some(piece)
    };
    read().ok_or(Refused::Size)
}
