//! The policies that are loaded, and what is asked of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use crate::{
    clearance::Clearance,
    compiled::Compiled,
    equivalence::{OID, Translation, has},
    label::{Label, Malformed, TagType},
    lattice::{Dominance, Form, Reason, Resolved, ResolvedClearance, of_tag},
    limits,
    names::{fold, strip_prefix},
    spif::{Direction, Need, PRESETS, Problem, Problems, Requirement, Spif, ValueRef},
};

/// The policies that are loaded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policies(pub(crate) Arc<Loaded>);

#[derive(Debug)]
pub(crate) struct Loaded {
    pub policies: Vec<Compiled>,
    by_name: HashMap<String, u16>,
    /// The policy of labels whose text names none.
    pub default: Option<u16>,
    translations: BTreeMap<(u16, u16), Translation>,
    revision: u64,
}

/// Why a label or a clearance means nothing under the policies that are loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The policy is not loaded.
    #[error("policy '{policy}' is not loaded; loaded are {}", .known.join(", "))]
    UnknownPolicy {
        /// The name.
        policy: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// The policy has no such classification.
    #[error("{policy} has no classification '{class}'; it has {}", .known.join(", "))]
    UnknownClass {
        /// The policy.
        policy: String,
        /// The name.
        class: String,
        /// Those it has, from the lowest.
        known: Vec<String>,
    },
    /// The policy has no such tag.
    #[error("{policy} has no tag '{tag}'")]
    UnknownTag {
        /// The policy.
        policy: String,
        /// The name.
        tag: String,
    },
    /// The tag has no such value.
    #[error("{policy} has no '{value}' under '{tag}'")]
    UnknownValue {
        /// The policy.
        policy: String,
        /// The tag.
        tag: String,
        /// The name.
        value: String,
    },
    /// The label states another type of a tag than the policy.
    #[error("'{tag}' of {policy} is {}, not {}", .right.name(), .stated.name())]
    WrongType {
        /// The policy.
        policy: String,
        /// The tag.
        tag: String,
        /// What the label states.
        stated: TagType,
        /// What it is.
        right: TagType,
    },
    /// An equivalent label protects less than the label does.
    #[error("the equivalent label under {policy} is too low: {why}")]
    AlternativeTooLow {
        /// The equivalent label's policy.
        policy: String,
        /// What it lacks.
        why: String,
    },
    /// Labels have no policy in common.
    #[error("no policy has equivalents of all these labels: {}", .policies.join(", "))]
    NoCommonPolicy {
        /// The labels' policies.
        policies: Vec<String>,
    },
    /// A label's or clearance's text cannot be read.
    #[error("'{part}' {problem}")]
    Text {
        /// The part that cannot.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What would follow is no label.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Policies {
    /// Loads policies. The first is that of labels whose text names none, where they could belong to several.
    ///
    /// # Errors
    /// All that is wrong with them, alone and together, each with the policy and the path.
    pub fn new(spifs: Vec<Spif>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        if spifs.len() > limits::POLICIES {
            return Err(Problems::one(
                "",
                format!("{} policies are more than {}", spifs.len(), limits::POLICIES),
            ));
        }
        let mut by_name = HashMap::new();
        for (number, spif) in (0u16..).zip(&spifs) {
            let named =
                |problem: Problem| Problem::new(format!("{}: {}", spif.name, problem.path), problem.what);
            problems.extend(spif.check().err().into_iter().flat_map(|found| found.0).map(named));
            let oid = spif.oid.iter().map(|oid| format!("{OID}{oid}"));
            for name in std::iter::once(spif.name.clone()).chain(spif.aliases.iter().cloned()).chain(oid) {
                if by_name.insert(fold(&name), number).is_some() {
                    problems.push(Problem::new(
                        spif.name.as_str(),
                        format!("'{name}' is the name of two policies"),
                    ));
                }
            }
        }
        if !problems.is_empty() {
            problems.truncate(limits::PROBLEMS);
            return Err(Problems(problems));
        }
        let mut hash = Sha256::new();
        let policies: Vec<Compiled> = spifs.into_iter().map(Compiled::new).collect();
        policies.iter().for_each(|policy| hash.update(&policy.digest));
        let revision = hash.finalize().iter().take(8).fold(0, |all, &byte| all << 8 | u64::from(byte));
        let translations = translations(&policies, &by_name, &mut problems);
        if !problems.is_empty() {
            problems.truncate(limits::PROBLEMS);
            return Err(Problems(problems));
        }
        let default = (!policies.is_empty()).then_some(0);
        Ok(Self(Arc::new(Loaded { policies, by_name, default, translations, revision })))
    }

    /// All the policies that come with the program, the company's first.
    ///
    /// # Errors
    /// Never; a test loads them.
    pub fn presets() -> Result<Self, Problems> {
        Self::new(PRESETS.iter().map(crate::spif::Preset::read).collect::<Result<_, _>>()?)
    }

    /// Reads a policy's default label. The policy may have been checked up to there only.
    pub(crate) fn read_default(spif: &Spif, text: &str) -> Result<Label, LabelError> {
        let spif = Spif { equivalences: Vec::new(), ..spif.clone() };
        let policies = vec![Compiled::new(spif)];
        let (by_name, translations) = (HashMap::new(), BTreeMap::new());
        let label = Self(Arc::new(Loaded { policies, by_name, default: Some(0), translations, revision: 0 }))
            .parse_label(text)?;
        if label.alternatives().is_empty() {
            Ok(label)
        } else {
            Err(LabelError::Text { part: text.to_owned(), problem: "has equivalent labels".into() })
        }
    }

    /// The policies, in the order in which they were loaded.
    pub fn spifs(&self) -> impl Iterator<Item = &Spif> {
        self.0.policies.iter().map(|policy| &*policy.spif)
    }

    /// The policy of this name, alias, or `oid:` and object identifier.
    #[must_use]
    pub fn spif(&self, name: &str) -> Option<&Spif> {
        self.policy(name).ok().map(|(_, policy)| &*policy.spif)
    }

    /// The digest of a policy, as labels state it.
    #[must_use]
    pub fn digest(&self, name: &str) -> Option<&str> {
        self.policy(name).ok().map(|(_, policy)| policy.digest.as_str())
    }

    /// The label of objects that nobody labelled: that of the first policy, if it has one.
    #[must_use]
    pub fn default_label(&self) -> Option<Label> {
        let spif = &self.at(self.0.default?)?.spif;
        Self::read_default(spif, spif.default.as_deref()?).ok()
    }

    pub(crate) fn policy(&self, name: &str) -> Result<(u16, &Compiled), LabelError> {
        let number = self.0.by_name.get(&fold(name)).copied();
        number.and_then(|number| Some((number, self.at(number)?))).ok_or_else(|| LabelError::UnknownPolicy {
            policy: name.to_owned(),
            known: self.spifs().map(|spif| spif.name.clone()).collect(),
        })
    }

    pub(crate) fn at(&self, number: u16) -> Option<&Compiled> {
        self.0.policies.get(usize::from(number))
    }

    /// Looks up what a label means, for comparing it with [`ResolvedClearance::dominates`], [`Resolved::at_most`] and
    /// [`Resolved::join`].
    ///
    /// Rules of the policy on which values go together are not applied: an impossible label protects its object
    /// as well as a possible one. They are for those who give labels ([`Self::check`]).
    ///
    /// # Errors
    /// When its policy is not loaded or lacks one of its names, or an equivalent label is lower than the policies say.
    /// An equivalent label in a policy that is not loaded is passed over: nobody here is cleared under it.
    pub fn resolve(&self, label: &Label) -> Result<Resolved, LabelError> {
        let (primary, policy) = self.policy(label.policy())?;
        let own = policy.form(primary, label)?;
        let mut forms: SmallVec<[Form; 1]> = SmallVec::new();
        for alt in label.alternatives() {
            if let Ok((number, other)) = self.policy(alt.policy()) {
                let form = other.form(number, alt)?;
                if number == primary || forms.iter().any(|form| form.policy == number) {
                    let what = format!("'{}' has a label already", alt.policy());
                    return Err(Malformed { path: "alt".into(), problem: what }.into());
                }
                self.not_too_low(&own, policy, &form, other)?;
                forms.push(form);
            }
        }
        for (&(from, to), translation) in self.0.translations.range((primary, 0)..=(primary, u16::MAX)) {
            if translation.access
                && !forms.iter().any(|form| form.policy == to)
                && let (Some(from), Some(to)) = (self.at(from), self.at(to))
            {
                forms.extend(translation.form(from, to, &own));
            }
        }
        forms.push(own);
        forms.sort_unstable_by_key(|form| form.policy);
        Ok(Resolved { revision: self.0.revision, primary, forms: Some(forms) })
    }

    /// The originator decides who may see the object under another policy, but not that it is worth less protection.
    fn not_too_low(
        &self,
        own: &Form,
        policy: &Compiled,
        alt: &Form,
        other: &Compiled,
    ) -> Result<(), LabelError> {
        let too_low =
            |why: String| Err(LabelError::AlternativeTooLow { policy: other.spif.name.clone(), why });
        if own.originator_only && !alt.originator_only {
            return too_low("it is not for the originator only".into());
        }
        let Some(translation) = self.0.translations.get(&(own.policy, alt.policy)) else { return Ok(()) };
        if let Some(level) = translation.level(own.level)
            && alt.level < level
        {
            return too_low(format!("{} is below {}", other.class_name(alt.level), other.class_name(level)));
        }
        if let Some(equivalent) = translation.form(policy, other, own)
            && let Some(lost) = equivalent.restrictive.iter().find(|&bit| !alt.restrictive.has(bit))
            && let Some((tag, value)) = other.place(TagType::Restrictive, lost)
        {
            return too_low(format!(
                "it lacks {}",
                other.value_at(tag, value).map_or("a value", |value| &value.name)
            ));
        }
        Ok(())
    }

    /// What an object without a label resolves to.
    #[must_use]
    pub fn unlabelled(&self) -> Resolved {
        Resolved { revision: self.0.revision, primary: 0, forms: None }
    }

    /// [`Self::resolve`] of a label, if there is one.
    ///
    /// # Errors
    /// As it.
    pub fn resolve_if_any(&self, label: Option<&Label>) -> Result<Resolved, LabelError> {
        label.map_or_else(|| Ok(self.unlabelled()), |label| self.resolve(label))
    }

    /// The clearance of someone who is not cleared, in numbers.
    #[must_use]
    pub fn uncleared(&self) -> ResolvedClearance {
        ResolvedClearance { revision: self.0.revision, grants: SmallVec::new() }
    }

    /// The rank of a label's classification among those of its policy, 0 being the lowest, if both are known.
    #[must_use]
    pub fn rank(&self, label: &Label) -> Option<u32> {
        self.resolve(label).ok()?.rank()
    }

    /// Looks up what a clearance means.
    ///
    /// # Errors
    /// When a policy is not loaded or lacks one of its names.
    pub fn resolve_clearance(&self, clearance: &Clearance) -> Result<ResolvedClearance, LabelError> {
        let mut grants: SmallVec<[_; 1]> = SmallVec::new();
        for grant in clearance.grants() {
            let (number, policy) = self.policy(grant.policy())?;
            let form = policy.grant(number, grant)?;
            if grants.iter().any(|other: &crate::lattice::GrantForm| other.policy == number) {
                let what = format!("'{}' has a grant already", grant.policy());
                return Err(Malformed { path: "grants".into(), problem: what }.into());
            }
            grants.push(form);
        }
        grants.sort_unstable_by_key(|form| form.policy);
        Ok(ResolvedClearance { revision: self.0.revision, grants })
    }

    /// Whether a holder may see an object, and why not. An object without a label may be seen by everyone.
    ///
    /// # Errors
    /// When the label or the clearance means nothing under these policies. The answer is then no.
    pub fn dominates(&self, clearance: &Clearance, label: Option<&Label>) -> Result<Dominance, LabelError> {
        Ok(self.explain(&self.resolve_clearance(clearance)?, &self.resolve_if_any(label)?))
    }

    /// [`ResolvedClearance::dominates`] with the reasons when it does not: under the label's own policy if the holder is
    /// cleared there, otherwise under the first that both have.
    #[must_use]
    pub fn explain(&self, clearance: &ResolvedClearance, label: &Resolved) -> Dominance {
        if clearance.dominates(label) {
            return Dominance::Holds;
        }
        let forms = label.forms.iter().flatten();
        if [clearance.revision, label.revision] != [self.0.revision; 2] {
            return Dominance::Fails(vec![Reason::OtherPolicies]);
        }
        let own = label.form(label.primary).into_iter();
        let found = own.chain(forms.clone()).find_map(|form| Some((form, clearance.grant(form.policy)?)));
        let Some((form, grant)) = found else {
            let policies =
                forms.filter_map(|form| self.at(form.policy)).map(|policy| policy.spif.name.clone());
            return Dominance::Fails(vec![Reason::NoClearance { policies: policies.collect() }]);
        };
        let Some(policy) = self.at(form.policy) else { return Dominance::Fails(vec![Reason::OtherPolicies]) };
        let mut reasons = Vec::new();
        if form.level > grant.level {
            reasons.push(Reason::ClassAbove {
                class: policy.class_name(form.level),
                limit: policy.class_name(grant.level),
            });
        }
        for (tag, value) in missing(policy, form, &grant.restrictive) {
            reasons.push(Reason::NotHeld { tag, value });
        }
        for (tag, values) in permissive(policy, form) {
            let held = of_tag(&grant.permissive, tag.0);
            if !held
                .is_some_and(|held| of_tag(&form.permissive, tag.0).is_some_and(|values| held.meets(values)))
            {
                reasons.push(Reason::NoneHeld { tag: tag.1, values });
            }
        }
        if form.originator_only {
            reasons.push(Reason::OriginatorOnly);
        }
        Dominance::Fails(reasons)
    }

    /// Whether everyone who may see what is labelled with `bound` may see what is labelled with `label`: so an event's
    /// label has to be at most its room's. An event without a label is; one with a label is not in a room without.
    ///
    /// # Errors
    /// When a label means nothing under these policies. The answer is then no.
    pub fn label_at_most(
        &self,
        label: Option<&Label>,
        bound: Option<&Label>,
    ) -> Result<Dominance, LabelError> {
        let (label, bound) = (self.resolve_if_any(label)?, self.resolve_if_any(bound)?);
        if label.at_most(&bound) {
            return Ok(Dominance::Holds);
        }
        let Some(bounds) = &bound.forms else { return Ok(Dominance::Fails(vec![Reason::BoundUnlabelled])) };
        let mut reasons = Vec::new();
        for bound in bounds {
            let Some(policy) = self.at(bound.policy) else { continue };
            let Some(form) = label.form(bound.policy) else {
                reasons.push(Reason::NoEquivalent { policy: policy.spif.name.clone() });
                continue;
            };
            if form.level > bound.level {
                reasons.push(Reason::ClassAbove {
                    class: policy.class_name(form.level),
                    limit: policy.class_name(bound.level),
                });
            }
            for (tag, value) in missing(policy, form, &bound.restrictive) {
                reasons.push(Reason::NotInBound { tag, value });
            }
            if bound.originator_only {
                continue;
            }
            for (tag, values) in permissive(policy, form) {
                let within = of_tag(&bound.permissive, tag.0).is_some_and(|narrow| {
                    of_tag(&form.permissive, tag.0).is_some_and(|wide| narrow.is_subset(wide))
                });
                if !within {
                    reasons.push(Reason::Narrower { tag: tag.1, values });
                }
            }
            if form.originator_only {
                reasons.push(Reason::OriginatorOnly);
            }
        }
        Ok(Dominance::Fails(reasons))
    }

    /// The label of what is made of objects with these labels: an export, a digest, an answer. None when none has one.
    ///
    /// # Errors
    /// When a label means nothing under these policies, or no policy has equivalents of all of them.
    pub fn join<'l>(&self, labels: impl IntoIterator<Item = &'l Label>) -> Result<Option<Label>, LabelError> {
        let mut join = self.unlabelled();
        let mut policies = Vec::new();
        for label in labels {
            join = join.join(&self.resolve(label)?);
            if !policies.contains(&label.policy().to_owned()) && policies.len() < limits::POLICIES {
                policies.push(label.policy().to_owned());
            }
        }
        match &join.forms {
            None => Ok(None),
            Some(forms) if forms.is_empty() => Err(LabelError::NoCommonPolicy { policies }),
            Some(_) => self.label_of(&join).map(Some),
        }
    }

    /// The label that resolves to this, with equivalent labels where the policies do not say so themselves.
    ///
    /// # Errors
    /// When it is not labelled, has no form at all, or was resolved against other policies.
    pub fn label_of(&self, resolved: &Resolved) -> Result<Label, LabelError> {
        let none = || LabelError::NoCommonPolicy { policies: Vec::new() };
        let own = resolved
            .form(resolved.primary)
            .filter(|_| resolved.revision == self.0.revision)
            .ok_or_else(none)?;
        let policy = self.at(own.policy).ok_or_else(none)?;
        let mut label = policy.label(own)?;
        for form in resolved.forms.iter().flatten().filter(|form| form.policy != own.policy) {
            let Some(other) = self.at(form.policy) else { continue };
            let translation = self.0.translations.get(&(own.policy, form.policy));
            let said = translation.and_then(|translation| translation.form(policy, other, own));
            if said.as_ref() != Some(form) && self.not_too_low(own, policy, form, other).is_ok() {
                label = label.with_alternative(other.label(form)?)?;
            }
        }
        Ok(label)
    }

    /// The label in another policy, as policy files say, whether or not that decides about access. None when nothing
    /// says so.
    ///
    /// # Errors
    /// When the label means nothing under these policies, or the other is not loaded.
    pub fn equivalent(&self, label: &Label, policy: &str) -> Result<Option<Label>, LabelError> {
        let ((from_number, from), (to_number, to)) = (self.policy(label.policy())?, self.policy(policy)?);
        let own = from.form(from_number, label)?;
        let translation = self.0.translations.get(&(from_number, to_number));
        translation
            .and_then(|translation| translation.form(from, to, &own))
            .map(|form| to.label(&form))
            .transpose()
    }

    /// The same label with the names the policies have for what it names, the text to show, and the digest of the policy
    /// file: what a new object gets.
    ///
    /// # Errors
    /// When it means nothing under these policies.
    pub fn complete(&self, label: &Label) -> Result<Label, LabelError> {
        let (number, policy) = self.policy(label.policy())?;
        let mut complete = policy.label(&policy.form(number, label)?)?;
        if let Some(created) = label.created() {
            complete = complete.with_created(created)?;
        }
        for alt in label.alternatives() {
            let alt = match self.policy(alt.policy()) {
                Ok((number, other)) => other.label(&other.form(number, alt)?)?,
                Err(_) => alt.clone(),
            };
            complete = complete.with_alternative(alt)?;
        }
        Ok(complete.with_mark(&self.marking(label)?.text)?.with_spif(&policy.digest)?)
    }

    /// Which rules of its policy on what goes together a label breaks: for those who give labels.
    ///
    /// # Errors
    /// When it means nothing under these policies.
    pub fn check(&self, label: &Label) -> Result<Vec<String>, LabelError> {
        let (number, policy) = self.policy(label.policy())?;
        let form = policy.form(number, label)?;
        let mut broken = Vec::new();
        let class = policy.class(form.level);
        let class_name = policy.class_name(form.level);
        if class.is_some_and(|class| class.obsolete) {
            broken.push(format!("{class_name} is not given any more"));
        }
        for requirement in class.iter().flat_map(|class| &class.requires) {
            broken.extend(unmet(policy, &form, requirement).map(|needs| format!("{class_name} {needs}")));
        }
        for (at, tag, values) in policy.values(&form) {
            if tag.most.is_some_and(|most| values.len() > usize::from(most)) {
                broken.push(format!(
                    "{} has {} values, at most {}",
                    tag.name,
                    values.len(),
                    tag.most.unwrap_or(0)
                ));
            }
            for value in values.iter().filter_map(|&value| policy.value_at(at, value)) {
                if value.obsolete {
                    broken.push(format!("{} is not given any more", value.name));
                }
                let allowed = |name: &String| policy.level(name).is_ok_and(|level| level == form.level);
                if !value.classes.is_empty() && !value.classes.iter().any(allowed) {
                    broken.push(format!("{} does not go with {class_name}", value.name));
                }
                for requirement in &value.requires {
                    broken.extend(
                        unmet(policy, &form, requirement).map(|needs| format!("{} {needs}", value.name)),
                    );
                }
                for other in value.excludes.iter().filter(|other| present(policy, &form, other)) {
                    broken.push(format!("{} does not go with {}", value.name, shown(other)));
                }
            }
        }
        Ok(broken)
    }
}

