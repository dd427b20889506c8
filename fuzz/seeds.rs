//! The seeds of a fuzz target and what is close to them, for tests that are quick and always the same.

use std::path::Path;

/// Larger seeds are cut and damaged at this many places only.
const PLACES: usize = 200;

/// Calls `check` with every seed of `target`, with its beginnings, and with each of its bytes damaged in turn.
pub fn near(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut seeds = 0;
    for seed in std::fs::read_dir(&folder).unwrap() {
        let seed = std::fs::read(seed.unwrap().path()).unwrap();
        check(&seed);
        for at in (0..seed.len()).step_by(seed.len() / PLACES + 1) {
            check(&seed[..at]);
            for damage in [0x01, 0x80, 0xff] {
                let mut damaged = seed.clone();
                damaged[at] ^= damage;
                check(&damaged);
            }
        }
        seeds += 1;
    }
    assert!(seeds > 0, "{} is empty", folder.display());
}
