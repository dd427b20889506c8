//! Checks of what is in an event or a file before it crosses a boundary.
//!
//! Guards find; they decide nothing. What they find is a set of names, such as `secret:aws-access-token`, `link:evil.example`
//! or `encrypted`, that a policy decides by, and that is recorded without the secret itself. `docs/guards.md` lists
//! all of them.
//!
//! Everything is bounded ([`limits`]), takes time in proportion to what is looked at, and never fails: what could not be
//! looked at is itself a finding (`limit:…`, `encrypted`, `antivirus:unavailable`).

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

mod antivirus;
mod characters;
mod files;
pub mod fuzzing;
mod html;
mod kinds;
mod limits;
mod links;
mod patterns;
mod secrets;
mod settings;
mod texts;
mod verdict;
mod zip;

use antivirus::{Antivirus, Outcome};
use files::Content;
use links::Links;
use patterns::Patterns;
use secrets::Secrets;
use texts::Text;

pub use files::File;
pub use settings::{
    AntivirusAddress, AntivirusSettings, BadSettings, Checksum, FileSettings, LinkSettings, PatternSettings,
    SecretSettings, Settings, TextSettings, UnicodeSettings,
};
pub use verdict::{Finding, Verdict};

/// All guards as they are set. Cheap to clone: clones are the same guards.
#[derive(Clone, Debug)]
pub struct Guards {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    secrets: Option<Secrets>,
    patterns: Patterns,
    links: Option<Links>,
    unicode: bool,
    most_text: usize,
    most_file: u64,
    antivirus: Option<Antivirus>,
}

impl Guards {
    /// Makes the guards ready. The first call in a process compiles the shipped rules, which takes some tens of
    /// milliseconds.
    ///
    /// # Errors
    /// When settings cannot be used, with which, and why.
    pub fn new(settings: &Settings) -> Result<Self, BadSettings> {
        Ok(Self {
            inner: Arc::new(Inner {
                secrets: Secrets::new(&settings.secrets)?,
                patterns: Patterns::new(&settings.patterns)?,
                links: Links::new(&settings.links)?,
                unicode: settings.unicode.enabled,
                most_text: settings.text.max_bytes,
                most_file: settings.files.max_bytes,
                antivirus: settings.antivirus.as_ref().map(Antivirus::new).transpose()?,
            }),
        })
    }

    /// Looks at all text of an event's content, at any depth, and at its type. Content of `m.room.encrypted` cannot be
    /// looked at: it is `encrypted` and nothing else.
    pub fn inspect_event(&self, content: &Value, event_type: &str) -> Verdict {
        let mut verdict = Verdict::default();
        if event_type == "m.room.encrypted" {
            verdict.add("encrypted", "", "");
            return verdict;
        }
        let texts = texts::of_event(content, &mut verdict);
        for text in &texts {
            self.look_at(text, &mut verdict);
        }
        if !texts::ordinary_name(event_type) {
            self.look_at(&Text::new("type".to_owned(), Cow::Borrowed(event_type)), &mut verdict);
        }
        if texts.len() > 1 {
            self.look_across(&texts, &mut verdict);
        }
        verdict
    }

    /// Looks at one text that is in no content: a state key, a display name, an alias. `place` is what the findings
    /// say of where it was.
    pub fn inspect_text(&self, text: &str, place: &str) -> Verdict {
        let mut verdict = Verdict::default();
        let end = text.floor_char_boundary(limits::TEXT_BYTES);
        if end < text.len() {
            verdict.add("limit:text", place, "");
        }
        let text = text.get(..end).unwrap_or_default();
        self.look_at(&Text::new(place.to_owned(), Cow::Borrowed(text)), &mut verdict);
        verdict
    }

