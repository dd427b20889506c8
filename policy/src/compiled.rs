//! A policy with its names looked up: from names to numbers and back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    bits::Bits,
    clearance::{ALL, Grant},
    label::{Label, TagType},
    lattice::{Form, GrantForm, of_tag},
    names::fold,
    policies::LabelError,
    spif::{Class, Spif, Tag, TagValue},
};

#[derive(Debug)]
pub(crate) struct Compiled {
    pub spif: Arc<Spif>,
    pub digest: String,
    /// Places in `spif.classes`, from the lowest rank.
    levels: Vec<usize>,
    classes: HashMap<String, u16>,
    tags: Vec<CompiledTag>,
    tag_names: HashMap<String, usize>,
}

#[derive(Debug)]
struct CompiledTag {
    /// Where its values begin among those of all tags of its type.
    base: usize,
    values: HashMap<String, usize>,
    /// The members of each value that is a group.
    groups: BTreeMap<usize, Bits>,
}

impl Compiled {
    /// `spif` was checked.
    pub(crate) fn new(spif: Spif) -> Self {
        let mut levels: Vec<usize> = (0..spif.classes.len()).collect();
        levels.sort_by_key(|&at| spif.classes.get(at).map(|class| class.rank));
        let mut classes = HashMap::new();
        for (level, &at) in levels.iter().enumerate() {
            let Some(class) = spif.classes.get(at) else { continue };
            for name in std::iter::once(&class.name).chain(&class.aliases) {
                classes.insert(fold(name), u16::try_from(level).unwrap_or(u16::MAX));
            }
        }
        let (mut tags, mut tag_names, mut next) = (Vec::new(), HashMap::new(), HashMap::new());
        for (at, tag) in spif.tags.iter().enumerate() {
            for name in std::iter::once(&tag.name).chain(&tag.short) {
                tag_names.insert(fold(name), at);
            }
            let base: &mut usize = next.entry(tag.kind.name()).or_default();
            tags.push(CompiledTag::new(tag, *base));
            *base += tag.values.len();
        }
        let digest = spif.digest();
        Self { spif: Arc::new(spif), digest, levels, classes, tags, tag_names }
    }

    pub(crate) fn level(&self, class: &str) -> Result<u16, LabelError> {
        self.classes.get(&fold(class)).copied().ok_or_else(|| LabelError::UnknownClass {
            policy: self.spif.name.clone(),
            class: class.to_owned(),
            known: self.levels().map(|class| class.name.clone()).collect(),
        })
    }

    /// The classifications, from the lowest.
    pub(crate) fn levels(&self) -> impl Iterator<Item = &Class> {
        self.levels.iter().filter_map(|&at| self.spif.classes.get(at))
    }

    pub(crate) fn class(&self, level: u16) -> Option<&Class> {
        self.spif.classes.get(*self.levels.get(usize::from(level))?)
    }

    pub(crate) fn class_name(&self, level: u16) -> String {
        self.class(level).map(|class| class.name.clone()).unwrap_or_default()
    }

    /// The place of a tag, by its name or short form.
    pub(crate) fn find_tag(&self, name: &str) -> Option<usize> {
        self.tag_names.get(&fold(name)).copied()
    }

    pub(crate) fn tag(&self, name: &str) -> Result<(usize, &Tag), LabelError> {
        let found = self.find_tag(name).and_then(|at| Some((at, self.spif.tags.get(at)?)));
        found.ok_or_else(|| LabelError::UnknownTag { policy: self.spif.name.clone(), tag: name.to_owned() })
    }

    pub(crate) fn find_value(&self, tag: usize, name: &str) -> Option<usize> {
        self.tags.get(tag)?.values.get(&fold(name)).copied()
    }

    pub(crate) fn value(&self, tag: usize, name: &str) -> Result<usize, LabelError> {
        self.find_value(tag, name).ok_or_else(|| LabelError::UnknownValue {
            policy: self.spif.name.clone(),
            tag: self.spif.tags.get(tag).map(|tag| tag.name.clone()).unwrap_or_default(),
            value: name.to_owned(),
        })
    }

    pub(crate) fn value_at(&self, tag: usize, value: usize) -> Option<&TagValue> {
        self.spif.tags.get(tag)?.values.get(value)
    }

    /// The form of a label of this policy, without its equivalent labels.
    pub(crate) fn form(&self, policy: u16, label: &Label) -> Result<Form, LabelError> {
        let mut form = Form { policy, level: self.level(label.class())?, ..Form::default() };
        for cat in label.cats() {
            let (at, tag) = self.tag(cat.tag())?;
            if tag.kind != cat.kind() {
                return Err(LabelError::WrongType {
                    policy: self.spif.name.clone(),
                    tag: tag.name.clone(),
                    stated: cat.kind(),
                    right: tag.kind,
                });
            }
            for name in cat.vals() {
                self.insert(&mut form, at, self.value(at, name)?);
            }
        }
        if label.originator_only() {
            form.only_originator();
        }
        Ok(form)
    }

