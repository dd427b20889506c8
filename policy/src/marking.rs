//! What is shown of a label.

use crate::{
    label::Label,
    policies::{LabelError, Policies},
    spif::{Tag, TagValue},
    text::ORIGINATOR_ONLY,
};

/// What is shown of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marking {
    /// The banner: `SECRET//SI//REL TO USA, GBR`.
    pub text: String,
    /// The portion marking, for where there is little room: `S//SI//REL TO USA, GBR`.
    pub short: String,
    /// The banner's colour as `#rrggbb`, if the policy has one.
    pub colour: Option<String>,
}

impl Policies {
    /// What is shown of a label, by the rules of its policy.
    ///
    /// # Errors
    /// When it means nothing under these policies.
    pub fn marking(&self, label: &Label) -> Result<Marking, LabelError> {
        let (number, policy) = self.policy(label.policy())?;
        let form = policy.form(number, label)?;
        let rules = &policy.spif.marking;
        let class = policy.class(form.level);
        let name = policy.class_name(form.level);
        let instead = policy.values(&form).find_map(|(_, tag, values)| {
            let marks = values.iter().filter_map(|&value| tag.values.get(value)?.marking.as_deref());
            let marks: Vec<&str> = marks.collect();
            (tag.marking.replaces_prefix && !marks.is_empty())
                .then(|| format!("{} ", marks.join(tag.marking.separator.as_deref().unwrap_or("/"))))
        });
        let prefix = instead.as_ref().unwrap_or(&rules.prefix);
        let text = class.and_then(|class| class.marking.clone()).unwrap_or_else(|| format!("{prefix}{name}"));
        let short = class.and_then(|class| class.portion.clone()).unwrap_or_else(|| text.clone());
        let mut marking = Marking { text, short, colour: class.and_then(|class| class.colour.clone()) };
        let separator = rules.separator.as_deref().unwrap_or("//");
        let group_separator = rules.group_separator.as_deref().unwrap_or("/");
        let mut group = None;
        let mut colour = None;
        for (at, tag) in policy.spif.tags.iter().enumerate() {
            let Some(cat) = label.cats().iter().find(|cat| policy.find_tag(cat.tag()) == Some(at)) else {
                continue;
            };
            let mut places: Vec<usize> =
                cat.vals().iter().filter_map(|val| policy.find_value(at, val)).collect();
            places.sort_unstable();
            colour = colour.or_else(|| tag.marking.colours.get(&name).cloned());
            if tag.marking.hidden || tag.marking.replaces_prefix {
                continue;
            }
            let same_group = tag.marking.group.is_some() && group == tag.marking.group.as_deref();
            let between = if same_group { group_separator } else { separator };
            group = tag.marking.group.as_deref();
            let values: Vec<&TagValue> = places.iter().filter_map(|&place| tag.values.get(place)).collect();
            for (text, portion) in [(&mut marking.text, false), (&mut marking.short, true)] {
                text.push_str(between);
                text.push_str(&shown(tag, &values, portion));
            }
        }
        if form.originator_only {
            for text in [&mut marking.text, &mut marking.short] {
                text.push_str(separator);
                text.push_str(ORIGINATOR_ONLY);
            }
        }
        marking.colour = colour.or(marking.colour);
        Ok(marking)
    }
}

fn shown(tag: &Tag, values: &[&TagValue], portion: bool) -> String {
    let value_text = |value: &TagValue| {
        let short = value.portion.as_ref().filter(|_| portion);
        short.or(value.marking.as_ref()).unwrap_or(&value.name).clone()
    };
    if let [value] = values
        && let Some(alone) = &value.alone
    {
        return value.alone_portion.as_ref().filter(|_| portion).unwrap_or(alone).clone();
    }
    let values: Vec<String> = values.iter().map(|value| value_text(value)).collect();
    let separator = tag.marking.separator.as_deref().unwrap_or("/");
    format!("{}{}{}", tag.marking.prefix, values.join(separator), tag.marking.suffix)
}
