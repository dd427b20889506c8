//! Crockford's base 32: letters and digits that are not mistaken for one another when a person copies them.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The characters of `bytes`: five bits each, most significant first, zeros after the last.
pub fn encode(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

/// The bytes of `text`. Case does not matter, `O` reads as 0, `I` and `L` as 1; hyphens and white space are skipped.
/// `None` if another character stands in it, or it ends in bits that no encoding ends in.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for character in text.chars().filter(|character| *character != '-' && !character.is_whitespace()) {
        let value = match character.to_ascii_uppercase() {
            'O' => 0,
            'I' | 'L' => 1,
            character => ALPHABET.iter().position(|digit| char::from(*digit) == character)?,
        };
        held = (held << 5 | u32::try_from(value).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    let unused = held & ((1 << bits) - 1);
    (bits < 5 && unused == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_looks_alike_reads_alike() {
        assert_eq!(encode(&[0, 0, 1]), "00002");
        assert_eq!(decode("oO0-0 2"), Some(vec![0, 0, 1]));
        assert_eq!(decode("0000U"), None);
    }

    proptest! {
        #[test]
        fn bytes_are_read_as_they_are_written(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(decode(&encode(&bytes).to_lowercase()), Some(bytes));
        }
    }
}
