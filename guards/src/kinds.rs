//! Kinds of files: by their first bytes, by the type that is declared, and by their name.

use infer::MatcherType;

/// What a policy asks about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Category {
    Executable,
    Script,
    Archive,
    Document,
    Picture,
    Audio,
    Video,
    Font,
    Markup,
    Text,
    /// Something that is none of these, such as a database.
    Data,
}

impl Category {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Executable => "executable",
            Self::Script => "script",
            Self::Archive => "archive",
            Self::Document => "document",
            Self::Picture => "picture",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Font => "font",
            Self::Markup => "markup",
            Self::Text => "text",
            Self::Data => "data",
        }
    }

    /// Whether a file declared as this may be `found` without anybody being misled.
    pub(crate) fn may_be(self, found: Self) -> bool {
        use Category::{Audio, Document, Markup, Picture, Script, Text, Video};
        self == found
            || matches!(
                (self, found),
                // Containers of sound and of pictures with sound are the same ones.
                (Audio, Video)
                    | (Video, Audio)
                    // Source is text, whatever language it is in.
                    | (Script, Text | Markup)
                    | (Markup, Text)
                    | (Text, Markup)
                    // Documents of old kinds are text.
                    | (Document, Text)
                    // A vector picture is markup.
                    | (Picture, Markup)
            )
    }
}

/// The kind of a file that begins with `head`, and its category. None if nothing tells. Zip archives are told by their
/// directory instead.
pub(crate) fn of_content(head: &[u8]) -> Option<(&'static str, Category)> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Some(("zip", Category::Archive));
    }
    if head.is_empty() {
        return None;
    }
    let text = is_text(head);
    let found = infer::get(head).filter(|found| {
        // Two letters make a program or a picture in binary files, not in text.
        !text || matches!(found.extension(), "html" | "xml" | "sh" | "rtf" | "pdf" | "ps" | "pem")
    });
    if let Some(found) = found {
        return Some((found.extension(), of_type(&found)));
    }
    if !text {
        return None;
    }
    let start = head.get(..head.len().min(1_024)).unwrap_or_default();
    Some(match memchr::memmem::find(start, b"<svg") {
        Some(_) => ("svg", Category::Markup),
        None => ("text", Category::Text),
    })
}

fn of_type(found: &infer::Type) -> Category {
    match (found.extension(), found.matcher_type()) {
        ("der" | "pem" | "sqlite" | "dcm" | "nes", _) => Category::Data,
        ("qcow2" | "par2", _) => Category::Archive,
        ("pdf" | "rtf" | "ps", _) => Category::Document,
        ("swf" | "crx" | "msi" | "deb" | "rpm", _) => Category::Executable,
        ("eot", _) => Category::Font,
        ("sh", _) => Category::Script,
        (_, MatcherType::App) => Category::Executable,
        (_, MatcherType::Archive) => Category::Archive,
        (_, MatcherType::Audio) => Category::Audio,
        (_, MatcherType::Book | MatcherType::Doc) => Category::Document,
        (_, MatcherType::Font) => Category::Font,
        (_, MatcherType::Image) => Category::Picture,
        (_, MatcherType::Text) => Category::Markup,
        (_, MatcherType::Video) => Category::Video,
        (_, MatcherType::Custom) => Category::Data,
    }
}

/// Whether bytes are text: UTF-8, perhaps cut in the last character, without control characters but those of layout.
pub(crate) fn is_text(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    whole && !head.iter().any(|b| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b))
}

/// The category of a declared media type. None if it says nothing.
pub(crate) fn category_of_type(declared: &str) -> Option<Category> {
    let essence = essence(declared);
    let (top, sub) = essence.split_once('/')?;
    let has = |words: &[&str]| words.iter().any(|word| sub.contains(word));
    Some(match (top, sub) {
        ("image", "svg+xml") => Category::Markup,
        ("image", _) => Category::Picture,
        ("audio", _) => Category::Audio,
        ("video", _) => Category::Video,
        ("font", _) => Category::Font,
        ("text", "html" | "xml") => Category::Markup,
        ("text", "javascript" | "x-shellscript" | "x-sh" | "x-python") => Category::Script,
        ("text", _) => Category::Text,
        ("application", "pdf" | "rtf" | "postscript" | "msword" | "epub+zip") => Category::Document,
        ("application", "javascript" | "x-sh" | "x-shellscript" | "x-csh" | "x-powershell") => {
            Category::Script
        }
        ("application", "json" | "toml" | "yaml") => Category::Text,
        ("application", "xml" | "xhtml+xml") => Category::Markup,
        ("application", "java-archive" | "wasm") => Category::Executable,
        ("application", "ogg") => Category::Audio,
        ("application", _)
            if has(&["officedocument", "opendocument", "ms-excel", "ms-word", "ms-powerpoint"]) =>
        {
            Category::Document
        }
        ("application", _)
            if has(&["executable", "msdownload", "msi", "android.package", "mach-binary", "x-dosexec"]) =>
        {
            Category::Executable
        }
        ("application", _) if has(&["zip", "tar", "rar", "7z", "x-xz", "zstd", "compress"]) => {
            Category::Archive
        }
        ("application", _) if has(&["font"]) => Category::Font,
        _ => return None,
    })
}

