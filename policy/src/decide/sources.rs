//! Where the operator's policies come from: a directory, and what is handed in (from an admin policy room).

use super::{
    bundle::{Accepted, Bundle, BundleError, Keys},
    limits::{LARGEST_BUNDLE, MOST_TEXT, MOST_TEXTS},
    problem::{Problem, Refused},
    rules::{Base, RuleSet, Text},
};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// How names of texts and of bundles in a directory end.
pub const TEXT_ENDING: &str = ".cedar";
pub const BUNDLE_ENDING: &str = ".bundle.json";

/// What is configured of policies.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub base: Base,
    /// Holds `*.cedar` files, or one `*.bundle.json`. Other files, and directories of other names, are left alone.
    pub directory: Option<PathBuf>,
    /// Whose signatures make a bundle good.
    pub keys: Keys,
    /// Refuse what no bundle holds.
    pub require_signed: bool,
}

/// Policies from elsewhere than the directory.
#[derive(Debug, Clone)]
pub enum Handed {
    Text(Text),
    /// The JSON of a bundle, and what it is called in problems.
    Bundle {
        name: String,
        json: Vec<u8>,
    },
}

/// A set that may be enforced.
#[derive(Debug)]
pub struct Loaded {
    pub set: RuleSet,
    /// The bundle that it is of, to be kept and given as `last` the next time.
    pub bundle: Option<Accepted>,
}

impl Sources {
    /// Reads, verifies and checks everything. Nothing is in force by that yet: see
    /// [`Decider::enforce`](super::Decider::enforce).
    ///
    /// `last` is the bundle that was taken last, if one was. Of a bundle in the directory and one that is handed in the
    /// newer counts, so that policies may move from one to the other; what is older is left alone.
    ///
    /// # Errors
    /// [`Refused`] with what is wrong: a file that cannot be read, a bundle that is not good, two bundles in one place,
    /// no bundle where policies must be signed, or policies that are not valid.
    pub fn load(&self, handed: &[Handed], last: Option<&Accepted>) -> Result<Loaded, Refused> {
        let mut texts = Vec::new();
        let mut newest: Option<(String, Bundle)> = None;
        let in_directory = match &self.directory {
            Some(directory) => read(directory)?,
            None => Vec::new(),
        };
        for all in [in_directory, handed.to_vec()] {
            let mut here: Option<(String, Bundle)> = None;
            for one in all {
                match one {
                    Handed::Text(text) if self.require_signed => {
                        let reason = "policies must be signed here: put this text into a bundle";
                        return Err(Refused::whole(&text.name, reason));
                    }
                    Handed::Text(text) => texts.push(text),
                    Handed::Bundle { name, json } => {
                        if let Some((other, _)) = &here {
                            return Err(Refused::whole(&name, format!("there is another bundle: {other}")));
                        }
                        let bundle = Bundle::parse(&json)
                            .map_err(|error: BundleError| Refused::whole(&name, error.to_string()))?;
                        here = Some((name, bundle));
                    }
                }
            }
            newest = match (newest, here) {
                (Some((name, one)), Some((_, other))) if one.version == other.version => {
                    if one.digest() != other.digest() {
                        return Err(Refused::whole(&name, BundleError::Fork(one.version).to_string()));
                    }
                    Some((name, one))
                }
                (Some(one), Some(other)) => Some(if one.1.version > other.1.version { one } else { other }),
                (one, other) => one.or(other),
            };
        }
        // Taking the bundle away must not take away what it forbids.
        if self.require_signed
            && newest.is_none()
            && let Some(last) = last
        {
            let reason = format!("there is no bundle; version {} was in force", last.version);
            return Err(Refused::whole("policies", reason));
        }
        let mut bundle = None;
        if let Some((name, newest)) = newest {
            let verified = newest
                .verify(&self.keys, last)
                .map_err(|error: BundleError| Refused::whole(&name, error.to_string()))?;
            texts.extend_from_slice(verified.texts());
            bundle = Some(verified.accepted());
        }
        let set = RuleSet::build(self.base, &texts)?;
        Ok(Loaded { set, bundle })
    }
}

/// The `*.cedar` and `*.bundle.json` files of a directory, in the order of their names.
///
/// # Errors
/// All files that cannot be read, are not UTF-8, or are too large.
pub fn read(directory: &Path) -> Result<Vec<Handed>, Refused> {
    let shown = directory.display().to_string();
    let unread = |error: std::io::Error| Refused::whole(&shown, error.to_string());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(TEXT_ENDING) || name.ends_with(BUNDLE_ENDING) {
            names.push(name);
        }
        if names.len() > MOST_TEXTS {
            return Err(Refused::whole(&shown, format!("more than {MOST_TEXTS} files of policies")));
        }
    }
    names.sort();
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in names {
        let path = directory.join(&name);
        // Reading from a pipe would wait for whoever writes to it.
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            problems.push(Problem::whole(&name, "this is no file: name it otherwise"));
            continue;
        }
        match read_one(&path, &name) {
            Ok(one) => found.push(one),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(Refused(problems)) }
}

