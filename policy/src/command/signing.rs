//! Keys, and bundles that are signed with them.

use super::{Exit, Failure, KeyArgs, file};
use crate::decide::{
    Accepted, Base, Bundle, Handed, Keys, RuleSet, Text, limits, public_key, read, read_bounded,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use ed25519_dalek::SigningKey;
use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Of a file with a private key, in bytes: 43 of base64, and space around it.
const LARGEST_SECRET: usize = 256;

pub(super) fn make_key(path: &Path, out: &mut dyn Write) -> Result<Exit, Failure> {
    let seed = Zeroizing::new(rand::random::<[u8; 32]>());
    let mut options = OpenOptions::new();
    let mut written =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(|error| file(path, error))?;
    let text = Zeroizing::new(format!("{}\n", BASE64.encode(*seed)));
    written
        .write_all(text.as_bytes())
        .and_then(|()| written.sync_all())
        .map_err(|error| file(path, error))?;
    writeln!(out, "{}", public_key(&SigningKey::from_bytes(&seed)))?;
    Ok(Exit::Fine)
}

pub(super) fn sign(
    source: &Path,
    secret: &Path,
    id: &str,
    after: Option<&Path>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let key = secret_key(secret)?;
    let mut bundle = if source.is_dir() {
        let mut texts = Vec::new();
        for one in read(source)? {
            match one {
                Handed::Text(text) => texts.push(text),
                Handed::Bundle { name, .. } => {
                    return Err(file(
                        &source.join(name),
                        "a bundle among policies: move it away, or sign it alone",
                    ));
                }
            }
        }
        // Whatever base it is used with, the policies themselves must be valid.
        RuleSet::build(Base::Open, &texts)?;
        let before = after.map(bundle_in).transpose()?;
        let version = before.as_ref().map_or(1, |before| before.version.saturating_add(1));
        Bundle::new(version, now(), before.map(|before| before.digest()), texts)
    } else if after.is_some() {
        return Err(file(source, "a bundle says already what it follows"));
    } else {
        bundle_in(source)?
    };
    bundle.sign(id, &key).map_err(|error| file(source, error))?;
    writeln!(out, "{}", bundle.to_json())?;
    Ok(Exit::Fine)
}

pub(super) fn verify(
    path: &Path,
    keys: &KeyArgs,
    after: Option<&Path>,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let keys = parse_keys(keys)?;
    let last = after.map(bundle_in).transpose()?;
    let last = last.map(|last| Accepted { version: last.version, digest: last.digest() });
    let bundle = bundle_in(path)?;
    match bundle.verify(&keys, last.as_ref()) {
        Ok(verified) => {
            let Accepted { version, digest } = verified.accepted();
            writeln!(out, "valid: version {version}, {digest}, signed by {}", verified.signers().join(", "))?;
            for Text { name, text } in verified.texts() {
                writeln!(out, "  {name}, {} bytes", text.len())?;
            }
            Ok(Exit::Fine)
        }
        Err(error) => {
            writeln!(out, "refused: {error}")?;
            Ok(Exit::Found)
        }
    }
}

pub(super) fn parse_keys(args: &KeyArgs) -> Result<Keys, Failure> {
    let mut keys = Vec::new();
    for given in &args.keys {
        let key = given.split_once('=');
        keys.push(key.ok_or_else(|| Failure::Key(format!("{given:?} is not ed25519:NAME=BASE64")))?);
    }
    Keys::new(keys, args.keys_needed).map_err(|error| Failure::Key(error.to_string()))
}

fn bundle_in(path: &Path) -> Result<Bundle, Failure> {
    let json = read_bounded(path, limits::LARGEST_BUNDLE).map_err(|reason| file(path, reason))?;
    Bundle::parse(&json).map_err(|error| file(path, error))
}

fn secret_key(path: &Path) -> Result<SigningKey, Failure> {
    let text = Zeroizing::new(read_bounded(path, LARGEST_SECRET).map_err(|reason| file(path, reason))?);
    let seed = Zeroizing::new(BASE64.decode(text.trim_ascii()).unwrap_or_default());
    let seed: &[u8; 32] =
        seed.as_slice().try_into().map_err(|_| file(path, "a private key is 32 bytes in unpadded base64"))?;
    Ok(SigningKey::from_bytes(seed))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::{directory, policy, put};

    #[test]
    fn a_bundle_is_signed_by_two_verified_and_followed() {
        let directory = directory();
        let at = directory.path();
        let key = |name: &str| {
            let (exit, public) = policy(at, &format!("key @{name}.key"), "");
            assert_eq!(exit, Exit::Fine);
            format!("--key ed25519:{name}={}", public.trim())
        };
        let keys = format!("{} {} --keys-needed 2", key("one"), key("two"));
        assert_eq!(policy(at, "key @one.key", "").0, Exit::Failed, "a key is not overwritten");
        let sign = |line: &str, file: &str| {
            let (exit, said) = policy(at, line, "");
            assert_eq!(exit, Exit::Fine, "{said}");
            put(at, file, &said);
        };
        sign("sign @site --secret @one.key --id ed25519:one", "v1.bundle.json");
        let (exit, said) = policy(at, &format!("verify @v1.bundle.json {keys}"), "");
        assert!(exit == Exit::Found && said.contains("1 of the configured keys signed it; 2 must"), "{said}");
        sign("sign @v1.bundle.json --secret @two.key --id ed25519:two", "v1.bundle.json");
        let (exit, said) = policy(at, &format!("check @v1.bundle.json --require-signed {keys}"), "");
        assert!(exit == Exit::Fine && said.contains("bundle version 1"), "{said}");
        sign("sign @site --secret @one.key --id ed25519:one --after @v1.bundle.json", "v2.bundle.json");
        sign("sign @v2.bundle.json --secret @two.key --id ed25519:two", "v2.bundle.json");
        let (exit, said) = policy(at, &format!("verify @v2.bundle.json --after @v1.bundle.json {keys}"), "");
        assert!(exit == Exit::Fine && said.contains("version 2"), "{said}");
        let (exit, said) = policy(at, &format!("verify @v1.bundle.json --after @v2.bundle.json {keys}"), "");
        assert!(exit == Exit::Found && said.contains("versions must increase"), "{said}");
    }
}
