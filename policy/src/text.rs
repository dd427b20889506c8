//! Labels and clearances as people type them.
//!
//! `NATO SECRET//ATOMAL//REL TO USA, GBR` is a label: what precedes the first `//` is the policy and the classification,
//! each further part has values of one tag. Equivalent labels follow after ` = `. Grants of a clearance are parted by
//! `;`. The grammar is in `docs/labels.md`.

use crate::{
    clearance::{ALL, Clearance, Grant},
    compiled::Compiled,
    label::Label,
    limits,
    names::{fold, strip_prefix, strip_suffix},
    policies::{LabelError, Policies, policy_heads},
    spif::Tag,
};

/// What stands in a label's text, and its marking, when it is for its originator alone.
pub(crate) const ORIGINATOR_ONLY: &str = "ORIGINATOR ONLY";
/// The clearance of someone who is not cleared.
const NO_CLEARANCE: &str = "none";

fn error(part: &str, problem: impl Into<String>) -> LabelError {
    let shown: String = part.chars().take(80).collect();
    LabelError::Text { part: shown, problem: problem.into() }
}

fn bounded(text: &str) -> Result<(), LabelError> {
    if text.len() > limits::TEXT_BYTES {
        return Err(error(text, format!("has {} bytes, more than {}", text.len(), limits::TEXT_BYTES)));
    }
    Ok(())
}

/// What a part of a label's text says.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    OriginatorOnly,
    /// A tag's place and values' names, as they are in the policy, or [`ALL`].
    Values(usize, Vec<String>),
}

impl Policies {
    /// Reads a label as people type it. Case and the order of parts do not matter; abbreviations are known.
    ///
    /// # Errors
    /// When a part is unknown, or could mean several things.
    pub fn parse_label(&self, text: &str) -> Result<Label, LabelError> {
        bounded(text)?;
        let mut forms = text.split('=');
        let mut label = self.parse_form(forms.next().unwrap_or_default())?;
        for alt in forms {
            label = label.with_alternative(self.parse_form(alt)?)?;
        }
        Ok(label)
    }

    fn parse_form(&self, text: &str) -> Result<Label, LabelError> {
        let (policy, class, parts) = self.parse_parts(text)?;
        let mut label = Label::new(&policy.spif.name, &class)?;
        for part in parts {
            match part {
                Part::OriginatorOnly => label = label.for_originator_only(true),
                Part::Values(at, values) => {
                    let Some(tag) = policy.spif.tags.get(at) else { continue };
                    if values.iter().any(|value| value == ALL) {
                        return Err(error(text, "has '*' in it, which is for clearances"));
                    }
                    label = label.with(&tag.name, tag.kind, values)?;
                }
            }
        }
        Ok(label)
    }

    /// Reads a clearance as people type it: grants, each like a label, parted by `;`, or `none`. `*` holds all values of
    /// a tag.
    ///
    /// # Errors
    /// When a part is unknown, or could mean several things.
    pub fn parse_clearance(&self, text: &str) -> Result<Clearance, LabelError> {
        bounded(text)?;
        let mut clearance = Clearance::none();
        if fold(text.trim()) == NO_CLEARANCE {
            return Ok(clearance);
        }
        for text in text.split(';') {
            let (policy, class, parts) = self.parse_parts(text)?;
            let mut grant = Grant::new(&policy.spif.name, &class)?;
            for part in parts {
                match part {
                    Part::OriginatorOnly => {
                        return Err(error(text, "is for the originator only, which nobody holds"));
                    }
                    Part::Values(at, values) => {
                        let Some(tag) = policy.spif.tags.get(at) else { continue };
                        grant = grant.holding(&tag.name, values)?;
                    }
                }
            }
            clearance = clearance.with(grant)?;
        }
        Ok(clearance)
    }

    fn parse_parts(&self, text: &str) -> Result<(&Compiled, String, Vec<Part>), LabelError> {
        if text.matches("//").count() > limits::CATEGORIES + 1 {
            return Err(error(text, format!("has more than {} parts", limits::CATEGORIES + 1)));
        }
        let mut parts = text.split("//").map(str::trim);
        let (policy, level) = self.parse_head(parts.next().unwrap_or_default())?;
        let parts = parts.map(|part| parse_part(policy, part)).collect::<Result<_, _>>()?;
        Ok((policy, policy.class_name(level), parts))
    }