    /// Looks at a file: its name, its kind, its size, its text if it is text, and has it scanned for viruses. `content`
    /// is read once, to its end or to the largest size that is allowed, and some 1.5 MiB of it are held in memory.
    ///
    /// # Errors
    /// When `content` cannot be read. Trouble with the virus scanner is a finding instead.
    pub async fn inspect_file<R>(&self, file: &File<'_>, mut content: R) -> io::Result<Verdict>
    where
        R: AsyncRead + Unpin + Send,
    {
        let mut scan = match &self.inner.antivirus {
            Some(antivirus) => Some(antivirus.begin().await),
            None => None,
        };
        let mut read = Content::default();
        let mut buffer = vec![0; limits::CHUNK_BYTES];
        let mut too_large = file.size.is_some_and(|size| size > self.inner.most_file);
        while !too_large {
            let count = content.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            let chunk = buffer.get(..count).unwrap_or_default();
            read.take(chunk);
            too_large = read.size() > self.inner.most_file;
            if let Some(scan) = &mut scan {
                scan.send(chunk).await;
            }
        }
        let mut verdict = self.judge_file(file, &read, too_large);
        if let Some(scan) = scan {
            let outcome = if too_large { Outcome::TooLarge } else { scan.finish().await };
            match outcome {
                Outcome::Clean => {}
                Outcome::Infected(name) => verdict.add("antivirus:infected", "content", &name),
                Outcome::TooLarge => verdict.add("antivirus:too-large", "content", ""),
                Outcome::Unavailable(reason) => verdict.add("antivirus:unavailable", "content", &reason),
            }
        }
        Ok(verdict)
    }

    fn judge_file(&self, file: &File<'_>, content: &Content, too_large: bool) -> Verdict {
        let mut verdict = Verdict::default();
        if let Some(name) = file.name {
            self.look_at_name(name, &mut verdict);
        }
        if too_large {
            let size = file.size.unwrap_or(content.size()).max(content.size());
            verdict.add("size:file", "size", &format!("{size} bytes or more"));
        } else if let Some(size) = file.size.filter(|size| *size != content.size()) {
            verdict.add("size:mismatch", "size", &format!("{} bytes, not {size}", content.size()));
        }
        content.judge(file, &mut verdict);
        if let Some(text) = content.text() {
            if content.text_is_cut() {
                verdict.add("limit:text", "content", "");
            }
            if let Some(secrets) = &self.inner.secrets {
                secrets.inspect(&text, "content", file.name, &mut verdict);
            }
            self.inner.patterns.inspect(&text, "content", &mut verdict);
        }
        verdict
    }

    /// A file's name is no link, whatever it ends with.
    fn look_at_name(&self, name: &str, verdict: &mut Verdict) {
        let end = name.floor_char_boundary(limits::FILE_NAME_BYTES);
        if end < name.len() {
            verdict.add("limit:text", "name", "");
        }
        let name = name.get(..end).unwrap_or_default();
        if let Some(secrets) = &self.inner.secrets {
            secrets.inspect_name(name, verdict);
            secrets.inspect(name, "name", None, verdict);
        }
        self.inner.patterns.inspect(name, "name", verdict);
        if self.inner.unicode {
            characters::inspect(name, "name", verdict);
        }
    }

    fn look_at(&self, text: &Text<'_>, verdict: &mut Verdict) {
        let inner = &self.inner;
        if text.source.len() > inner.most_text {
            verdict.add("size:text", &text.place, &format!("{} bytes", text.source.len()));
        }
        if let Some(secrets) = &inner.secrets {
            secrets.inspect_text(text, verdict);
        }
        inner.patterns.inspect_text(text, verdict);
        if let Some(links) = &inner.links {
            links.inspect_text(text, verdict);
        }
        if inner.unicode {
            for form in text.written() {
                characters::inspect(form, &text.place, verdict);
            }
        }
    }

    /// Looks for secrets and expressions that were cut into pieces and put into several texts.
    fn look_across(&self, texts: &[Text<'_>], verdict: &mut Verdict) {
        let joined = texts::joined(texts);
        let mut across = Verdict::default();
        if let Some(secrets) = &self.inner.secrets {
            secrets.inspect_joined(&joined, &mut across);
        }
        self.inner.patterns.inspect(&joined, "", &mut across);
        for finding in across.findings() {
            if !verdict.contains(&finding.id) {
                verdict.add(&finding.id, &finding.place, &finding.excerpt);
            }
        }
    }
}
