//! How settings are declared: each once, with name, kind, documentation, default and rule. Reading, checking,
//! showing, the sample file and the manual page all follow from that one place ([`crate::sections`]).

use crate::{
    error::{Origin, Problem},
    layers::{Given, Raw},
    value::{Rule, Setting},
};

/// A section as declared.
#[derive(Debug)]
pub struct SectionInfo {
    /// Its name in the file.
    pub name: &'static str,
    /// What it is about, line by line.
    pub doc: &'static [&'static str],
    /// Its keys.
    pub keys: Vec<KeyInfo>,
}

/// A key as declared.
#[derive(Debug)]
pub struct KeyInfo {
    /// Its name within the section.
    pub name: &'static str,
    /// What it does, line by line.
    pub doc: &'static [&'static str],
    /// What its value must be.
    pub expected: String,
    /// Its default; nothing if it is not set by default.
    pub default: Option<toml::Value>,
    /// A value to show where there is no default, as it is written in the file.
    pub example: Option<&'static str>,
    /// Whether it is a secret, which also has a key with `_file` at its end.
    pub secret: bool,
}

/// Takes the values out of what was given, and notes what is wrong with them.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) given: Given,
    pub(crate) problems: Vec<Problem>,
}

impl Reader {
    /// The value of a key: what was given for it, else its default.
    pub(crate) fn value<T: Setting>(
        &mut self,
        section: &str,
        key: &str,
        default: T,
        rule: Option<Rule<T>>,
    ) -> T {
        let path = format!("{section}.{key}");
        let Some((raw, origin)) = self.pick::<T>(&path) else { return default };
        let parsed = match &raw {
            Raw::Toml(value) => T::from_toml(value),
            Raw::Text(text) => T::from_text(text),
        };
        match parsed {
            Some(value) if rule.as_ref().is_none_or(|rule| (rule.holds)(&value)) => value,
            _ => {
                let value = if T::SECRET { crate::secret::REDACTED.to_owned() } else { raw.to_string() };
                let expected = expected::<T>(rule.as_ref());
                self.problems.push(Problem::Invalid { key: path, value, origin, expected });
                default
            }
        }
    }

    /// What was given for a key: directly, or for a secret by the name of a file, whichever layer is the later.
    fn pick<T: Setting>(&mut self, path: &str) -> Option<(Raw, Origin)> {
        let direct = self.given.get(path).cloned();
        if !T::SECRET {
            return direct;
        }
        let file_path = format!("{path}_file");
        let Some((raw, origin)) = self.given.get(&file_path).cloned() else { return direct };
        if let Some((_, direct_origin)) = &direct {
            if direct_origin.layer() == origin.layer() {
                self.problems.push(Problem::Conflict {
                    keys: format!("{path}, {file_path}"),
                    reason: format!("both are given ({direct_origin}; {origin}); give one of them"),
                });
                return direct;
            }
            if direct_origin.layer() > origin.layer() {
                return direct;
            }
        }
        let file = match &raw {
            Raw::Toml(value) => value.as_str().map(str::to_owned),
            Raw::Text(text) => Some(text.clone()),
        };
        let Some(file) = file else {
            let expected = "a path".to_owned();
            self.problems.push(Problem::Invalid { key: file_path, value: raw.to_string(), origin, expected });
            return None;
        };
        if file.is_empty() {
            return direct;
        }
        match crate::layers::read_bounded(file.as_ref()) {
            Ok(content) => Some((Raw::Text(content.trim_end_matches(['\r', '\n']).to_owned()), origin))
                .filter(|(raw, origin)| {
                    let empty = matches!(raw, Raw::Text(text) if text.is_empty());
                    if empty {
                        self.problems.push(Problem::SecretFile {
                            key: file_path.clone(),
                            path: file.clone(),
                            origin: origin.clone(),
                            reason: "is empty".to_owned(),
                        });
                    }
                    !empty
                }),
            Err(error) => {
                let reason = error.to_string();
                self.problems.push(Problem::SecretFile { key: file_path, path: file, origin, reason });
                None
            }
        }
    }
}

fn expected<T: Setting>(rule: Option<&Rule<T>>) -> String {
    match rule {
        Some(rule) => format!("{} {}", T::expected(), rule.expected),
        None => T::expected(),
    }
}

/// Makes a [`KeyInfo`] out of a declaration.
pub(crate) fn key_info<T: Setting>(
    name: &'static str,
    doc: &'static [&'static str],
    default: &T,
    rule: Option<Rule<T>>,
    example: Option<&'static str>,
) -> KeyInfo {
    KeyInfo {
        name,
        doc,
        expected: expected::<T>(rule.as_ref()),
        default: default.show().filter(|_| !T::SECRET),
        example,
        secret: T::SECRET,
    }
}

/// Declares the whole configuration.
///
/// `key: Kind = default, check rule, example "as in the file";` where rule and example may be left out. The
/// documentation comments are kept as data.
macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $Kind:ty = $default:expr $(, check $rule:expr)? $(, example $example:literal)?;
            )+
        }
    )+) => {
        /// Every setting of a server.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $( $(#[doc = $section_doc])* pub $section: $Section, )+
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $Kind, )+
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )+ }
                }
            }

            impl $Section {
                fn read(reader: &mut $crate::declare::Reader) -> Self {
                    Self {
                        $( $key: reader.value(
                            stringify!($section),
                            stringify!($key),
                            $default,
                            sections!(@optional $($rule)?),
                        ), )+
                    }
                }

                fn info() -> $crate::declare::SectionInfo {
                    let default = Self::default();
                    $crate::declare::SectionInfo {
                        name: stringify!($section),
                        doc: &[$( $section_doc ),*],
                        keys: vec![$( $crate::declare::key_info(
                            stringify!($key),
                            &[$( $doc ),*],
                            &default.$key,
                            sections!(@optional $($rule)?),
                            sections!(@optional $($example)?),
                        ) ),+],
                    }
                }

                fn show(&self) -> Vec<(&'static str, Option<toml::Value>)> {
                    vec![$( (stringify!($key), $crate::value::Setting::show(&self.$key)) ),+]
                }
            }
        )+

        impl Default for Config {
            fn default() -> Self {
                Self { $( $section: $Section::default(), )+ }
            }
        }

        impl Config {
            pub(crate) fn read(reader: &mut $crate::declare::Reader) -> Self {
                Self { $( $section: $Section::read(reader), )+ }
            }

            /// All sections and keys as they are declared, in the order of the sample.
            #[must_use]
            pub fn catalogue() -> Vec<$crate::declare::SectionInfo> {
                vec![$( $Section::info() ),+]
            }

            /// Each section with its keys and their values as they would stand in the file; secrets redacted.
            pub(crate) fn values(
                &self,
            ) -> Vec<(&'static str, Vec<(&'static str, Option<toml::Value>)>)> {
                vec![$( (stringify!($section), self.$section.show()) ),+]
            }
        }
    };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
}
pub(crate) use sections;
