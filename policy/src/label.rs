//! Labels: how an object is to be protected.
//!
//! The terms are those of STANAG 4774: a policy, a classification of it, and categories, each a tag with values. In
//! events a label is the JSON object under [`KEY`]. It is written in one way only, as canonical JSON with sorted
//! categories and values; what is read is checked for its form alone. Whether its names exist is for
//! [`Policies::resolve`](crate::Policies::resolve).

mod json;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use json::KEY;
pub(crate) use json::{list, object, strings, text};

use crate::{limits, names};

/// The largest integer of canonical JSON.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// How the values of a tag restrict access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TagType {
    /// A holder needs all of them: code words, compartments.
    Restrictive,
    /// A holder needs one of them: nations, organisations. No value at all means everyone.
    Permissive,
    /// They do not decide about access: handling instructions.
    Informative,
}

impl TagType {
    const ALL: [Self; 3] = [Self::Restrictive, Self::Permissive, Self::Informative];

    /// As it is written in labels and policy files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restrictive => "RESTRICTIVE",
            Self::Permissive => "PERMISSIVE",
            Self::Informative => "INFORMATIVE",
        }
    }
}

/// Some values of one tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category {
    pub(crate) tag: String,
    pub(crate) kind: TagType,
    pub(crate) vals: Vec<String>,
}

impl Category {
    /// The tag's name.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The tag's type, as the label states it.
    #[must_use]
    pub const fn kind(&self) -> TagType {
        self.kind
    }

    /// The values, sorted, at least one.
    #[must_use]
    pub fn vals(&self) -> &[String] {
        &self.vals
    }
}

/// How an object is to be protected: the content of `io.postern.label`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    policy: String,
    class: String,
    cats: Vec<Category>,
    originator_only: bool,
    mark: Option<String>,
    created: Option<u64>,
    alt: Vec<Label>,
    spif: Option<String>,
}

/// Why a label, or a clearance, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct Malformed {
    /// Where it is wrong: `cats[1].vals[0]`; empty for the whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Malformed {
    pub(crate) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn name(path: &str, name: &str) -> Result<(), Self> {
        names::problem(name).map_or(Ok(()), |problem| Err(Self::new(path, problem)))
    }

    fn below(self, path: &str) -> Self {
        let path = if self.path.is_empty() { path.to_owned() } else { format!("{path}.{}", self.path) };
        Self { path, ..self }
    }
}

impl Label {
    /// A label without categories.
    ///
    /// # Errors
    /// When a name is empty, longer than [`limits::NAME_BYTES`] or has invisible characters.
    pub fn new(policy: &str, class: &str) -> Result<Self, Malformed> {
        Malformed::name("policy", policy)?;
        Malformed::name("class", class)?;
        Ok(Self {
            policy: policy.to_owned(),
            class: class.to_owned(),
            cats: Vec::new(),
            originator_only: false,
            mark: None,
            created: None,
            alt: Vec::new(),
            spif: None,
        })
    }

