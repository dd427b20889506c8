//! The directory of a zip archive, read from the archive's end (APPNOTE.TXT 6.3.10, section 4.3).
//!
//! Nothing is unpacked: names and flags say what a policy asks.

use crate::kinds::{Category, category_of_name};
use crate::limits::ARCHIVE_ENTRIES;

/// What an archive's directory says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Directory {
    /// The kind of document or program that an archive with these names is.
    pub(crate) kind: Option<(&'static str, Category)>,
    pub(crate) encrypted: bool,
    pub(crate) macros: bool,
    /// Files in it can be run.
    pub(crate) programs: bool,
    /// Not all of the directory was read: it is larger than what was kept, has too many files, or is damaged.
    pub(crate) cut: bool,
    /// The archive ends where the file ends. Otherwise it may lie in an attachment of the file.
    pub(crate) at_end: bool,
}

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
/// Bit 0 of the general purpose flags (section 4.4.4).
const ENCRYPTED: u16 = 1;
/// Bit 13: the directory itself is encrypted.
const DIRECTORY_ENCRYPTED: u16 = 1 << 13;

/// Reads the directory in `tail`, the last bytes of a file. None if there is no archive.
pub(crate) fn directory(tail: &[u8]) -> Option<Directory> {
    // The last end record counts. A comment of up to 65,535 bytes may follow it.
    let end = memchr::memmem::rfind(tail, END)?;
    let record = tail.get(end..)?;
    let size = u32_at(record, 12)? as usize;
    let count = usize::from(u16_at(record, 10)?);
    let comment = usize::from(u16_at(record, 20)?);
    let mut directory = Directory { at_end: record.len() == END_BYTES + comment, ..Directory::default() };
    // An archive of the 64-bit form says its size elsewhere; its entries are looked for instead.
    let wide = size == u32::MAX as usize || count == usize::from(u16::MAX);
    let start = if wide { memchr::memmem::find(tail, ENTRY) } else { end.checked_sub(size) };
    let Some(start) = start else {
        directory.cut = true;
        return Some(directory);
    };
    directory.cut |= wide;
    let mut rest = tail.get(start..end).unwrap_or_default();
    let mut names = Names::default();
    let mut entries = 0;
    while rest.starts_with(ENTRY) && entries < ARCHIVE_ENTRIES {
        let (Some(flags), Some(name)) = (u16_at(rest, 8), u16_at(rest, 28)) else { break };
        let (Some(extra), Some(comment)) = (u16_at(rest, 30), u16_at(rest, 32)) else { break };
        directory.encrypted |= flags & (ENCRYPTED | DIRECTORY_ENCRYPTED) != 0;
        let name_end = ENTRY_BYTES + usize::from(name);
        let Some(name) = rest.get(ENTRY_BYTES..name_end) else { break };
        names.see(name, &mut directory);
        rest = rest.get(name_end + usize::from(extra) + usize::from(comment)..).unwrap_or_default();
        entries += 1;
    }
    directory.cut |= !wide && (entries != count || !rest.is_empty());
    directory.kind = names.kind();
    Some(directory)
}

/// Names that tell what an archive is.
#[derive(Debug, Default)]
struct Names {
    content_types: bool,
    word: bool,
    excel: bool,
    slides: bool,
    open_document: bool,
    book: bool,
    java: bool,
    android: bool,
}

impl Names {
    fn see(&mut self, name: &[u8], directory: &mut Directory) {
        let name = String::from_utf8_lossy(name).replace('\\', "/");
        let lower = name.to_ascii_lowercase();
        self.content_types |= lower == "[content_types].xml";
        self.word |= lower.starts_with("word/");
        self.excel |= lower.starts_with("xl/");
        self.slides |= lower.starts_with("ppt/");
        self.open_document |= lower == "meta-inf/manifest.xml";
        self.book |= lower == "meta-inf/container.xml";
        self.java |= lower == "meta-inf/manifest.mf";
        self.android |= lower == "androidmanifest.xml";
        // Office Open XML keeps macros in a part of this name, OpenDocument in libraries below this folder.
        directory.macros |= lower.ends_with("vbaproject.bin") || lower.starts_with("basic/");
        directory.programs |=
            matches!(category_of_name(&lower), Some((_, Category::Executable | Category::Script)));
    }

