//! Security policies: which classifications, tags and values there are, what they look like, what they mean elsewhere.
//!
//! The model is that of a security policy information file (ISO/IEC 15816, ITU-T X.841, and the XML SPIF schema of
//! xmlspif.org). The form of our own, [`Spif`], is TOML or JSON of one shape, described field by field in
//! `docs/labels.md`; [`Spif::from_xml`] reads the XML form.

mod check;
mod import;
mod presets;
mod xml;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

pub use import::Import;
pub use presets::{PRESETS, Preset};

use crate::{label::TagType, limits};

/// A security policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spif {
    /// The name in labels: STANAG 4774's policy identifier.
    pub name: String,
    /// The object identifier, as `1.3.26.1.3.1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// Other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// The label of what nobody labelled, as text without the policy's name: `UNCLASSIFIED`. Without it such objects
    /// stay without a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// How markings are put together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub marking: SpifMarking,
    /// The classifications.
    pub classes: Vec<Class>,
    /// The tags, in the order in which they are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// What labels mean in other policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub equivalences: Vec<Equivalence>,
}

/// How a policy's markings are put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpifMarking {
    /// Stands before a classification that has no marking of its own: `NATO `.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Stands before each tag. Two slashes when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// Stands between tags of one group, instead of `separator`. One slash when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_separator: Option<String>,
}

/// A classification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// The name in labels.
    pub name: String,
    /// Where it stands: a greater rank is above a lesser one. No two are equal.
    pub rank: u16,
    /// Other names and abbreviations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What is shown, the policy's name included; otherwise the policy's prefix and the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marking: Option<String>,
    /// What is shown where there is little room: the portion marking; otherwise the marking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portion: Option<String>,
    /// The colour of the banner, as `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
    /// The number in encoded labels, by which other policies' XML files refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacv: Option<String>,
    /// It is not to be given to new objects.
    #[serde(default, skip_serializing_if = "is_default")]
    pub obsolete: bool,
    /// What a label of it has to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
}

/// A tag: values of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// The name in labels.
    pub name: String,
    /// How its values restrict access.
    #[serde(rename = "type")]
    pub kind: TagType,
    /// What people write before its values: `REL TO`. Otherwise the values stand alone, where they are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
    /// The object identifier of its tag set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// How many values a label may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u16>,
    /// How its values are shown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub marking: TagMarking,
    /// The values, in the order in which they are shown. One that has a name only may be written as that.
    pub values: Vec<TagValue>,
}

/// How the values of a tag are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TagMarking {
    /// Stands before the values.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Stands between values. One slash when it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// Stands after the values.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// Tags of one group that follow one another are parted by the policy's `group_separator`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The banner's colour for labels that have this tag, instead of the classification's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub colours: BTreeMap<String, String>,
    /// It is not shown.
    #[serde(skip_serializing_if = "is_default")]
    pub hidden: bool,
    /// Those of its values that have a marking are shown instead of the policy's prefix: `NATO/KFOR SECRET`.
    #[serde(skip_serializing_if = "is_default")]
    pub replaces_prefix: bool,
}

/// A value of a tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct TagValue {
    /// The name in labels.
    pub name: String,
    /// What it is, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Other names and abbreviations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What is shown; otherwise the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marking: Option<String>,
    /// What is shown where there is little room; otherwise the marking.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portion: Option<String>,
    /// What is shown and written when it is its tag's only value, without the tag's prefix and suffix: `NOFORN` for the
    /// releasability to one's own nation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone: Option<String>,
    /// `alone` where there is little room: `NF`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alone_portion: Option<String>,
    /// Of a permissive tag: the values of this tag that belong to it. A holder of one of them holds it too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// It is shown beside the groups it is a member of.
    #[serde(skip_serializing_if = "is_default")]
    pub always_shown: bool,
    /// The classifications it may go with; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What a label with it has to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// What a label with it may not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<ValueRef>,
    /// The number in encoded labels, by which other policies' XML files refer to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacv: Option<String>,
    /// It is not to be given to new objects.
    #[serde(skip_serializing_if = "is_default")]
    pub obsolete: bool,
}

/// A value of a tag, or any value of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueRef {
    /// The tag.
    pub tag: String,
    /// The value; any when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Values that a label has to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// How many of them.
    #[serde(default)]
    pub need: Need,
    /// The values.
    pub of: Vec<ValueRef>,
}