    /// The same with one more category. One without values is left out: it says nothing.
    ///
    /// # Errors
    /// When a name is not one, a value stands twice, the tag is there already, or there is too much of something.
    pub fn with<V: Into<String>>(
        mut self,
        tag: &str,
        kind: TagType,
        vals: impl IntoIterator<Item = V>,
    ) -> Result<Self, Malformed> {
        Malformed::name("tag", tag)?;
        let mut vals: Vec<String> = vals.into_iter().map(Into::into).collect();
        for (at, val) in vals.iter().enumerate() {
            Malformed::name(&format!("vals[{at}]"), val)?;
        }
        if vals.len() > limits::CATEGORY_VALUES {
            return Err(Malformed::new(
                "vals",
                format!("are {}, more than {}", vals.len(), limits::CATEGORY_VALUES),
            ));
        }
        vals.sort();
        if let Some(twice) =
            vals.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first())
        {
            return Err(Malformed::new("vals", format!("has '{twice}' twice")));
        }
        if self.cats.iter().any(|cat| cat.tag == tag) {
            return Err(Malformed::new(
                "tag",
                format!("'{tag}' has a category already: put its values into one"),
            ));
        }
        if self.cats.len() >= limits::CATEGORIES {
            return Err(Malformed::new(
                "",
                format!("is one category too many, {} are allowed", limits::CATEGORIES),
            ));
        }
        if !vals.is_empty() {
            self.cats.push(Category { tag: tag.to_owned(), kind, vals });
            self.cats.sort();
        }
        Ok(self)
    }

    /// The same for its originator alone, whoever else may hold what the rest asks for.
    #[must_use]
    pub const fn for_originator_only(mut self, only: bool) -> Self {
        self.originator_only = only;
        self
    }

    /// The same with the text to show.
    ///
    /// # Errors
    /// When it is longer than [`limits::MARK_BYTES`] or has invisible characters.
    pub fn with_mark(mut self, mark: &str) -> Result<Self, Malformed> {
        if mark.len() > limits::MARK_BYTES {
            return Err(Malformed::new(
                "mark",
                format!("has {} bytes, more than {}", mark.len(), limits::MARK_BYTES),
            ));
        }
        if let Some(problem) = names::unprintable(mark) {
            return Err(Malformed::new("mark", problem));
        }
        self.mark = Some(mark.to_owned());
        Ok(self)
    }

    /// The same with the time it was given, in milliseconds since the epoch.
    ///
    /// # Errors
    /// When it is beyond the integers of canonical JSON.
    pub fn with_created(mut self, created: u64) -> Result<Self, Malformed> {
        if created > MAX_INTEGER {
            return Err(Malformed::new("created", format!("is greater than {MAX_INTEGER}")));
        }
        self.created = Some(created);
        Ok(self)
    }

    /// The same with one more equivalent label in another policy.
    ///
    /// # Errors
    /// When that has equivalent labels itself, its policy is there already, or there are too many.
    pub fn with_alternative(mut self, alt: Self) -> Result<Self, Malformed> {
        if !alt.alt.is_empty() {
            return Err(Malformed::new("alt", "has equivalent labels of its own: list them side by side"));
        }
        if alt.policy == self.policy || self.alt.iter().any(|other| other.policy == alt.policy) {
            return Err(Malformed::new("policy", format!("'{}' has a label already", alt.policy)));
        }
        if self.alt.len() >= limits::ALTERNATIVES {
            return Err(Malformed::new(
                "",
                format!("is one label too many, {} are allowed", limits::ALTERNATIVES),
            ));
        }
        self.alt.push(alt);
        self.alt.sort();
        Ok(self)
    }

    /// The same with the digest of the policy file it was written under: `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// When it is of another form.
    pub fn with_spif(mut self, digest: &str) -> Result<Self, Malformed> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
        if !hex.is_some_and(|hex| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))) {
            return Err(Malformed::new("spif", "is not 'sha256:' and 64 lowercase hexadecimal digits"));
        }
        self.spif = Some(digest.to_owned());
        Ok(self)
    }

    /// The policy's name.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The classification's name.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The categories, by tag, each with a value at least.
    #[must_use]
    pub fn cats(&self) -> &[Category] {
        &self.cats
    }

    /// Whether nobody but the originator may see the object.
    #[must_use]
    pub const fn originator_only(&self) -> bool {
        self.originator_only
    }

    /// The text to show, as its author stated it.
    #[must_use]
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// When it was given, in milliseconds since the epoch.
    #[must_use]
    pub const fn created(&self) -> Option<u64> {
        self.created
    }

    /// Equivalent labels in other policies, by policy.
    #[must_use]
    pub fn alternatives(&self) -> &[Self] {
        &self.alt
    }

    /// The digest of the policy file it was written under.
    #[must_use]
    pub fn spif(&self) -> Option<&str> {
        self.spif.as_deref()
    }
}

/// The names as they stand in the label, in a form that needs no policy: `NATO SECRET//Releasable To: GBR, USA`. What a
/// policy makes of it is [`Policies::marking`](crate::Policies::marking).
impl fmt::Display for Label {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}", self.policy, self.class)?;
        for cat in &self.cats {
            write!(to, "//{}: {}", cat.tag, cat.vals.join(", "))?;
        }
        if self.originator_only {
            write!(to, "//{}", crate::text::ORIGINATOR_ONLY)?;
        }
        for alt in &self.alt {
            write!(to, " = {alt}")?;
        }
        Ok(())
    }
}
