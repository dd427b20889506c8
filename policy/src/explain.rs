//! Why a clearance does not dominate a label, and a label is not at most another.

use crate::{
    compiled::Compiled,
    label::{Label, TagType},
    lattice::{Dominance, Form, Reason, Resolved, ResolvedClearance, of_tag},
    policies::{LabelError, Policies},
};

impl Policies {
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