    /// Adds a value to a form.
    pub(crate) fn insert(&self, form: &mut Form, tag: usize, value: usize) {
        let (Some(known), Some(compiled)) = (self.spif.tags.get(tag), self.tags.get(tag)) else { return };
        match known.kind {
            TagType::Restrictive => form.restrictive.insert(compiled.base + value),
            TagType::Informative => form.informative.insert(compiled.base + value),
            TagType::Permissive => {
                let tag = u16::try_from(tag).unwrap_or(u16::MAX);
                if of_tag(&form.permissive, tag).is_none() {
                    form.permissive.push((tag, Bits::default()));
                    form.permissive.sort_unstable_by_key(|(tag, _)| *tag);
                }
                for (_, values) in form.permissive.iter_mut().filter(|(known, _)| *known == tag) {
                    values.insert(value);
                    if let Some(members) = compiled.groups.get(&value) {
                        *values = values.union(members);
                    }
                }
            }
        }
    }

    /// The form of a grant under this policy.
    pub(crate) fn grant(&self, policy: u16, grant: &Grant) -> Result<GrantForm, LabelError> {
        let mut form = GrantForm { policy, level: self.level(grant.class())?, ..GrantForm::default() };
        for (name, vals) in grant.holds() {
            let (at, tag) = self.tag(name)?;
            let Some(compiled) = self.tags.get(at) else { continue };
            let mut held = Bits::default();
            for val in vals {
                if val == ALL {
                    held = held.union(&(0..tag.values.len()).collect());
                } else {
                    held.insert(self.value(at, val)?);
                }
            }
            match tag.kind {
                TagType::Restrictive => {
                    let held: Bits = held.iter().map(|value| compiled.base + value).collect();
                    form.restrictive = form.restrictive.union(&held);
                }
                TagType::Permissive if !held.is_empty() => {
                    let groups = compiled.groups.iter().filter(|(_, members)| members.meets(&held));
                    let groups: Bits = groups.map(|(&group, _)| group).collect();
                    // A clearance names a tag once by each of its two names at most.
                    let at = u16::try_from(at).unwrap_or(u16::MAX);
                    let before = of_tag(&form.permissive, at).cloned().unwrap_or_default();
                    form.permissive.retain(|(known, _)| *known != at);
                    form.permissive.push((at, before.union(&held).union(&groups)));
                    form.permissive.sort_unstable_by_key(|(tag, _)| *tag);
                }
                TagType::Permissive | TagType::Informative => {}
            }
        }
        Ok(form)
    }

    /// The values of a form: each tag that has any, with its values in the policy's order. Members of groups that are
    /// there are left out, unless they are always shown.
    pub(crate) fn values<'s>(&'s self, form: &'s Form) -> impl Iterator<Item = (usize, &'s Tag, Vec<usize>)> {
        self.spif.tags.iter().zip(&self.tags).enumerate().filter_map(|(at, (tag, compiled))| {
            let flat = |bits: &Bits| {
                let range = compiled.base..compiled.base + tag.values.len();
                range.filter(|&bit| bits.has(bit)).map(|bit| bit - compiled.base).collect()
            };
            let values: Vec<usize> = match tag.kind {
                TagType::Restrictive => flat(&form.restrictive),
                TagType::Informative => flat(&form.informative),
                TagType::Permissive => {
                    let values = of_tag(&form.permissive, u16::try_from(at).unwrap_or(u16::MAX))?;
                    compiled.shown(tag, values)
                }
            };
            (!values.is_empty()).then_some((at, tag, values))
        })
    }

    /// The label of a form.
    pub(crate) fn label(&self, form: &Form) -> Result<Label, LabelError> {
        let mut label = Label::new(&self.spif.name, &self.class_name(form.level))?;
        for (_, tag, values) in self.values(form) {
            let names =
                values.iter().filter_map(|&value| tag.values.get(value)).map(|value| value.name.as_str());
            label = label.with(&tag.name, tag.kind, names)?;
        }
        Ok(label.for_originator_only(form.originator_only))
    }

    /// Where the restrictive or informative value that is this bit stands: its tag and its place there.
    pub(crate) fn place(&self, kind: TagType, bit: usize) -> Option<(usize, usize)> {
        self.spif.tags.iter().zip(&self.tags).enumerate().find_map(|(at, (tag, compiled))| {
            let value = bit.checked_sub(compiled.base)?;
            (tag.kind == kind && value < tag.values.len()).then_some((at, value))
        })
    }
}

impl CompiledTag {
    fn new(tag: &Tag, base: usize) -> Self {
        let mut values = HashMap::new();
        for (at, value) in tag.values.iter().enumerate() {
            for name in std::iter::once(&value.name).chain(&value.aliases) {
                values.insert(fold(name), at);
            }
        }
        let mut groups = BTreeMap::new();
        for (at, group) in tag.values.iter().enumerate().filter(|(_, value)| !value.members.is_empty()) {
            groups.insert(
                at,
                group.members.iter().filter_map(|member| values.get(&fold(member)).copied()).collect(),
            );
        }
        Self { base, values, groups }
    }

    fn shown(&self, tag: &Tag, values: &Bits) -> Vec<usize> {
        let covered =
            self.groups.iter().filter(|(group, members)| values.has(**group) && members.is_subset(values));
        let covered = covered.fold(Bits::default(), |all, (_, members)| all.union(members));
        let always = |value: usize| tag.values.get(value).is_some_and(|value| value.always_shown);
        values.iter().filter(|&value| !covered.has(value) || always(value)).collect()
    }
}