fn present(policy: &Compiled, form: &Form, reference: &ValueRef) -> bool {
    let Some(tag) = policy.find_tag(&reference.tag) else { return false };
    match &reference.value {
        None => has(policy, form, tag, None),
        Some(value) => policy.find_value(tag, value).is_some_and(|value| has(policy, form, tag, Some(value))),
    }
}

fn shown(reference: &ValueRef) -> &str {
    reference.value.as_deref().unwrap_or(&reference.tag)
}

fn unmet(policy: &Compiled, form: &Form, requirement: &Requirement) -> Option<String> {
    let there = requirement.of.iter().filter(|reference| present(policy, form, reference)).count();
    let (met, how) = match requirement.need {
        Need::All => (there == requirement.of.len(), "all of"),
        Need::Any => (there > 0, "one or more of"),
        Need::One => (there == 1, "exactly one of"),
    };
    let of: Vec<&str> = requirement.of.iter().map(shown).collect();
    (!met).then(|| format!("needs {how} {}", of.join(", ")))
}

/// Restrictive values of a form that are not in a set: tag and value.
fn missing<'p>(
    policy: &'p Compiled,
    form: &'p Form,
    held: &'p crate::bits::Bits,
) -> impl Iterator<Item = (String, String)> {
    form.restrictive.iter().filter(|&bit| !held.has(bit)).filter_map(|bit| {
        let (tag, value) = policy.place(TagType::Restrictive, bit)?;
        Some((policy.spif.tags.get(tag)?.name.clone(), policy.value_at(tag, value)?.name.clone()))
    })
}