/// A media type without its parameters, in lower case.
fn essence(declared: &str) -> String {
    declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether files of a declared type always begin in a way that is known, so that one which does not is none.
pub(crate) fn always_known(declared: &str) -> bool {
    let essence = essence(declared);
    matches!(
        essence.as_str(),
        "image/png"
            | "image/jpeg"
            | "image/gif"
            | "image/webp"
            | "image/bmp"
            | "image/tiff"
            | "application/pdf"
            | "application/zip"
            | "application/gzip"
            | "application/x-7z-compressed"
            | "application/vnd.rar"
            | "video/webm"
            | "audio/flac"
    )
}

/// The extension of a file's name in lower case, and the category it stands for.
pub(crate) fn category_of_name(name: &str) -> Option<(String, Category)> {
    // Windows drops blanks and full stops at the end of a name.
    let name = name.trim_end_matches([' ', '.']);
    let extension = name.rsplit(['/', '\\']).next()?.rsplit_once('.')?.1.to_ascii_lowercase();
    let category = match extension.as_str() {
        "exe" | "dll" | "com" | "scr" | "pif" | "cpl" | "msi" | "msp" | "sys" | "elf" | "so" | "dylib"
        | "apk" | "jar" | "deb" | "rpm" | "app" | "dmg" | "pkg" | "appimage" | "crx" | "xpi" | "wasm"
        | "lnk" | "class" => Category::Executable,
        "bat" | "cmd" | "ps1" | "psm1" | "vbs" | "vbe" | "js" | "jse" | "mjs" | "wsf" | "wsh" | "hta"
        | "sh" | "bash" | "zsh" | "py" | "pl" | "rb" | "php" | "reg" | "scf" | "url" | "desktop"
        | "command" | "jnlp" => Category::Script,
        "zip" | "7z" | "rar" | "tar" | "gz" | "tgz" | "bz2" | "xz" | "zst" | "cab" | "iso" | "img"
        | "vhd" | "vhdx" => Category::Archive,
        "pdf" | "doc" | "docx" | "docm" | "xls" | "xlsx" | "xlsm" | "ppt" | "pptx" | "pptm" | "odt"
        | "ods" | "odp" | "rtf" | "epub" | "ps" => Category::Document,
        "png" | "jpg" | "jpeg" | "gif" | "webp" | "bmp" | "tif" | "tiff" | "heic" | "heif" | "avif"
        | "jxl" | "ico" => Category::Picture,
        "mp3" | "m4a" | "ogg" | "oga" | "opus" | "flac" | "wav" | "aac" => Category::Audio,
        "mp4" | "m4v" | "mkv" | "webm" | "mov" | "avi" | "mpg" | "mpeg" | "wmv" => Category::Video,
        "ttf" | "otf" | "woff" | "woff2" => Category::Font,
        "html" | "htm" | "xhtml" | "xml" | "svg" => Category::Markup,
        "txt" | "md" | "csv" | "log" | "json" | "toml" | "yaml" | "yml" | "ini" | "conf" => Category::Text,
        _ => return None,
    };
    Some((extension, category))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_bytes_tell_a_kind() {
        for (head, kind, category) in [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(), "png", Category::Picture),
            (b"%PDF-1.7\n%\xe2\xe3", "pdf", Category::Document),
            (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "elf", Category::Executable),
            (b"MZ\x90\0\x03\0\0\0", "exe", Category::Executable),
            (b"#!/bin/sh\necho", "sh", Category::Script),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "7z", Category::Archive),
            (b"<!DOCTYPE html><html>", "html", Category::Markup),
            (b"<svg xmlns=''>", "svg", Category::Markup),
            ("Grüße".as_bytes(), "text", Category::Text),
            (b"MZ is a text about programs", "text", Category::Text),
            (b"BMW makes cars", "text", Category::Text),
        ] {
            assert_eq!(of_content(head), Some((kind, category)), "{kind}");
        }
        assert_eq!(of_content(&[0, 159, 146, 150]), None);
    }

    #[test]
    fn a_name_and_a_type_stand_for_a_category() {
        assert_eq!(category_of_name("a.pdf.EXE ."), Some(("exe".to_owned(), Category::Executable)));
        assert_eq!(category_of_name("folder.zip/readme"), None);
        assert_eq!(category_of_type("Image/PNG; charset=x"), Some(Category::Picture));
        assert_eq!(category_of_type("application/octet-stream"), None);
        assert_eq!(category_of_type("nonsense"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_kind_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            of_content(&bytes);
        }
    }
}
