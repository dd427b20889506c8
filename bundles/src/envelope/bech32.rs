//! Bech32 as in BIP 173, without its limit on length: how age writes its keys.

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let shifted = (sum & 0x1ff_ffff) << 5 ^ u32::from(value);
        let taps = GENERATOR.iter().enumerate().filter(|(bit, _)| sum >> 25 >> bit & 1 == 1);
        taps.fold(shifted, |sum, (_, tap)| sum ^ tap)
    })
}

fn expanded(prefix: &str) -> impl Iterator<Item = u8> {
    prefix.bytes().map(|byte| byte >> 5).chain([0]).chain(prefix.bytes().map(|byte| byte & 31))
}

/// 32 bytes under a lower-case `prefix`.
pub fn encode(prefix: &str, bytes: &[u8; 32]) -> String {
    let mut values: Vec<u8> = (0..52).map(|at| five_bits(bytes, at * 5)).collect();
    let sum = polymod(expanded(prefix).chain(values.iter().copied()).chain([0; CHECKSUM])) ^ 1;
    values.extend((0..CHECKSUM).rev().map(|at| (sum >> (5 * at) & 31) as u8));
    let text = values.iter().map(|value| char::from(CHARSET[usize::from(value & 31)]));
    prefix.chars().chain(['1']).chain(text).collect()
}

/// Five bits of `bytes` from bit `at` on; beyond the end they are zero.
fn five_bits(bytes: &[u8; 32], at: usize) -> u8 {
    let byte = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(0));
    let two = byte(at / 8) << 8 | byte(at / 8 + 1);
    (two >> (11 - at % 8) & 31) as u8
}

/// The 32 bytes under a lower-case `prefix`. `None` if it is another prefix or length, or the checksum does not fit.
pub fn decode(prefix: &str, text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
    {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let data = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let value =
        |byte| CHARSET.iter().position(|other| *other == byte).and_then(|value| u8::try_from(value).ok());
    let values: Vec<u8> = data.bytes().map(value).collect::<Option<_>>()?;
    if values.len() != 52 + CHECKSUM || polymod(expanded(prefix).chain(values.iter().copied())) != 1 {
        return None;
    }
    let mut bytes = [0_u8; 32];
    let (mut held, mut bits, mut filled) = (0_u32, 0, bytes.iter_mut());
    for value in values.iter().take(52) {
        held = (held << 5 | u32::from(*value)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *filled.next()? = (held >> bits & 0xff) as u8;
        }
    }
    (held & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_are_read_as_they_are_written_and_a_typing_error_is_seen(bytes: [u8; 32], at in 4..62_usize, other in 0..32_usize) {
            let text = encode("age", &bytes);
            prop_assert_eq!(decode("age", &text), Some(bytes));
            prop_assert_eq!(decode("age", &text.to_uppercase()), Some(bytes));
            let mut wrong = text.clone().into_bytes();
            if wrong[at] != CHARSET[other] {
                wrong[at] = CHARSET[other];
                prop_assert_eq!(decode("age", std::str::from_utf8(&wrong).unwrap()), None);
            }
        }
    }
}
