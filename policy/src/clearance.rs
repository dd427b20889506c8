//! Clearances: what a holder (a user, a device, a server, a link) may see.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    label::{Malformed, list, object, strings, text},
    limits,
};

/// Stands for all values of a tag.
pub const ALL: &str = "*";

/// What a holder may see under one policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Grant {
    policy: String,
    class: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    holds: BTreeMap<String, Vec<String>>,
}

impl Grant {
    /// A grant up to a classification, without any values.
    ///
    /// # Errors
    /// When a name is empty, longer than [`limits::NAME_BYTES`] or has invisible characters.
    pub fn new(policy: &str, class: &str) -> Result<Self, Malformed> {
        Malformed::name("policy", policy)?;
        Malformed::name("class", class)?;
        Ok(Self { policy: policy.to_owned(), class: class.to_owned(), holds: BTreeMap::new() })
    }

    /// The same with values of one more tag. [`ALL`] holds all of them, also those the policy gets later.
    ///
    /// # Errors
    /// When a name is not one, a value stands twice, the tag is there already, or there is too much of something.
    pub fn holding<V: Into<String>>(
        mut self,
        tag: &str,
        vals: impl IntoIterator<Item = V>,
    ) -> Result<Self, Malformed> {
        let path = format!("holds.{tag}");
        Malformed::name(&path, tag)?;
        let mut vals: Vec<String> = vals.into_iter().map(Into::into).collect();
        for val in &vals {
            Malformed::name(&path, val)?;
        }
        if vals.len() > limits::CATEGORY_VALUES {
            return Err(Malformed::new(
                path,
                format!("are {}, more than {}", vals.len(), limits::CATEGORY_VALUES),
            ));
        }
        vals.sort();
        if let Some(twice) =
            vals.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first())
        {
            return Err(Malformed::new(path, format!("has '{twice}' twice")));
        }
        if self.holds.contains_key(tag) {
            return Err(Malformed::new(path, "is there twice: put its values into one list"));
        }
        if self.holds.len() >= limits::CATEGORIES {
            return Err(Malformed::new("holds", format!("has more than {} tags", limits::CATEGORIES)));
        }
        if !vals.is_empty() {
            self.holds.insert(tag.to_owned(), vals);
        }
        Ok(self)
    }

    /// The policy's name.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// The highest classification's name.
    #[must_use]
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The values held, by tag.
    #[must_use]
    pub const fn holds(&self) -> &BTreeMap<String, Vec<String>> {
        &self.holds
    }
}

/// What a holder may see: a grant for each policy under which it is cleared. Without any it may see what is not
/// labelled.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Clearance {
    grants: Vec<Grant>,
}

impl Clearance {
    /// The clearance of someone who is not cleared.
    #[must_use]
    pub const fn none() -> Self {
        Self { grants: Vec::new() }
    }

    /// The same with one more grant.
    ///
    /// # Errors
    /// When there is one under that policy, or there are too many.
    pub fn with(mut self, grant: Grant) -> Result<Self, Malformed> {
        if self.grants.iter().any(|other| other.policy == grant.policy) {
            return Err(Malformed::new("policy", format!("'{}' has a grant already", grant.policy)));
        }
        if self.grants.len() >= limits::GRANTS {
            return Err(Malformed::new("", format!("is one grant too many, {} are allowed", limits::GRANTS)));
        }
        self.grants.push(grant);
        self.grants.sort();
        Ok(self)
    }

    /// The grants, by policy.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Reads a clearance: `{"grants": [{"policy", "class", "holds": {TAG: [VALUE]}}]}`. A TOML table of the same shape
    /// is read by `serde`.
    ///
    /// # Errors
    /// When anything is not as documented in `docs/labels.md`, with the path.
    pub fn from_json(value: &Value) -> Result<Self, Malformed> {
        let top = object(value, &["grants"])?;
        let mut clearance = Self::none();
        for (at, grant) in list(top, "grants", limits::GRANTS)?.iter().enumerate() {
            let below =
                |error: Malformed| Malformed { path: format!("grants[{at}].{}", error.path), ..error };
            let grant = read_grant(grant).map_err(below)?;
            clearance = clearance.with(grant).map_err(below)?;
        }
        Ok(clearance)
    }

    /// The clearance as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn read_grant(value: &Value) -> Result<Grant, Malformed> {
    let fields = object(value, &["policy", "class", "holds"])?;
    let mut grant = Grant::new(text(fields, "policy")?, text(fields, "class")?)?;
    if let Some(holds) = fields.get("holds") {
        let holds = holds.as_object().ok_or_else(|| Malformed::new("holds", "is not an object of tags"))?;
        for tag in holds.keys() {
            grant = grant.holding(tag, strings(holds, tag, limits::CATEGORY_VALUES)?)?;
        }
    }
    Ok(grant)
}

impl<'de> Deserialize<'de> for Clearance {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}
