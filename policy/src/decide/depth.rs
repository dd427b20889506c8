//! How deep policies may be nested. Cedar parses them without recursion, but all it does with them afterwards follows
//! what was parsed by calling itself; so this is found out in the text.

use super::limits::{MOST_LINKS, MOST_NESTED, STACK};

/// Where and why the policies of a text are too deep, if they are: the first place, in bytes.
pub(super) fn too_deep(text: &str) -> Option<(usize, String)> {
    let (mut nested, mut links) = (0_usize, 0_usize);
    let mut rest = text.as_bytes();
    let mut word = false;
    while let [byte, after @ ..] = rest {
        let at = text.len() - rest.len();
        let begins_word = !word;
        word = byte.is_ascii_alphanumeric() || *byte == b'_';
        let mut taken = 1;
        match (byte, after) {
            (b'"', _) => taken += string(after),
            (b'/', [b'/', ..]) => taken += after.iter().position(|one| *one == b'\n').unwrap_or(after.len()),
            (b'(' | b'[' | b'{', _) => nested += 1,
            (b')' | b']' | b'}', _) => nested = nested.saturating_sub(1),
            (b';', _) => links = 0,
            (b'.' | b'+' | b'-' | b'*' | b'!', _) => links += 1,
            (b'&', [b'&', ..]) | (b'|', [b'|', ..]) => {
                links += 1;
                taken += 1;
            }
            (b'i', [b'f', ..]) if begins_word => links += 1,
            _ => {}
        }
        if nested > MOST_NESTED {
            return Some((at, format!("brackets are nested more than {MOST_NESTED} deep: divide it")));
        }
        if links > MOST_LINKS {
            let what = "operators and dots";
            return Some((at, format!("a policy has more than {MOST_LINKS} {what}: divide it")));
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    None
}

/// The length of what is left of a string, its end included.
fn string(rest: &[u8]) -> usize {
    let mut escaped = false;
    let end = rest.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 1)
}

/// Does what calls itself as deep as policies are nested.
pub(super) fn with_room<T>(work: impl FnOnce() -> T) -> T {
    stacker::grow(STACK, work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Also where a character is cut, a string does not end, or brackets do not match.
        #[test]
        fn any_text_is_looked_through(text in "([(){};.\"\\\\/*é if&|\n-]|//){0,80}") {
            prop_assert_eq!(too_deep(&text), None);
            let deep = format!("\n{}{text}", "(".repeat(MOST_NESTED + 1));
            prop_assert_eq!(too_deep(&deep).map(|(at, _)| at), Some(MOST_NESTED + 1));
        }
    }

    #[test]
    fn what_stands_in_strings_and_comments_is_not_nested() {
        let many = "(".repeat(MOST_NESTED + 1);
        for fine in [
            format!("// {many}\npermit (principal, action, resource);"),
            format!("permit (principal, action, resource) when {{ \"\\\"{many}\" == \"\" }};"),
            format!("\"{many}"),
            "permit (principal, action, resource) when { context.encrypted };\n".repeat(MOST_LINKS),
            "different ".repeat(MOST_LINKS + 1),
        ] {
            assert_eq!(too_deep(&fine), None, "{fine}");
        }
        let (at, why) = too_deep(&format!("\"\\\\\"{many}")).unwrap();
        assert_eq!(at, 4 + MOST_NESTED);
        assert!(why.contains("nested"), "{why}");
        let (at, _) = too_deep(&format!("x{}", ".x".repeat(MOST_LINKS + 1))).unwrap();
        assert_eq!(at, 2 * MOST_LINKS + 1);
    }
}