/// Permissive tags of a form: number and what people write, and the values.
fn permissive<'p>(
    policy: &'p Compiled,
    form: &'p Form,
) -> impl Iterator<Item = ((u16, String), Vec<String>)> {
    policy.values(form).filter(|(_, tag, _)| tag.kind == TagType::Permissive).map(|(at, tag, values)| {
        let names = values.iter().filter_map(|&value| tag.values.get(value)).map(|value| value.name.clone());
        (
            (u16::try_from(at).unwrap_or(u16::MAX), tag.short.clone().unwrap_or_else(|| tag.name.clone())),
            names.collect(),
        )
    })
}

/// The equivalences between policies that are loaded. What a label's own policy says counts before what the other says.
fn translations(
    policies: &[Compiled],
    by_name: &HashMap<String, u16>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<(u16, u16), Translation> {
    let mut all = BTreeMap::new();
    for direction in [Direction::Out, Direction::In] {
        for (number, policy) in (0u16..).zip(policies) {
            for (at, equivalence) in policy.spif.equivalences.iter().enumerate() {
                let named = by_name.get(&fold(&equivalence.policy)).copied();
                let Some(other) = named.filter(|_| equivalence.direction == direction) else { continue };
                let path = format!("{}: equivalences[{at}]", policy.spif.name);
                if other == number {
                    problems.push(Problem::new(format!("{path}.policy"), "is this policy itself"));
                    continue;
                }
                let Some(other_policy) = policies.get(usize::from(other)) else { continue };
                let (key, sides) = match direction {
                    Direction::Out => ((number, other), (policy, other_policy)),
                    Direction::In => ((other, number), (other_policy, policy)),
                };
                let translation = Translation::new(equivalence, sides, key.1, &path, problems);
                all.entry(key).or_insert(translation);
            }
        }
    }
    all
}

/// A policy's names that begin a text, each with what follows.
pub(crate) fn policy_heads<'p, 't>(
    policies: &'p [Compiled],
    text: &'t str,
) -> impl Iterator<Item = (u16, &'p Compiled, &'t str)> {
    (0u16..).zip(policies).flat_map(move |(number, policy)| {
        let names = std::iter::once(&policy.spif.name).chain(&policy.spif.aliases);
        names.filter_map(move |name| Some((number, policy, strip_prefix(text, name)?)))
    })
}