    /// Policy and classification. What names the policy counts first, then what only the default policy knows, then
    /// what is the only one of its name.
    fn parse_head(&self, head: &str) -> Result<(&Compiled, u16), LabelError> {
        let all = || (0u16..).zip(&self.0.policies);
        let named: Vec<_> = policy_heads(&self.0.policies, head)
            .filter_map(|(number, policy, rest)| {
                Some((number, policy, class(policy, rest.strip_prefix(':')?)?))
            })
            .collect();
        if let Some(found) = only(head, named)? {
            return Ok(found);
        }
        let marked = all().filter_map(|(number, policy)| Some((number, policy, marked_class(policy, head)?)));
        let named = policy_heads(&self.0.policies, head)
            .filter(|(.., rest)| rest.starts_with(char::is_whitespace))
            .filter_map(|(number, policy, rest)| Some((number, policy, class(policy, rest)?)));
        if let Some(found) = only(head, named.chain(marked).collect())? {
            return Ok(found);
        }
        let bare: Vec<_> =
            all().filter_map(|(number, policy)| Some((number, policy, class(policy, head)?))).collect();
        let default = bare.iter().find(|(number, ..)| Some(*number) == self.0.default);
        if let Some(&(_, policy, level)) = default {
            return Ok((policy, level));
        }
        only(head, bare)?.ok_or_else(|| {
            let known: Vec<&str> = self.spifs().map(|spif| spif.name.as_str()).collect();
            error(head, format!("is no policy with a classification; policies are {}", known.join(", ")))
        })
    }

    /// The label as people type it: [`Self::parse_label`] reads it back, without the text to show, the time and the digest.
    ///
    /// # Errors
    /// When it means nothing under these policies.
    pub fn format_label(&self, label: &Label) -> Result<String, LabelError> {
        let mut text = self.format_form(label)?;
        for alt in label.alternatives() {
            text.push_str(" = ");
            text.push_str(&self.format_form(alt)?);
        }
        Ok(text)
    }

    fn format_form(&self, label: &Label) -> Result<String, LabelError> {
        let (_, policy) = self.policy(label.policy())?;
        let mut text = self.format_head(policy, label.class())?;
        for (at, tag) in policy.spif.tags.iter().enumerate() {
            // Cats are few.
            let cats = label.cats().iter().filter(|cat| policy.find_tag(cat.tag()) == Some(at));
            for cat in cats {
                text.push_str("//");
                text.push_str(&format_part(policy, at, tag, cat.vals())?);
            }
        }
        for cat in label.cats() {
            policy.tag(cat.tag())?;
        }
        if label.originator_only() {
            text.push_str("//");
            text.push_str(ORIGINATOR_ONLY);
        }
        Ok(text)
    }

    /// The clearance as people type it: [`Self::parse_clearance`] reads it back.
    ///
    /// # Errors
    /// When it means nothing under these policies.
    pub fn format_clearance(&self, clearance: &Clearance) -> Result<String, LabelError> {
        let mut grants = Vec::new();
        for grant in clearance.grants() {
            let (_, policy) = self.policy(grant.policy())?;
            let mut text = self.format_head(policy, grant.class())?;
            for (name, values) in grant.holds() {
                let (at, tag) = policy.tag(name)?;
                text.push_str("//");
                text.push_str(&format_part(policy, at, tag, values)?);
            }
            grants.push(text);
        }
        Ok(if grants.is_empty() { NO_CLEARANCE.to_owned() } else { grants.join("; ") })
    }

    fn format_head(&self, policy: &Compiled, class: &str) -> Result<String, LabelError> {
        let level = policy.level(class)?;
        let (name, class) = (&policy.spif.name, policy.class_name(level));
        let plain = format!("{name} {class}");
        let right = |found: (&Compiled, u16)| found.0.spif.name == *name && found.1 == level;
        Ok(if self.parse_head(&plain).is_ok_and(right) { plain } else { format!("{name}: {class}") })
    }
}

fn class(policy: &Compiled, text: &str) -> Option<u16> {
    policy.level(text.trim()).ok()
}

/// The classification that is shown so in full: `COSMIC TOP SECRET`.
fn marked_class(policy: &Compiled, text: &str) -> Option<u16> {
    let found = policy
        .levels()
        .position(|class| class.marking.as_ref().is_some_and(|mark| fold(mark) == fold(text)))?;
    u16::try_from(found).ok()
}

fn only<'p>(
    head: &str,
    mut found: Vec<(u16, &'p Compiled, u16)>,
) -> Result<Option<(&'p Compiled, u16)>, LabelError> {
    found.dedup_by_key(|(number, _, level)| (*number, *level));
    match *found.as_slice() {
        [] => Ok(None),
        [(_, policy, level)] => Ok(Some((policy, level))),
        _ => {
            let of: Vec<String> = found
                .iter()
                .map(|(_, policy, level)| format!("'{}: {}'", policy.spif.name, policy.class_name(*level)))
                .collect();
            Err(error(head, format!("could be {}", of.join(" or "))))
        }
    }
}

