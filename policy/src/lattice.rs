//! The order in which labels and clearances stand.
//!
//! What `docs/labels.md` says about access, said precisely. Under one policy a label is four things, and a grant of a
//! clearance is the same without the last:
//!
//! | | label | grant | label at most label | grant dominates label |
//! | --- | --- | --- | --- | --- |
//! | class | a level | a level | less or equal | greater or equal |
//! | restrictive values | a set | a set | subset | superset |
//! | permissive values, by tag | a set, or everyone | a set | superset, or everyone | they share one, or everyone |
//! | originator only | yes or no | | no, or both | no |
//!
//! **Groups.** A permissive value may be a group of others. In a label a group stands for itself and its members (the
//! set is closed *downwards*); a holder of a member holds the groups it is in, too (closed *upwards*). They share a value
//! exactly if the holder has one that the label names or that is a member of one the label names. A holder of the group
//! alone is not taken for a holder of each member.
//!
//! **Several policies.** A label has a *form* in its own policy, one in the policy of each equivalent label it states,
//! and one in each policy its own says it is equivalent to, where that decides about access. A clearance has a grant in
//! each policy under which its holder is cleared. A clearance dominates a label if some grant dominates the form in the
//! same policy. So more grants never show less. The more forms a label has, the lower it is; one without any is above all.
//!
//! **Nothing.** An object without a label is below all others: everyone may see it, a holder without a clearance
//! too. Such a holder may see nothing else, not even the lowest classification. Whoever wants unlabelled objects
//! protected gives them a default label, and whoever wants everyone to see the lowest class gives everyone a clearance.
//!
//! **Join** is the label of what is made of two objects: the higher level, the restrictive values of both, the permissive
//! values common to both. If these are none, in any tag, nobody is left but the originator; then no permissive values
//! are kept, as they decide nothing any more. Forms are joined policy by policy, those in one label only are lost.
//!
//! **Meet** is the clearance of two holders together (a user on a device, a server behind a link): the lower level and
//! the values common to both, in the policies common to both.
//!
//! # What holds
//! Each is a property test in `laws.rs`, with `a`, `b`, `l` labels, `c`, `d` clearances, `⊑` at most, `⊔` join, `⊓` meet and
//! `c ⊒ l` dominates.
//!
//! 1. `⊑` is reflexive and transitive, and `a ⊑ b ∧ b ⊑ a` means that they differ in informative values at most. Unlabelled is the
//!    least.
//! 2. `⊔` is associative, commutative, idempotent, the least upper bound: `a ⊑ l ∧ b ⊑ l ⟺ a ⊔ b ⊑ l`.
//! 3. `⊓` is associative, commutative, idempotent.
//! 4. Monotonic release: `a ⊑ b ∧ c ⊒ b ⟹ c ⊒ a`. What is released at a label may be released at any lower one.
//! 5. `c ⊒ a ⊔ b ⟹ c ⊒ a ∧ c ⊒ b`. The converse holds when `c` is cleared under one policy and holds at most one value
//!    of each permissive tag. Otherwise not: who is of two nations may see what is for the one and what is for the other, but what is made of
//!    both is for nobody.
//! 6. `c ⊓ d ⊒ l ⟹ c ⊒ l ∧ d ⊒ l`. The converse holds under one policy when one of them holds every permissive value `l` asks
//!    for. Otherwise not: an American and a Briton may both see what is for either, but no holder is both at once.
//! 7. A label for its originator only is dominated by no clearance.

use std::fmt;

use smallvec::SmallVec;

use crate::bits::Bits;

/// A label under one policy, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form {
    pub policy: u16,
    /// The place of the classification among those of the policy, from the lowest.
    pub level: u16,
    /// Values of all restrictive tags.
    pub restrictive: Bits,
    /// Values of all informative tags.
    pub informative: Bits,
    /// Values by permissive tag, closed downwards, sorted, none empty; a tag that is not here lets everyone through.
    pub permissive: Permissive,
    /// No permissive values are kept then.
    pub originator_only: bool,
}

pub(crate) type Permissive = SmallVec<[(u16, Bits); 1]>;

/// The values of a permissive tag.
pub(crate) fn of_tag(permissive: &[(u16, Bits)], tag: u16) -> Option<&Bits> {
    permissive.iter().find(|(known, _)| *known == tag).map(|(_, values)| values)
}

impl Form {
    pub(crate) fn only_originator(&mut self) {
        self.originator_only = true;
        self.permissive.clear();
    }

