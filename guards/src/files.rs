//! Files: what they are, whether that is what they are said to be, and what their text says.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::kinds::{self, Category};
use crate::limits::{FILE_TEXT_BYTES, HEAD_BYTES, TAIL_BYTES};
use crate::verdict::Verdict;
use crate::zip;

/// What is said of a file by whoever sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct File<'a> {
    /// Its name.
    pub name: Option<&'a str>,
    /// Its media type, with or without parameters.
    pub media_type: Option<&'a str>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// Bytes that stand anywhere in a file of some kind, and what they are a sign of.
const SIGNS: [(&[u8], Sign); 7] = [
    // Names in a compound file's directory are UTF-16 ([MS-CFB] 2.6.1; [MS-OVBA] 2.3.4.1; [MS-OFFCRYPTO] 2.3.4.4).
    (b"_\0V\0B\0A\0_\0P\0R\0O\0J\0E\0C\0T\0", Sign::OleMacros),
    (b"E\0n\0c\0r\0y\0p\0t\0e\0d\0P\0a\0c\0k\0a\0g\0e\0", Sign::OleEncrypted),
    // The class of Windows Installer packages, {000C1084-0000-0000-C000-000000000046}.
    (b"\x84\x10\x0c\0\0\0\0\0\xc0\0\0\0\0\0\0\x46", Sign::OleInstaller),
    (b"vbaProject.bin", Sign::ZipMacros),
    // Names in PDF (ISO 32000-2, 7.6.2, 12.6.4.6 and 12.6.4.17).
    (b"/Encrypt", Sign::PdfEncrypted),
    (b"/JavaScript", Sign::PdfProgram),
    (b"/Launch", Sign::PdfProgram),
];
/// As many bytes as the longest of them has, but one.
const SIGN_OVERLAP: usize = 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    OleMacros,
    OleEncrypted,
    OleInstaller,
    ZipMacros,
    PdfEncrypted,
    PdfProgram,
}

static SIGN_SEARCH: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new(SIGNS.iter().map(|(bytes, _)| bytes)).ok());

/// What is kept of a file that is read from beginning to end.
#[derive(Debug, Default)]
pub(crate) struct Content {
    start: Vec<u8>,
    tail: Vec<u8>,
    size: u64,
    signs: Vec<Sign>,
    overlap: Vec<u8>,
}

