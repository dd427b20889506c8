//! Patterns with `*` and `?`, as server ACLs and settings have them.

/// A pattern: `*` stands for any characters, `?` for one; letters match in either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl Glob {
    /// The pattern a text says. Every text is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut parts: Vec<char> = Vec::with_capacity(pattern.len());
        for part in pattern.chars().flat_map(char::to_lowercase) {
            // Two stars say what one says, and would cost more.
            if part != '*' || parts.last() != Some(&'*') {
                parts.push(part);
            }
        }
        Self(parts)
    }

    /// Whether all of `text` matches. Takes at most (length of text × length of pattern) steps, whatever they are.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
        let (mut at, mut part) = (0, 0);
        // Where the last star stands, and up to where it has been taken to reach.
        let mut star: Option<(usize, usize)> = None;
        while let Some(letter) = text.get(at) {
            match self.0.get(part) {
                Some('*') => {
                    star = Some((part, at));
                    part += 1;
                }
                Some(wanted) if wanted == letter || *wanted == '?' => {
                    at += 1;
                    part += 1;
                }
                _ => {
                    let Some((place, reach)) = star else { return false };
                    star = Some((place, reach + 1));
                    part = place + 1;
                    at = reach + 1;
                }
            }
        }
        self.0.iter().skip(part).all(|rest| *rest == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_others() {
        let matches = |pattern: &str, text: &str| Glob::new(pattern).matches(text);
        assert!(matches("*", "") && matches("*", "example.org") && matches("", ""));
        assert!(matches("*.example.org", "a.example.org") && !matches("*.example.org", "example.org"));
        assert!(matches("EXAMPLE.org", "example.ORG") && !matches("example.org", "example.orgs"));
        assert!(matches("e?ample.*", "example.com") && !matches("?", "") && matches("a**b*c", "aXbYbZc"));
        assert!(!matches("a.b", "axb"));
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_not() {
        // Tried in every way, these would take longer than anybody has.
        let pattern = Glob::new(&("a*".repeat(200) + "b"));
        assert!(!pattern.matches(&"a".repeat(2_000)));
    }
}