    fn at_most(&self, bound: &Self) -> bool {
        self.level <= bound.level
            && self.restrictive.is_subset(&bound.restrictive)
            && (bound.originator_only
                || !self.originator_only
                    && self.permissive.iter().all(|(tag, values)| {
                        of_tag(&bound.permissive, *tag).is_some_and(|narrower| narrower.is_subset(values))
                    }))
    }

    /// The form of what is made of two objects, both under one policy.
    pub(crate) fn join(&self, other: &Self) -> Self {
        let mut join = Self {
            policy: self.policy,
            level: self.level.max(other.level),
            restrictive: self.restrictive.union(&other.restrictive),
            informative: self.informative.union(&other.informative),
            permissive: Permissive::new(),
            originator_only: false,
        };
        let mut nobody = self.originator_only || other.originator_only;
        for (tag, values) in &self.permissive {
            let common = of_tag(&other.permissive, *tag)
                .map_or_else(|| values.clone(), |theirs| values.intersection(theirs));
            nobody |= common.is_empty();
            join.permissive.push((*tag, common));
        }
        let theirs = other.permissive.iter().filter(|(tag, _)| of_tag(&self.permissive, *tag).is_none());
        join.permissive.extend(theirs.cloned());
        join.permissive.sort_unstable_by_key(|(tag, _)| *tag);
        if nobody {
            join.only_originator();
        }
        join
    }
}

/// A clearance under one policy, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GrantForm {
    pub policy: u16,
    pub level: u16,
    pub restrictive: Bits,
    /// Values by permissive tag, closed upwards, sorted, none empty.
    pub permissive: Permissive,
}

impl GrantForm {
    fn dominates(&self, form: &Form) -> bool {
        self.level >= form.level
            && !form.originator_only
            && form.restrictive.is_subset(&self.restrictive)
            && form
                .permissive
                .iter()
                .all(|(tag, values)| of_tag(&self.permissive, *tag).is_some_and(|held| held.meets(values)))
    }

    fn meet(&self, other: &Self) -> Self {
        let common = self.permissive.iter().filter_map(|(tag, mine)| {
            let common = mine.intersection(of_tag(&other.permissive, *tag)?);
            (!common.is_empty()).then_some((*tag, common))
        });
        Self {
            policy: self.policy,
            level: self.level.min(other.level),
            restrictive: self.restrictive.intersection(&other.restrictive),
            permissive: common.collect(),
        }
    }
}

/// A label in numbers, or that there is none. Made by [`Policies::resolve`](crate::Policies::resolve), once for each
/// object.
///
/// Two are equal if they are the same to every holder and in every join; which of several equivalent labels was the
/// original is not compared.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Of the policies it was resolved against; what others resolved cannot be compared to it.
    pub(crate) revision: u64,
    /// Its own policy.
    pub(crate) primary: u16,
    /// By policy; nothing at all for an object without a label.
    pub(crate) forms: Option<SmallVec<[Form; 1]>>,
}

impl PartialEq for Resolved {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.forms == other.forms
    }
}

impl Eq for Resolved {}

impl Resolved {
    pub(crate) fn form(&self, policy: u16) -> Option<&Form> {
        self.forms.iter().flatten().find(|form| form.policy == policy)
    }

    /// The place of the classification among those of the label's own policy, 0 being the lowest.
    pub(crate) fn rank(&self) -> Option<u32> {
        self.form(self.primary).map(|form| u32::from(form.level))
    }

    /// Whether there is no label.
    #[must_use]
    pub const fn is_unlabelled(&self) -> bool {
        self.forms.is_none()
    }

    /// Whether nobody but the originator may see the object, whatever they hold.
    #[must_use]
    pub fn is_originator_only(&self) -> bool {
        self.forms.as_ref().is_some_and(|forms| forms.iter().all(|form| form.originator_only))
    }

    /// Whether everyone who may see what is labelled with `bound` may see what is labelled with this.
    ///
    /// What was resolved against other policies is not comparable: false.
    #[must_use]
    pub fn at_most(&self, bound: &Self) -> bool {
        let (Some(mine), Some(theirs)) = (&self.forms, &bound.forms) else {
            return self.revision == bound.revision && self.is_unlabelled();
        };
        self.revision == bound.revision
            && theirs.iter().all(|bound| {
                mine.iter().find(|form| form.policy == bound.policy).is_some_and(|form| form.at_most(bound))
            })
    }

