//! Names of policies, classifications, tags and values: which are allowed, and when two are the same.

use crate::limits;

/// What is wrong with a name as it stands in a label, if anything is. Labels are shown in banners: what would change
/// how the text around it looks is refused.
pub(crate) fn problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.len() > limits::NAME_BYTES {
        return Some(format!("has {} bytes, more than {}", name.len(), limits::NAME_BYTES));
    }
    if name.trim() != name {
        return Some("begins or ends with a space".into());
    }
    unprintable(name)
}

/// What is wrong with a name in a policy file, if anything is: it has to be possible to write it in text forms, too.
pub(crate) fn problem_in_policy(name: &str) -> Option<String> {
    problem(name).or_else(|| {
        if name.starts_with('/') || name.ends_with('/') {
            return Some("begins or ends with '/', next to which '//' would be ambiguous".into());
        }
        let reserved = [("//", "//"), (",", ","), (";", ";"), ("=", "="), ("*", "*")];
        let (_, found) = reserved.into_iter().find(|(sign, _)| name.contains(sign))?;
        Some(format!("has '{found}' in it, which separates parts of a label's text"))
    })
}

/// What is wrong with a text that is shown, if anything is.
pub(crate) fn unprintable(text: &str) -> Option<String> {
    let bad = text.chars().find(|&sign| {
        sign.is_control()
            || matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    })?;
    Some(format!("has the invisible character U+{:04X} in it", u32::from(bad)))
}

/// What follows `prefix`, compared as names are.
pub(crate) fn strip_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let end = text.char_indices().nth(prefix.chars().count()).map_or(text.len(), |(at, _)| at);
    let (head, rest) = text.split_at_checked(end)?;
    (fold(head) == fold(prefix)).then_some(rest)
}

/// What precedes `suffix`, compared as names are.
pub(crate) fn strip_suffix<'t>(text: &'t str, suffix: &str) -> Option<&'t str> {
    let start = text.chars().count().checked_sub(suffix.chars().count())?;
    let at = text.char_indices().nth(start).map_or(text.len(), |(at, _)| at);
    let (rest, tail) = text.split_at_checked(at)?;
    (fold(tail) == fold(suffix)).then_some(rest)
}

/// Two names are the same when they are equal in this form: case does not matter, as people do not keep to it.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}