/// A `*.bundle.json`, else a text.
pub(crate) fn read_one(path: &Path, name: &str) -> Result<Handed, Problem> {
    let is_bundle = name.ends_with(BUNDLE_ENDING);
    let most = if is_bundle { LARGEST_BUNDLE } else { MOST_TEXT };
    let bytes = read_bounded(path, most).map_err(|reason| Problem::whole(name, reason))?;
    if is_bundle {
        return Ok(Handed::Bundle { name: name.to_owned(), json: bytes });
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid =
            String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        Problem::at(name, &valid, valid.len(), "this is not UTF-8")
    })?;
    Ok(Handed::Text(Text { name: name.to_owned(), text }))
}

/// A file of at most so many bytes.
pub(crate) fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > most {
        return Err(format!("it is more than {most} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{public_key, samples::text};
    use ed25519_dalek::SigningKey;

    const FORBID: &str = "@id(\"nothing\") forbid (principal, action, resource);";

    fn signed(version: u64) -> Vec<u8> {
        let mut bundle = Bundle::new(version, 1, None, vec![text("a.cedar", FORBID)]);
        bundle.sign("ed25519:one", &SigningKey::from_bytes(&[1; 32])).unwrap();
        bundle.to_json().into_bytes()
    }

    fn sources(directory: &Path, require_signed: bool) -> Sources {
        let key = public_key(&SigningKey::from_bytes(&[1; 32]));
        Sources {
            base: Base::Peers,
            directory: Some(directory.to_owned()),
            keys: Keys::new([("ed25519:one", key.as_str())], 1).unwrap(),
            require_signed,
        }
    }

    fn reason(loaded: Result<Loaded, Refused>) -> String {
        loaded.unwrap_err().to_string()
    }

    #[test]
    fn policies_are_read_from_files_and_from_what_is_handed_in() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.cedar"), FORBID).unwrap();
        std::fs::write(directory.path().join("README.md"), "not a policy").unwrap();
        let handed = Handed::Text(text("room.cedar", "permit (principal, action, resource);"));
        let loaded = sources(directory.path(), false).load(&[handed], None).unwrap();
        assert!(loaded.set.rule("nothing").is_some() && loaded.set.rule("room.cedar:1").is_some());
        assert_eq!(loaded.bundle, None);
    }

    #[test]
    fn where_policies_must_be_signed_only_a_good_bundle_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let sources = sources(directory.path(), true);
        assert!(sources.load(&[], None).is_ok(), "before there was one, the base alone is in force");
        let file = directory.path().join("a.cedar");
        std::fs::write(&file, FORBID).unwrap();
        assert!(reason(sources.load(&[], None)).contains("must be signed"));
        std::fs::remove_file(file).unwrap();
        let file = directory.path().join("site.bundle.json");
        std::fs::write(&file, signed(2)).unwrap();
        let last = sources.load(&[], None).unwrap().bundle.unwrap();
        assert_eq!(sources.load(&[], Some(&last)).unwrap().bundle, Some(last));
        std::fs::write(&file, signed(1)).unwrap();
        assert!(reason(sources.load(&[], Some(&last))).contains("versions must increase"));
        std::fs::remove_file(&file).unwrap();
        assert!(reason(sources.load(&[], Some(&last))).contains("there is no bundle"));
    }

    #[test]
    fn a_second_bundle_in_one_place_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("site.bundle.json"), signed(1)).unwrap();
        std::fs::write(directory.path().join("other.bundle.json"), signed(2)).unwrap();
        assert!(reason(sources(directory.path(), false).load(&[], None)).contains("another bundle"));
    }

    #[test]
    fn of_a_bundle_in_the_directory_and_one_that_is_handed_in_the_newer_counts() {
        let directory = tempfile::tempdir().unwrap();
        let handed = |json: Vec<u8>| [Handed::Bundle { name: "the policy room".to_owned(), json }];
        let file = directory.path().join("site.bundle.json");
        std::fs::write(&file, signed(2)).unwrap();
        let sources = sources(directory.path(), true);
        for (version, counts) in [(1, 2), (2, 2), (3, 3)] {
            let loaded = sources.load(&handed(signed(version)), None).unwrap();
            assert_eq!(loaded.bundle.unwrap().version, counts);
        }
        let last = sources.load(&handed(signed(3)), None).unwrap().bundle.unwrap();
        assert!(reason(sources.load(&[], Some(&last))).contains("versions must increase"));
        let mut other = Bundle::new(2, 1, None, Vec::new());
        other.sign("ed25519:one", &SigningKey::from_bytes(&[1; 32])).unwrap();
        assert!(reason(sources.load(&handed(other.to_json().into_bytes()), None)).contains("two bundles"));
        let unsigned = Bundle::new(9, 1, None, Vec::new()).to_json().into_bytes();
        assert!(reason(sources.load(&handed(unsigned), None)).contains("the policy room: 0 of"));
    }

    #[test]
    fn files_that_cannot_be_read_are_all_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.cedar"), b"// fine\n// \xff").unwrap();
        std::fs::write(directory.path().join("b.cedar"), " ".repeat(MOST_TEXT + 1)).unwrap();
        std::fs::create_dir(directory.path().join("c.cedar")).unwrap();
        let said = reason(sources(directory.path(), false).load(&[], None));
        assert!(
            said.contains("a.cedar:2:4: this is not UTF-8")
                && said.contains("b.cedar: it is more than")
                && said.contains("c.cedar: this is no file"),
            "{said}"
        );
        assert!(reason(sources(&directory.path().join("none"), false).load(&[], None)).contains("none"));
    }
}
