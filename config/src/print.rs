//! Settings as text: the sample file, the manual page, and what is in force.

use crate::{
    Config, Loaded,
    declare::{KeyInfo, SectionInfo},
    error::Origin,
};

/// The sample configuration file: every key with its documentation and default, commented out.
#[must_use]
pub fn sample() -> String {
    let mut out = String::from(
        "# Configuration of Postern. Every key is here, commented out, with its default or an example.\n\
         # A key may also be given as an environment variable, POSTERN__SECTION__KEY, or by a flag,\n\
         # --set section.key=value; flags win over the environment, and the environment over this file.\n\
         # Written by `postern config sample`; `postern config check` says what is wrong with a file.\n",
    );
    for section in Config::catalogue() {
        out.push('\n');
        push_comment(&mut out, section.doc);
        out.push_str(&format!("[{}]\n", section.name));
        for key in &section.keys {
            out.push('\n');
            push_comment(&mut out, key.doc);
            out.push_str(&format!("# Must be {}.\n", key.expected));
            out.push_str(&format!("#{} = {}\n", key.name, written_default(key)));
            if key.secret {
                out.push_str("# The same, read from a file.\n");
                let path = format!("/run/secrets/{}", key.name);
                out.push_str(&format!("#{}_file = {}\n", key.name, toml::Value::from(path)));
            }
        }
    }
    out
}

fn push_comment(out: &mut String, doc: &[&str]) {
    for line in doc {
        out.push_str(format!("#{line}").trim_end());
        out.push('\n');
    }
}

fn written_default(key: &KeyInfo) -> String {
    match (&key.default, key.example) {
        (Some(value), _) => value.to_string(),
        (None, Some(example)) => example.to_owned(),
        (None, None) => "\"\"".to_owned(),
    }
}

/// The manual page of all settings, in Markdown.
#[must_use]
pub fn manual() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         Settings come from, in rising order of precedence: defaults, a TOML file (`--config FILE`, or the\n\
         environment variable `POSTERN_CONFIG`), environment variables (`POSTERN__SECTION__KEY`), flags\n\
         (`--set section.key=value`). Without any of them the server runs with the defaults below. Unknown keys\n\
         are errors. `postern config check` checks, `postern config show` prints what is in force and where it\n\
         came from, `postern config sample` prints a file to start from ([config/postern.toml](../config/postern.toml)).\n\n\
         A secret can also be read from a file: give the path in the key with `_file` at its end.\n\n\
         This page is written from the declarations in `config/src/sections.rs`.\n",
    );
    for section in Config::catalogue() {
        push_manual_section(&mut out, &section);
    }
    out
}

fn push_manual_section(out: &mut String, section: &SectionInfo) {
    out.push_str(&format!("\n## {}\n\n{}\n", section.name, one_line(section.doc)));
    out.push_str("\n| key | default | meaning |\n| --- | --- | --- |\n");
    for key in &section.keys {
        let default = key.default.as_ref().map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let name =
            if key.secret { format!("`{0}`, `{0}_file`", key.name) } else { format!("`{}`", key.name) };
        let meaning = format!("{} Must be {}.", one_line(key.doc), key.expected).replace('|', "\\|");
        out.push_str(&format!("| {name} | {default} | {meaning} |\n"));
    }
}

fn one_line(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// What is in force, as a configuration file, with a remark where each value that is not a default came from.
/// Secrets are redacted.
pub(crate) fn show(loaded: &Loaded) -> String {
    let mut out = String::new();
    for (section, keys) in loaded.config.values() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("[{section}]\n"));
        for (key, value) in keys {
            let remark = match loaded.origin(&format!("{section}.{key}")) {
                Origin::Default => String::new(),
                origin => format!(" # {origin}"),
            };
            match value {
                Some(value) => out.push_str(&format!("{key} = {value}{remark}\n")),
                None => out.push_str(&format!("# {key} is not set{remark}\n")),
            }
        }
    }
    out
}
