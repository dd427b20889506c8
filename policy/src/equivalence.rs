//! What a label of one policy means in another, as policy files state it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compiled::Compiled,
    label::TagType,
    lattice::{Form, of_tag},
    names,
    spif::{Equivalence, Problem},
};

/// The beginning of a reference to what has this number in encoded labels.
pub(crate) const LACV: &str = "lacv:";
/// The beginning of a reference to what has this object identifier.
pub(crate) const OID: &str = "oid:";

/// An equivalence with its names looked up.
#[derive(Debug)]
pub(crate) struct Translation {
    to: u16,
    pub access: bool,
    /// Of each level of the source, the target's.
    levels: Vec<Option<u16>>,
    requires: Vec<usize>,
    /// Source tag and value to target tag and value.
    values: BTreeMap<(usize, usize), (usize, usize)>,
    /// Restrictive values that need not be expressed.
    discard: BTreeSet<(usize, usize)>,
    add: Vec<(usize, usize)>,
}

impl Translation {
    /// Looks names up, and reports those that do not exist, and what would let someone see more than the source allows.
    pub(crate) fn new(
        equivalence: &Equivalence,
        (from, to): (&Compiled, &Compiled),
        number: u16,
        path: &str,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reading = Reading { from, to, path, problems };
        let levels = reading.levels(equivalence);
        let values = reading.values(equivalence);
        let requires =
            equivalence.requires.iter().filter_map(|tag| reading.tag(from, tag, "requires")).collect();
        let mut discard = BTreeSet::new();
        for reference in &equivalence.discard {
            let found = reading.refer(from, &reference.tag, reference.value.as_deref(), "discard");
            discard.extend(found);
        }
        let mut add = Vec::new();
        for reference in &equivalence.add {
            match &reference.value {
                Some(value) => add.extend(reading.refer(to, &reference.tag, Some(value), "add")),
                None => reading.add("add", format!("'{}' needs a value", reference.tag)),
            }
        }
        Self { to: number, access: equivalence.access, levels, requires, values, discard, add }
    }

    /// The target's class level for one of the source.
    pub(crate) fn level(&self, level: u16) -> Option<u16> {
        self.levels.get(usize::from(level)).copied().flatten()
    }

    /// The label in the target. None when its class or a restrictive value has no equivalent, or a required tag is
    /// missing. Permissive values without an equivalent are left out; when none is left, it is for its originator only.
    pub(crate) fn form(&self, from: &Compiled, to: &Compiled, form: &Form) -> Option<Form> {
        let mut translated = Form { policy: self.to, level: self.level(form.level)?, ..Form::default() };
        let present: BTreeSet<usize> = from.values(form).map(|(tag, ..)| tag).collect();
        if !form.originator_only && !self.requires.iter().all(|tag| present.contains(tag)) {
            return None;
        }
        for bit in form.restrictive.iter() {
            let place = from.place(TagType::Restrictive, bit)?;
            match self.values.get(&place) {
                Some(&(tag, value)) => to.insert(&mut translated, tag, value),
                None if self.discard.contains(&place) => {}
                None => return None,
            }
        }
        for bit in form.informative.iter() {
            let place = from.place(TagType::Informative, bit);
            if let Some(&(tag, value)) = place.and_then(|place| self.values.get(&place)) {
                to.insert(&mut translated, tag, value);
            }
        }
        let mut nobody = form.originator_only;
        for (tag, values) in &form.permissive {
            let known = values.iter().filter_map(|value| self.values.get(&(usize::from(*tag), value)));
            let before = translated.permissive.clone();
            known.for_each(|&(tag, value)| to.insert(&mut translated, tag, value));
            nobody |= translated.permissive == before;
        }
        self.add.iter().for_each(|&(tag, value)| to.insert(&mut translated, tag, value));
        if nobody {
            translated.only_originator();
        }
        Some(translated)
    }
}

struct Reading<'r> {
    from: &'r Compiled,
    to: &'r Compiled,
    path: &'r str,
    problems: &'r mut Vec<Problem>,
}