    fn kind(&self) -> Option<(&'static str, Category)> {
        Some(match self {
            Self { content_types: true, word: true, .. } => ("docx", Category::Document),
            Self { content_types: true, excel: true, .. } => ("xlsx", Category::Document),
            Self { content_types: true, slides: true, .. } => ("pptx", Category::Document),
            Self { android: true, .. } => ("apk", Category::Executable),
            Self { java: true, .. } => ("jar", Category::Executable),
            Self { book: true, .. } => ("epub", Category::Document),
            Self { open_document: true, .. } => ("opendocument", Category::Document),
            _ => return None,
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An archive of empty files, as section 4.3.6 lays it out.
    pub(crate) fn archive(names: &[&str], flags: u16) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut directory = Vec::new();
        for name in names {
            let offset = u32::try_from(archive.len()).unwrap();
            let length = u16::try_from(name.len()).unwrap().to_le_bytes();
            let fields = |bytes: &mut Vec<u8>| {
                bytes.extend([20, 0]);
                bytes.extend(flags.to_le_bytes());
                bytes.extend([0; 2 + 2 + 2 + 4 + 4 + 4]);
                bytes.extend(length);
                bytes.extend([0; 2]);
            };
            archive.extend(b"PK\x03\x04");
            fields(&mut archive);
            archive.extend(name.as_bytes());
            directory.extend(b"PK\x01\x02");
            directory.extend([20, 0]);
            fields(&mut directory);
            directory.extend([0; 2 + 2 + 2 + 4]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = u32::try_from(archive.len()).unwrap();
        let count = u16::try_from(names.len()).unwrap().to_le_bytes();
        archive.extend(&directory);
        archive.extend(b"PK\x05\x06\0\0\0\0");
        archive.extend(count);
        archive.extend(count);
        archive.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
        archive.extend(start.to_le_bytes());
        archive.extend([0; 2]);
        archive
    }

    #[test]
    fn names_and_flags_tell_what_an_archive_is() {
        let word = directory(&archive(&["[Content_Types].xml", "word/document.xml"], 0)).unwrap();
        assert_eq!(word.kind, Some(("docx", Category::Document)));
        assert!(!word.macros && !word.encrypted && !word.programs && !word.cut);
        let macros = directory(&archive(&["[Content_Types].xml", "xl/vbaProject.bin"], 0)).unwrap();
        assert!(macros.macros);
        let programs = directory(&archive(&["read me.txt", "setup.EXE"], ENCRYPTED)).unwrap();
        assert!(programs.programs && programs.encrypted && programs.kind.is_none());
        assert_eq!(directory(&archive(&["META-INF/MANIFEST.MF"], 0)).unwrap().kind.unwrap().0, "jar");
    }

    #[test]
    fn a_directory_that_is_not_all_there_is_said_to_be_cut() {
        let whole = archive(&["one.txt", "two.txt", "three.txt"], 0);
        assert!(directory(&whole[whole.len() - 80..]).unwrap().cut);
        let mut damaged = whole.clone();
        let second = memchr::memmem::rfind(&damaged, ENTRY).unwrap();
        damaged[second] = 0;
        assert!(directory(&damaged).unwrap().cut);
        assert_eq!(directory(b"no archive"), None);
    }

    #[test]
    fn an_archive_is_found_behind_other_bytes() {
        let behind = [b"GIF89a".as_slice(), &archive(&["a.exe"], 0)].concat();
        let directory_behind = directory(&behind).unwrap();
        assert!(directory_behind.programs && directory_behind.at_end);
        assert!(!directory(&[behind.as_slice(), b"more"].concat()).unwrap().at_end);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), at in any::<usize>()) {
            let whole = archive(&["word/a", "b.exe"], 1);
            directory(&bytes);
            bytes.splice(at % (bytes.len() + 1).., whole);
            directory(&bytes);
        }

        #[test]
        fn a_damaged_archive_is_read(at in any::<usize>(), byte in any::<u8>()) {
            let mut archive = archive(&["word/a", "b.exe", "c.txt"], 0);
            let at = at % archive.len();
            archive[at] = byte;
            directory(&archive);
        }
    }
}
