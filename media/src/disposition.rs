//! How a file is to be shown, and under which name.

/// Types a browser may show in place (specification: serving inline content).
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// `Content-Disposition` (RFC 6266). A name that not every client reads alike in quotes comes in the form of RFC 8187.
#[must_use]
pub fn disposition(content_type: &str, name: Option<&str>) -> String {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Of several types in one header browsers take the last.
    let one_type = !content_type.contains(',');
    let place = if one_type && INLINE.contains(&kind.as_str()) { "inline" } else { "attachment" };
    match name.filter(|name| !name.is_empty()) {
        None => place.to_owned(),
        Some(name) if name.bytes().all(is_token) => format!("{place}; filename={name}"),
        Some(name) if name.bytes().all(may_be_quoted) => format!("{place}; filename=\"{name}\""),
        Some(name) => format!("{place}; filename*=utf-8''{}", percent_encoded(name)),
    }
}

/// Percent signs are left out: some clients take them for an encoding.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'&' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

const fn may_be_quoted(byte: u8) -> bool {
    (byte == b' ' || byte.is_ascii_graphic()) && !matches!(byte, b'"' | b'\\' | b'%')
}

fn percent_encoded(name: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(name.len() * 3);
    for byte in name.bytes() {
        if is_token(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_types_are_shown_in_place() {
        for kind in INLINE {
            assert_eq!(disposition(kind, None), "inline", "{kind}");
        }
        for (kind, expected) in [
            ("TEXT/Plain; charset=utf-8", "inline"),
            ("text/html", "attachment"),
            ("image/svg+xml", "attachment"),
            ("application/pdf", "attachment"),
            ("", "attachment"),
            ("image/png, text/html", "attachment"),
            ("image/png;,text/html", "attachment"),
            ("image/png text/html", "attachment"),
        ] {
            assert_eq!(disposition(kind, None), expected, "{kind}");
        }
    }

    #[test]
    fn names_are_quoted_or_encoded_as_they_need() {
        for (name, expected) in [
            ("a.png", "inline; filename=a.png"),
            ("", "inline"),
            ("name with spaces", "inline; filename=\"name with spaces\""),
            ("name;with;semicolons", "inline; filename=\"name;with;semicolons\""),
            ("q\"uote.png", "inline; filename*=utf-8''q%22uote.png"),
            ("100%41.png", "inline; filename*=utf-8''100%2541.png"),
            ("back\\slash", "inline; filename*=utf-8''back%5Cslash"),
            ("line\r\nX-Evil: 1", "inline; filename*=utf-8''line%0D%0AX-Evil%3A%201"),
            ("\u{1f415}.png", "inline; filename*=utf-8''%F0%9F%90%95.png"),
            ("b\u{e4}r's*.png", "inline; filename*=utf-8''b%C3%A4r%27s%2A.png"),
        ] {
            assert_eq!(disposition("image/png", Some(name)), expected, "{name:?}");
        }
    }
}