    /// The label of what is made of both. Of labels that were resolved against different policies it is one that nobody
    /// dominates.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        if self.revision != other.revision {
            return Self { forms: Some(SmallVec::new()), ..self.clone() };
        }
        let (Some(mine), Some(_)) = (&self.forms, &other.forms) else {
            return if self.is_unlabelled() { other.clone() } else { self.clone() };
        };
        let common = mine.iter().filter_map(|form| other.form(form.policy).map(|theirs| form.join(theirs)));
        let forms: SmallVec<[Form; 1]> = common.collect();
        let has = |policy: &u16| forms.iter().any(|form| form.policy == *policy);
        let originals =
            [self.primary.min(other.primary), self.primary.max(other.primary)].into_iter().find(has);
        let primary = originals.or_else(|| forms.first().map(|form| form.policy)).unwrap_or(self.primary);
        Self { revision: self.revision, primary, forms: Some(forms) }
    }
}

/// A clearance in numbers. Made by [`Policies::resolve_clearance`](crate::Policies::resolve_clearance), once for each
/// holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedClearance {
    pub(crate) revision: u64,
    /// By policy.
    pub(crate) grants: SmallVec<[GrantForm; 1]>,
}

impl ResolvedClearance {
    pub(crate) fn grant(&self, policy: u16) -> Option<&GrantForm> {
        self.grants.iter().find(|grant| grant.policy == policy)
    }

    /// Whether its holder may see what is labelled so. Why not is answered by
    /// [`Policies::explain`](crate::Policies::explain).
    ///
    /// What was resolved against other policies is not comparable: false, unless the object has no label.
    #[must_use]
    pub fn dominates(&self, label: &Resolved) -> bool {
        let Some(forms) = &label.forms else { return true };
        self.revision == label.revision
            && forms.iter().any(|form| self.grant(form.policy).is_some_and(|grant| grant.dominates(form)))
    }

    /// The clearance of both holders together. Of clearances that were resolved against different policies it is none.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let common = self.grants.iter().filter_map(|grant| {
            let theirs = other.grant(grant.policy).filter(|_| self.revision == other.revision)?;
            Some(grant.meet(theirs))
        });
        Self { revision: self.revision, grants: common.collect() }
    }
}

/// Whether a clearance dominates a label, or a label is at most another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dominance {
    /// It does.
    Holds,
    /// It does not, for all of these reasons.
    Fails(Vec<Reason>),
}

impl Dominance {
    /// Whether it does.
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self, Self::Holds)
    }

    /// Whether all that is missing is being the originator: to them, and nobody else, the object may be shown.
    #[must_use]
    pub fn for_originator(&self) -> bool {
        match self {
            Self::Holds => true,
            Self::Fails(reasons) => reasons.iter().all(|reason| *reason == Reason::OriginatorOnly),
        }
    }
}

impl fmt::Display for Dominance {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Fails(reasons) = self else { return to.write_str("dominates") };
        for (at, reason) in reasons.iter().enumerate() {
            write!(to, "{}{reason}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Why a clearance does not dominate a label, or a label is not at most another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The holder is not cleared under any policy the label has a form in.
    #[error("no clearance under {}", .policies.join(" or "))]
    NoClearance {
        /// The policies.
        policies: Vec<String>,
    },
    /// The label's classification is above the holder's, or the bound's.
    #[error("class {class} is above {limit}")]
    ClassAbove {
        /// The label's classification.
        class: String,
        /// The highest one allowed.
        limit: String,
    },
    /// A restrictive value is not held.
    #[error("{value} is not held")]
    NotHeld {
        /// The tag.
        tag: String,
        /// The value.
        value: String,
    },
    /// None of the values of a permissive tag is held.
    #[error("none of {tag} {} is held", .values.join(", "))]
    NoneHeld {
        /// The tag, as people write it.
        tag: String,
        /// The values.
        values: Vec<String>,
    },
    /// The object is for its originator only.
    #[error("only its originator may see it")]
    OriginatorOnly,
    /// The bound lacks a restrictive value that the label has.
    #[error("{value} is not in the bound")]
    NotInBound {
        /// The tag.
        tag: String,
        /// The value.
        value: String,
    },
    /// The bound is for holders for whom the label is not.
    #[error("{tag} {} is narrower than the bound", .values.join(", "))]
    Narrower {
        /// The tag, as people write it.
        tag: String,
        /// The label's values.
        values: Vec<String>,
    },
    /// The bound has a form in a policy in which the label has none.
    #[error("it has no equivalent under {policy}, as the bound has")]
    NoEquivalent {
        /// The policy.
        policy: String,
    },
    /// There is a label where the bound has none.
    #[error("it has a label and the bound has none")]
    BoundUnlabelled,
    /// Both were resolved against different policies.
    #[error("the policies have changed since")]
    OtherPolicies,
}
