//! What a policy says about which values go together: rules for those who give labels.
//!
//! They do not decide about access: an impossible label protects its object as well as a possible one.

use crate::{
    compiled::Compiled,
    equivalence::has,
    label::Label,
    lattice::Form,
    policies::{LabelError, Policies},
    spif::{Need, Requirement, ValueRef},
};

impl Policies {
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