fn parse_part(policy: &Compiled, part: &str) -> Result<Part, LabelError> {
    if fold(part) == fold(ORIGINATOR_ONLY) {
        return Ok(Part::OriginatorOnly);
    }
    let explicit =
        part.split_once(':').and_then(|(tag, values)| Some((policy.find_tag(tag.trim())?, values)));
    if let Some((tag, values)) = explicit {
        for name in values.split(',').map(str::trim).filter(|name| *name != ALL) {
            policy.value(tag, name)?;
        }
        return values_of(policy, tag, values, ',')
            .map(|values| Part::Values(tag, values))
            .ok_or_else(|| error(part, "has a value twice"));
    }
    let tags = || policy.spif.tags.iter().enumerate();
    let mut found: Vec<Part> = tags().filter_map(|(at, tag)| prefixed(policy, at, tag, part)).collect();
    if found.is_empty() {
        found = tags().filter_map(|(at, tag)| bare(policy, at, tag, part)).collect();
    }
    match found.len() {
        0 => Err(error(part, format!("is no value, or list of values, of one tag of {}", policy.spif.name))),
        1 => Ok(found.remove(0)),
        _ => {
            let tags: Vec<&str> = found
                .iter()
                .filter_map(|part| match part {
                    Part::Values(at, _) => policy.spif.tags.get(*at).map(|tag| tag.name.as_str()),
                    Part::OriginatorOnly => None,
                })
                .collect();
            Err(error(
                part,
                format!("could be of '{}': write the tag and ':' before it", tags.join("' or '")),
            ))
        }
    }
}

/// `REL TO USA, GBR`: the tag's name or short form, and values of it.
fn prefixed(policy: &Compiled, at: usize, tag: &Tag, part: &str) -> Option<Part> {
    let mut names = tag.short.iter().chain([&tag.name]);
    names.find_map(|name| {
        let rest = strip_prefix(part, name)?;
        let rest = rest.starts_with(char::is_whitespace).then(|| rest.trim())?;
        let values = values_of(policy, at, rest, ',').or_else(|| values_of(policy, at, rest, '/'))?;
        Some(Part::Values(at, values))
    })
}

/// `ATOMAL, BOHEMIA`; `NOFORN`; `UK/US EYES ONLY`: values of a tag, what one of them alone is called, or values with what
/// is shown after them.
fn bare(policy: &Compiled, at: usize, tag: &Tag, part: &str) -> Option<Part> {
    let alone =
        tag.values.iter().find(|value| value.alone.as_ref().is_some_and(|text| fold(text) == fold(part)));
    if let Some(value) = alone {
        return Some(Part::Values(at, vec![value.name.clone()]));
    }
    let suffix = tag.marking.suffix.as_str();
    let values = if suffix.is_empty() { None } else { strip_suffix(part, suffix).map(str::trim) };
    let texts = [Some(part), values];
    let values = texts.into_iter().flatten().find_map(|text| {
        let values = values_of(policy, at, text, ',').or_else(|| values_of(policy, at, text, '/'))?;
        (!values.iter().any(|value| value == ALL)).then_some(values)
    })?;
    Some(Part::Values(at, values))
}

/// The values of a tag that a list names, as the policy calls them, sorted; none when one is unknown or there twice.
fn values_of(policy: &Compiled, tag: usize, list: &str, separator: char) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for name in list.split(separator).map(str::trim) {
        let name = if name == ALL { ALL } else { &policy.value_at(tag, policy.find_value(tag, name)?)?.name };
        values.push(name.to_owned());
    }
    values.sort();
    let count = values.len();
    values.dedup();
    (values.len() == count).then_some(values)
}

/// The shortest text that is read back as these values.
fn format_part(policy: &Compiled, at: usize, tag: &Tag, names: &[String]) -> Result<String, LabelError> {
    let mut values = Vec::new();
    for name in names.iter().filter(|name| *name != ALL) {
        values.push(policy.value(at, name)?);
    }
    values.sort_unstable();
    let known = values.iter().filter_map(|&value| policy.value_at(at, value));
    let mut shown: Vec<&str> = known.clone().map(|value| value.name.as_str()).collect();
    if names.iter().any(|name| name == ALL) {
        shown.push(ALL);
    }
    let alone = known.filter(|_| shown.len() == 1).find_map(|value| value.alone.clone());
    let list = shown.join(", ");
    let short = tag.short.as_ref().map(|short| format!("{short} {list}"));
    shown.sort_unstable();
    let meant = Part::Values(at, shown.into_iter().map(str::to_owned).collect());
    let right = |text: &String| parse_part(policy, text).is_ok_and(|part| part == meant);
    let texts = [alone, short, Some(list.clone())];
    Ok(texts.into_iter().flatten().find(right).unwrap_or_else(|| format!("{}: {list}", tag.name)))
}
