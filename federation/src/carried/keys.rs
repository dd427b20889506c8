//! The keys of a link, from their files.

use super::Fault;
use postern_border::{Incoming, Outgoing};
use postern_bundles::{Identity, PublicKey, Recipient, SecretKey, command::LinkFile};
use std::{fs::File, io::Read, path::Path, str::FromStr};
use zeroize::Zeroizing;

/// Bytes of a file with a key: a line, and comments.
const KEY_FILE_BYTES: u64 = 16 << 10;

fn read(path: &Path) -> Result<Zeroizing<String>, Fault> {
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|error| Fault::file(path, &error))?;
    file.take(KEY_FILE_BYTES).read_to_string(&mut text).map_err(|error| Fault::file(path, &error))?;
    Ok(text)
}

/// The first line that says something.
fn line<T: FromStr<Err: std::fmt::Display>>(path: &Path) -> Result<T, Fault> {
    let text = read(path)?;
    let line = text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    line.parse().map_err(|error| Fault::file(path, &error))
}

/// The public half of a link.
pub(super) fn public(path: &Path) -> Result<LinkFile, Fault> {
    serde_json::from_str(&read(path)?).map_err(|error| Fault::file(path, &error))
}

/// What signs what goes out, and who can open it.
pub(super) fn outgoing(out: &Outgoing) -> Result<(LinkFile, SecretKey, Vec<Recipient>), Fault> {
    let (public, secret) = (public(&out.link)?, line::<SecretKey>(&out.key)?);
    if public.key != secret.public() {
        return Err(Fault::file(&out.key, &"is not the secret half of the link"));
    }
    let recipients = out.recipients.iter().map(|recipient| {
        recipient.parse().map_err(|error| Fault::file(Path::new("border.toml: recipients"), &error))
    });
    Ok((public, secret, recipients.collect::<Result<_, _>>()?))
}

/// What opens what comes in, and whose signature it has.
pub(super) fn incoming(into: &Incoming) -> Result<(LinkFile, Identity), Fault> {
    Ok((public(&into.link)?, line(&into.identity)?))
}

/// Officers whose releases count.
pub(super) fn officers(into: &Incoming) -> Result<Vec<(String, PublicKey)>, Fault> {
    let officer = |(name, key): (&String, &String)| {
        let key = key.parse().map_err(|error| Fault::file(Path::new("border.toml: officers"), &error))?;
        Ok((name.clone(), key))
    };
    into.officers.iter().map(officer).collect()
}