impl Reading<'_> {
    fn add(&mut self, field: &str, what: impl Into<String>) {
        self.problems.push(Problem::new(format!("{}.{field}", self.path), what));
    }

    fn levels(&mut self, equivalence: &Equivalence) -> Vec<Option<u16>> {
        let mut levels = vec![None; self.from.levels().count()];
        for (source, target) in &equivalence.classes {
            match (class(self.from, source), class(self.to, target)) {
                (Some(source), Some(target)) => {
                    if let Some(level) = levels.get_mut(usize::from(source)) {
                        *level = Some(target);
                    }
                }
                (None, _) => {
                    self.add("classes", format!("'{source}' is no classification of {}", self.from.spif.name))
                }
                (_, None) => {
                    self.add("classes", format!("'{target}' is no classification of {}", self.to.spif.name))
                }
            }
        }
        let known: Vec<u16> = levels.iter().copied().flatten().collect();
        if !known.is_sorted() {
            self.add("classes", "puts a higher classification below a lower one");
        }
        levels
    }

    fn values(&mut self, equivalence: &Equivalence) -> BTreeMap<(usize, usize), (usize, usize)> {
        let mut all = BTreeMap::new();
        let mut targets = BTreeMap::new();
        let same: BTreeMap<String, String> = BTreeMap::from([("*".into(), "*".into())]);
        for (source, target) in &equivalence.tags {
            let found = (self.tag(self.from, source, "tags"), self.tag(self.to, target, "tags"));
            let (Some(source_at), Some(target_at)) = found else { continue };
            let (from, to) = (self.from, self.to);
            let (Some(source_tag), Some(target_tag)) =
                (from.spif.tags.get(source_at), to.spif.tags.get(target_at))
            else {
                continue;
            };
            if source_tag.kind != target_tag.kind {
                let (is, becomes) = (source_tag.kind.name(), target_tag.kind.name());
                self.add(
                    "tags",
                    format!("'{source}' is {is} and '{target}' is {becomes}: both have to be of one type"),
                );
                continue;
            }
            if source_tag.kind == TagType::Permissive
                && let Some(other) = targets.insert(target_at, source)
            {
                self.add(
                    "tags",
                    format!("'{other}' and '{source}' both become '{target}', which would let in more"),
                );
                continue;
            }
            let map = equivalence.values.get(source).unwrap_or(&same);
            if map.get("*").is_some_and(|target| target == "*") {
                for (at, value) in source_tag.values.iter().enumerate() {
                    if let Some(value) = to.find_value(target_at, &value.name) {
                        all.insert((source_at, at), (target_at, value));
                    }
                }
            }
            for (name, equivalent) in map.iter().filter(|(name, _)| *name != "*") {
                match (value(from, source_at, name), value(to, target_at, equivalent)) {
                    (Some(name), Some(equivalent)) => {
                        all.insert((source_at, name), (target_at, equivalent));
                    }
                    (None, _) => self.add("values", format!("'{name}' is no value of '{source}'")),
                    (_, None) => self.add("values", format!("'{equivalent}' is no value of '{target}'")),
                }
            }
        }
        all
    }

    fn tag(&mut self, policy: &Compiled, name: &str, field: &str) -> Option<usize> {
        let found = match names::strip_prefix(name, OID) {
            Some(oid) => policy.spif.tags.iter().position(|tag| tag.oid.as_deref() == Some(oid)),
            None => policy.find_tag(name),
        };
        if found.is_none() {
            self.add(field, format!("'{name}' is no tag of {}", policy.spif.name));
        }
        found
    }

    /// The places of a value, or of all values of a tag.
    fn refer(
        &mut self,
        policy: &Compiled,
        tag: &str,
        name: Option<&str>,
        field: &str,
    ) -> Vec<(usize, usize)> {
        let Some(at) = self.tag(policy, tag, field) else { return Vec::new() };
        let Some(name) = name else {
            let count = policy.spif.tags.get(at).map_or(0, |tag| tag.values.len());
            return (0..count).map(|value| (at, value)).collect();
        };
        let found = value(policy, at, name);
        if found.is_none() {
            self.add(field, format!("'{name}' is no value of '{tag}'"));
        }
        found.map(|value| (at, value)).into_iter().collect()
    }
}

fn class(policy: &Compiled, name: &str) -> Option<u16> {
    let Some(lacv) = names::strip_prefix(name, LACV) else { return policy.level(name).ok() };
    let found = policy.levels().position(|class| class.lacv.as_deref() == Some(lacv))?;
    u16::try_from(found).ok()
}

fn value(policy: &Compiled, tag: usize, name: &str) -> Option<usize> {
    let Some(lacv) = names::strip_prefix(name, LACV) else { return policy.find_value(tag, name) };
    policy.spif.tags.get(tag)?.values.iter().position(|value| value.lacv.as_deref() == Some(lacv))
}

/// Whether a form has a value of a tag.
pub(crate) fn has(policy: &Compiled, form: &Form, tag: usize, value: Option<usize>) -> bool {
    let shown = policy.values(form).find(|(at, ..)| *at == tag);
    match value {
        None => shown.is_some(),
        Some(value) => {
            let bits = u16::try_from(tag).ok().and_then(|tag| of_tag(&form.permissive, tag));
            bits.is_some_and(|bits| bits.has(value))
                || shown.is_some_and(|(.., values)| values.contains(&value))
        }
    }
}