/// How many of the values of a [`Requirement`] a label has to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Every one.
    #[default]
    All,
    /// One or more.
    Any,
    /// Exactly one.
    One,
}

/// What labels of one policy mean in another. The *source* is this policy when `direction` is `out`, the other one when
/// it is `in`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalence {
    /// The other policy: name, alias or `oid:` and its object identifier.
    pub policy: String,
    /// From which to which.
    #[serde(default)]
    pub direction: Direction,
    /// Whether it decides about access: a holder who is cleared under the target only may see what the translated label
    /// allows. Otherwise it is for translating and showing labels.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: bool,
    /// Tags of the source that a label has to have for there to be an equivalent one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// Source classification to target classification. What is not here has no equivalent.
    pub classes: BTreeMap<String, String>,
    /// Source tag to target tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// By source tag, source value to target value. `"*" = "*"` is for values of the same name, and what a tag without
    /// an entry here has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, String>>,
    /// Restrictive tags or values of the source that need not be expressed in the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discard: Vec<ValueRef>,
    /// Values of the target that each translated label gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<ValueRef>,
}

/// Which of two policies is translated into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the policy of the file into the other.
    #[default]
    Out,
    /// From the other into the policy of the file.
    In,
}

/// Something that is wrong with a policy file, or with several together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `NATO: classes[1].rank`.
    pub path: String,
    /// What, and what would be right.
    pub what: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            to.write_str(&self.what)
        } else {
            write!(to, "{}: {}", self.path, self.what)
        }
    }
}

/// All that is wrong, at least one thing, at most [`limits::PROBLEMS`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(crate) fn one(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self(vec![Problem::new(path, what)])
    }
}

impl Spif {
    /// Reads a policy from TOML and checks it.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path; a syntax error with its line.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        bounded(text)?;
        let spif: Self = toml::from_str(text).map_err(|error| Problems::one("", error.to_string()))?;
        spif.check().map(|()| spif)
    }

    /// Reads a policy from JSON of the same shape and checks it.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path; a syntax error with its line.
    pub fn from_json(text: &str) -> Result<Self, Problems> {
        bounded(text)?;
        let spif: Self = serde_json::from_str(text).map_err(|error| Problems::one("", error.to_string()))?;
        spif.check().map(|()| spif)
    }

    /// Reads a policy from an XML SPIF, versions 1.0 to 2.1 of the schema, and checks it.
    ///
    /// # Errors
    /// When it is no well-formed XML, has a document type or entities of its own, is too large or too deep, or no policy
    /// follows from it that could be loaded.
    pub fn from_xml(text: &str) -> Result<Import, Problems> {
        bounded(text)?;
        let import = import::read(text)?;
        import.spif.check().map(|()| import)
    }

    /// The policy as TOML.
    ///
    /// # Errors
    /// Never for a policy that was read.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// What labels state as the policy file they were written under: `sha256:` and the digest of the policy's JSON with
    /// sorted keys, which is the same for TOML, JSON and XML of the same content.
    #[must_use]
    pub fn digest(&self) -> String {
        use fmt::Write;
        let mut json = serde_json::to_value(self).unwrap_or_default();
        // Otherwise they are in the order of the fields here.
        json.sort_all_objects();
        let json = json.to_string();
        Sha256::digest(json.as_bytes()).iter().fold(String::from("sha256:"), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Checks a policy.
    ///
    /// # Errors
    /// All that is wrong with it, each with its path.
    pub fn check(&self) -> Result<(), Problems> {
        let problems = check::check(self);
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

fn bounded(text: &str) -> Result<(), Problems> {
    if text.len() > limits::FILE_BYTES {
        return Err(Problems::one("", format!("has {} bytes, more than {}", text.len(), limits::FILE_BYTES)));
    }
    Ok(())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl<'de> Deserialize<'de> for TagValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NameOrTable;
        impl<'de> serde::de::Visitor<'de> for NameOrTable {
            type Value = TagValue;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a value's name, or a table with its fields")
            }

            fn visit_str<E>(self, name: &str) -> Result<TagValue, E> {
                Ok(TagValue { name: name.to_owned(), ..TagValue::default() })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<TagValue, A::Error> {
                TagValue::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        from.deserialize_any(NameOrTable)
    }
}

impl Serialize for TagValue {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bare = Self { name: self.name.clone(), ..Self::default() };
        if *self == bare { to.serialize_str(&self.name) } else { Self::serialize(self, to) }
    }
}
