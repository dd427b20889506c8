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
    equivalence::{OID, Translation},
    label::{Label, Malformed, TagType},
    lattice::{Dominance, Form, Resolved, ResolvedClearance},
    limits,
    names::{fold, strip_prefix},
    spif::{Direction, PRESETS, Problem, Problems, Spif},
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
    pub revision: u64,
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

    /// The label that lets the same holders see the object, with equivalent labels where the policies alone would say
    /// otherwise.
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
        for (number, other) in (0u16..).zip(&self.0.policies).filter(|(number, _)| *number != own.policy) {
            let translation = self.0.translations.get(&(own.policy, number));
            let said = translation.and_then(|translation| translation.form(policy, other, own));
            let decides = translation.is_some_and(|translation| translation.access);
            let stated = match (resolved.form(number), said) {
                (None, None) => continue,
                (None, Some(_)) if !decides => continue,
                (Some(form), Some(said)) if decides && said == *form => continue,
                // What was joined is not all for those who are cleared there.
                (None, Some(mut said)) => {
                    said.only_originator();
                    said
                }
                (Some(form), said) if self.not_too_low(own, policy, form, other).is_err() => {
                    let mut raised = said.map_or_else(|| form.clone(), |said| form.join(&said));
                    let least = translation.and_then(|translation| translation.level(own.level));
                    raised.level = raised.level.max(least.unwrap_or(0));
                    if own.originator_only {
                        raised.only_originator();
                    }
                    raised
                }
                (Some(form), _) => form.clone(),
            };
            label = label.with_alternative(other.label(&stated)?)?;
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
