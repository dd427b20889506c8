//! What must hold of any bytes at all. The fuzz targets call this, and a test with their seeds (see `fuzz/`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(test)]
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use crate::{
    codec::{Bytes, Decode, Encode},
    schema::{Family, Visit, visit_all},
    tree::Node,
};

/// Stored bytes are a key or value of a family, or an error; what was read is written and read back the same.
pub fn codec(bytes: &[u8]) {
    struct Each<'b>(&'b [u8]);
    impl Visit for Each<'_> {
        fn visit<F: Family>(&mut self) {
            read_back::<F::Key>(F::NAME, self.0);
            read_back::<F::Value>(F::NAME, self.0);
        }
    }
    visit_all(&mut Each(bytes));
    read_back::<Node>("nodes of state maps", bytes);
}

fn read_back<T: Encode + Decode>(family: &str, bytes: &[u8]) {
    let Ok(value) = T::whole(bytes) else { return };
    let written = Bytes::of(&value);
    let Ok(again) = T::whole(&written.data) else { panic!("{family}: {:?} is not read back", written.data) };
    // Of a fraction in JSON the last digit may be another each time: serde_json reads them fast, not exactly.
    let exact = !written.data.contains(&b'.') && !written.data.contains(&b'e');
    assert!(!exact || Bytes::of(&again).data == written.data, "{family}: {:?}", written.data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_a_key_or_value_or_an_error() {
        seeds::near("codec", codec);
    }
}