impl Content {
    /// Takes the next bytes.
    pub(crate) fn take(&mut self, chunk: &[u8]) {
        self.size = self.size.saturating_add(chunk.len() as u64);
        let room = FILE_TEXT_BYTES.saturating_sub(self.start.len());
        self.start.extend(chunk.iter().take(room));
        self.tail.extend_from_slice(chunk);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        self.overlap.extend_from_slice(chunk);
        for found in SIGN_SEARCH.iter().flat_map(|search| search.find_overlapping_iter(&self.overlap)) {
            if let Some((_, sign)) = SIGNS.get(found.pattern().as_usize())
                && !self.signs.contains(sign)
            {
                self.signs.push(*sign);
            }
        }
        self.overlap.drain(..self.overlap.len().saturating_sub(SIGN_OVERLAP));
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn head(&self) -> &[u8] {
        self.start.get(..self.start.len().min(HEAD_BYTES)).unwrap_or_default()
    }

    fn has(&self, sign: Sign) -> bool {
        self.signs.contains(&sign)
    }

    /// The text of a file that is text, UTF-8 or UTF-16 with its mark, as far as it is kept.
    pub(crate) fn text(&self) -> Option<String> {
        let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
            let units = bytes.chunks_exact(2).filter_map(|two| two.first_chunk().map(|two| unit(*two)));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        };
        match self.start.as_slice() {
            [0xff, 0xfe, text @ ..] => Some(wide(text, u16::from_le_bytes)),
            [0xfe, 0xff, text @ ..] => Some(wide(text, u16::from_be_bytes)),
            text if kinds::is_text(self.head()) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    /// Whether the file has more bytes than the text that is looked at.
    pub(crate) fn text_is_cut(&self) -> bool {
        self.size > FILE_TEXT_BYTES as u64
    }

    /// The file's kind, as `filetype:…`, and where that is not what it is said to be.
    pub(crate) fn judge(&self, file: &File<'_>, verdict: &mut Verdict) {
        let mut found = kinds::of_content(self.head());
        if found.is_none() && self.start.starts_with(b"\xff\xfe") | self.start.starts_with(b"\xfe\xff") {
            found = Some(("text", Category::Text));
        }
        let zipped = matches!(found, Some(("zip", _)));
        let directory = zip::directory(&self.tail).filter(|directory| zipped || directory.at_end);
        match (&mut found, &directory) {
            (Some((kind, category)), Some(directory)) if *kind == "zip" => {
                if let Some(of_names) = directory.kind {
                    (*kind, *category) = of_names;
                }
            }
            (Some(("zip", _)), None) => verdict.add("filetype:archive-unread", "content", ""),
            // A program may unpack itself. A picture or a text that is an archive too is two files in one.
            (Some((kind, category)), Some(_)) if *category != Category::Executable => {
                verdict.add("filetype-mismatch", "content", &format!("{kind} and also zip"));
            }
            (None, Some(_)) => verdict.add("filetype-mismatch", "content", "unknown and also zip"),
            _ => {}
        }
        if let Some((kind, category)) = &mut found
            && *category == Category::Document
            && *kind == "doc"
        {
            // The old format of Office is a file system, in which installers come too.
            (*kind, *category) = match self.has(Sign::OleInstaller) {
                true => ("msi", Category::Executable),
                false => ("ole", Category::Document),
            };
        }
        let say = |name: &str, verdict: &mut Verdict| verdict.add(&format!("filetype:{name}"), "content", "");
        match found {
            Some((kind, category)) => {
                say(kind, verdict);
                say(category.name(), verdict);
                self.inside(kind, verdict);
            }
            None if self.size > 0 => say("unknown", verdict),
            None => say("empty", verdict),
        }
        if let Some(directory) = directory {
            for (holds, name) in [
                (directory.encrypted, "encrypted"),
                (directory.macros, "macros"),
                (directory.programs, "archived-program"),
                (directory.cut, "archive-unread"),
            ] {
                if holds {
                    say(name, verdict);
                }
            }
        }
        self.compare(file, found, verdict);
    }

    /// What a file of a kind has in it.
    fn inside(&self, kind: &str, verdict: &mut Verdict) {
        let zipped = matches!(kind, "zip" | "docx" | "xlsx" | "pptx");
        for (holds, name) in [
            (kind == "ole" && self.has(Sign::OleMacros), "filetype:macros"),
            (kind == "ole" && self.has(Sign::OleEncrypted), "filetype:encrypted"),
            (zipped && self.has(Sign::ZipMacros), "filetype:macros"),
            (kind == "pdf" && self.has(Sign::PdfEncrypted), "filetype:encrypted"),
            (kind == "pdf" && self.has(Sign::PdfProgram), "filetype:macros"),
        ] {
            if holds {
                verdict.add(name, "content", "");
            }
        }
    }

    /// Compares the kind with the declared type and with the name.
    fn compare(&self, file: &File<'_>, found: Option<(&str, Category)>, verdict: &mut Verdict) {
        let found_name = found.map_or("unknown", |(kind, _)| kind);
        if let Some(declared) = file.media_type {
            let said = kinds::category_of_type(declared);
            let misled = match (said, found) {
                (Some(said), Some((kind, is))) => {
                    !may_be(said, kind, is)
                        || (kinds::always_known(declared) && !may_be_zip(said, kind) && said != is)
                }
                (Some(Category::Text | Category::Markup | Category::Script), None) => self.size > 0,
                (_, None) => self.size > 0 && kinds::always_known(declared),
                (None, Some(_)) => false,
            };
            if misled {
                verdict.add(
                    "filetype-mismatch",
                    "type",
                    &format!("{found_name} as {}", said.map_or("another type", Category::name)),
                );
            }
        }
        if let Some((extension, said)) = file.name.and_then(kinds::category_of_name) {
            // Many scripts and programs have no first bytes that tell them. Their name is what runs them.
            if matches!(said, Category::Script | Category::Executable) {
                verdict.add(&format!("filetype:{}", said.name()), "name", &extension);
            }
            if found.is_some_and(|(kind, is)| !may_be(said, kind, is)) {
                verdict.add("filetype-mismatch", "name", &format!("{found_name} as .{extension}"));
            }
        }
    }
}

/// Whether what is said to be one thing may be another without anybody being misled.
fn may_be(said: Category, kind: &str, is: Category) -> bool {
    said.may_be(is) || may_be_zip(said, kind)
}

/// Whether a document that is said to be an archive is one too.
fn may_be_zip(said: Category, kind: &str) -> bool {
    said == Category::Archive && matches!(kind, "docx" | "xlsx" | "pptx" | "opendocument" | "epub")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zip::tests::archive;

    fn judged(file: File<'_>, bytes: &[u8]) -> Vec<String> {
        let mut content = Content::default();
        for chunk in bytes.chunks(7) {
            content.take(chunk);
        }
        let mut verdict = Verdict::default();
        content.judge(&file, &mut verdict);
        let mut ids: Vec<_> = verdict.findings().iter().map(|finding| finding.id.clone()).collect();
        ids.dedup();
        ids
    }

    fn named<'a>(name: &'a str, media_type: &'a str) -> File<'a> {
        File { name: Some(name), media_type: Some(media_type), size: None }
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01";
    const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0\0\0\0\0";

    #[test]
    fn a_picture_is_a_picture() {
        assert_eq!(judged(named("a.png", "image/png"), PNG), ["filetype:png", "filetype:picture"]);
        assert_eq!(judged(named("a.jpg", "image/jpeg"), PNG), ["filetype:png", "filetype:picture"]);
    }

    #[test]
    fn a_file_that_is_not_what_it_is_said_to_be_is_found() {
        for (file, bytes) in [
            (named("a.png", "image/png"), b"MZ\x90\0\x03\0\0\0".as_slice()),
            (named("a", "image/png"), b"hello"),
            (named("a", "application/pdf"), b"hello"),
            (named("a", "image/png"), b"\0\x01\x02\x03"),
            (named("a.txt", "application/octet-stream"), PNG),
            (named("a", "text/plain"), b"\0\x01\x02\x03"),
            (named("a.pdf", "application/pdf"), &archive(&["x"], 0)),
            (
                named("a.gif", "image/gif"),
                &[b"GIF89a\0\0\0\0".as_slice(), &archive(&["a.class"], 0)].concat(),
            ),
        ] {
            let found = judged(file, bytes);
            assert!(found.contains(&"filetype-mismatch".to_owned()), "{file:?} {found:?}");
        }
    }

    #[test]
    fn programs_scripts_and_archives_are_told() {
        for (file, bytes, expected) in [
            (named("setup.bin", ""), b"MZ\x90\0\x03\0\0\0".as_slice(), "filetype:executable"),
            (named("run.ps1", "text/plain"), b"Get-ChildItem", "filetype:script"),
            (named("run", "text/plain"), b"#!/bin/sh\nls", "filetype:script"),
            (named("a.zip", "application/zip"), &archive(&["a.txt"], 0), "filetype:archive"),
            (named("a.zip", "application/zip"), &archive(&["a.txt"], 1), "filetype:encrypted"),
            (named("a.zip", "application/zip"), &archive(&["a/setup.exe"], 0), "filetype:archived-program"),
            (named("a.zip", "application/zip"), b"PK\x03\x04 and no directory", "filetype:archive-unread"),
            (named("a.jar", ""), &archive(&["META-INF/MANIFEST.MF"], 0), "filetype:executable"),
            (named("a.msi", ""), &[OLE, SIGNS[2].0].concat(), "filetype:msi"),
            (named("empty", ""), b"", "filetype:empty"),
            (named("noise", ""), b"\0\x01\x02", "filetype:unknown"),
        ] {
            let found = judged(file, bytes);
            assert!(found.contains(&expected.to_owned()), "{file:?} {found:?}");
        }
    }

    #[test]
    fn macros_and_encryption_of_documents_are_told() {
        let document = ["[Content_Types].xml", "word/document.xml", "word/vbaProject.bin"];
        let found = judged(named("a.docm", ""), &archive(&document, 0));
        assert_eq!(found, ["filetype:docx", "filetype:document", "filetype:macros"]);
        let plain = judged(named("a.docx", ""), &archive(&document[..2], 0));
        assert_eq!(plain, ["filetype:docx", "filetype:document"]);
        assert_eq!(judged(named("a.zip", "application/zip"), &archive(&document[..2], 0)), plain);
        assert!(
            judged(named("a.doc", ""), &[OLE, SIGNS[0].0].concat()).contains(&"filetype:macros".to_owned())
        );
        assert!(
            judged(named("a.doc", ""), &[OLE, SIGNS[1].0].concat())
                .contains(&"filetype:encrypted".to_owned())
        );
        let pdf = b"%PDF-1.7\n<< /Encrypt 5 0 R >> << /S /JavaScript >>";
        let found = judged(named("a.pdf", "application/pdf"), pdf);
        assert_eq!(found, ["filetype:pdf", "filetype:document", "filetype:encrypted", "filetype:macros"]);
    }

    #[test]
    fn text_of_either_encoding_is_read() {
        let mut content = Content::default();
        content.take(b"\xff\xfeh\0i\0");
        assert_eq!(content.text().as_deref(), Some("hi"));
        let mut content = Content::default();
        content.take("Grüße".as_bytes());
        assert_eq!(content.text().as_deref(), Some("Grüße"));
        let mut content = Content::default();
        content.take(PNG);
        assert_eq!(content.text(), None);
    }

    #[test]
    fn no_more_than_the_bounds_is_kept() {
        let mut content = Content::default();
        for _ in 0..100 {
            content.take(&[b'x'; 100_000]);
        }
        assert_eq!(content.size(), 10_000_000);
        assert!(content.start.len() <= FILE_TEXT_BYTES && content.tail.len() <= TAIL_BYTES);
        assert!(content.overlap.len() <= SIGN_OVERLAP && content.text_is_cut());
    }

    #[test]
    fn the_overlap_is_that_of_the_longest_sign() {
        assert_eq!(SIGNS.iter().map(|(bytes, _)| bytes.len()).max(), Some(SIGN_OVERLAP + 1));
    }

    proptest! {
        #[test]
        fn how_a_file_is_cut_makes_no_difference(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), sign in 0..SIGNS.len(),
        ) {
            let at = at % (bytes.len() + 1);
            let bytes = [&bytes[..at], SIGNS[sign].0, &bytes[at..]].concat();
            let mut whole = Content::default();
            whole.take(&bytes);
            let mut pieces = Content::default();
            bytes.chunks(5).for_each(|chunk| pieces.take(chunk));
            let sorted = |content: &Content| {
                let mut signs: Vec<_> = content.signs.iter().map(|sign| format!("{sign:?}")).collect();
                signs.sort();
                signs
            };
            prop_assert_eq!(sorted(&whole), sorted(&pieces));
            prop_assert_eq!(whole.start, pieces.start);
        }
    }
}
