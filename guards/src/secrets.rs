//! Secrets and credentials, by the rules of Gitleaks (`rules/gitleaks.toml`, as published; see `rules/README.md`).
//!
//! Each rule names keywords of which its finds always contain one. One pass over a text finds all keywords of all rules;
//! only the few rules whose keywords are there have their expression run. So an ordinary message costs that one pass.
//! A find counts if its entropy is high enough and no allow-list knows it as an example or a placeholder.
//!
//! Two things of Gitleaks are left out, since here it is the sender who would use them to get past: comments that
//! switch a rule off (`gitleaks:allow`), and allow-lists of paths.

use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::limits::{EXPRESSION_CACHE_BYTES, MATCHES_OF_RULE, RULE_BYTES};
use crate::settings::{BadSettings, SecretSettings};
use crate::verdict::masked;
use crate::{Text, Verdict};

/// The rules as published by Gitleaks 8.30.1.
const RULES: &str = include_str!("../rules/gitleaks.toml");

/// They take some time and memory to compile, so that is done once.
static COMPILED: LazyLock<Result<Arc<Rules>, RuleError>> =
    LazyLock::new(|| Rules::compile(RULES).map(Arc::new));

#[derive(Debug)]
pub(crate) struct Secrets {
    rules: Arc<Rules>,
    /// Of each rule, whether it is applied.
    enabled: Vec<bool>,
}

#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    keywords: AhoCorasick,
    /// Of each keyword, the rules it stands for.
    of_keyword: Vec<Vec<usize>>,
    /// Rules without keywords.
    always: Vec<usize>,
    allowed: Allowed,
}

#[derive(Debug)]
struct Rule {
    finding: String,
    /// None if the name of a file says all.
    regex: Option<Regex>,
    group: usize,
    /// Bits per byte that a secret must have more of.
    entropy: f64,
    allowed: Vec<Allowed>,
    /// Files that the rule is about.
    path: Option<Regex>,
}

/// Finds that are no secrets.
#[derive(Debug)]
struct Allowed {
    /// Whether all its conditions must hold, or one of them.
    all: bool,
    /// A condition on paths, which is never taken to hold.
    paths: bool,
    regexes: Vec<Regex>,
    target: Target,
    words: Option<AhoCorasick>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Target {
    #[default]
    Secret,
    Match,
    Line,
}

#[derive(Clone, Debug)]
struct RuleError {
    id: String,
    reason: String,
}

mod published {
    //! The rules' form in TOML.

    use serde::Deserialize;

    use super::Target;

    #[derive(Deserialize)]
    pub(super) struct Rules {
        pub(super) allowlist: Allowlist,
        pub(super) rules: Vec<Rule>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Rule {
        pub(super) id: String,
        pub(super) regex: Option<String>,
        pub(super) path: Option<String>,
        #[serde(default)]
        pub(super) secret_group: usize,
        #[serde(default)]
        pub(super) entropy: f64,
        #[serde(default)]
        pub(super) keywords: Vec<String>,
        #[serde(default)]
        pub(super) allowlists: Vec<Allowlist>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Allowlist {
        #[serde(default)]
        pub(super) condition: String,
        #[serde(default)]
        pub(super) paths: Vec<String>,
        #[serde(default)]
        pub(super) regexes: Vec<String>,
        #[serde(default)]
        pub(super) regex_target: Target,
        #[serde(default)]
        pub(super) stopwords: Vec<String>,
    }
}

impl Secrets {
    pub(crate) fn new(settings: &SecretSettings) -> Result<Option<Self>, BadSettings> {
        if !settings.enabled {
            return Ok(None);
        }
        let rules = match &*COMPILED {
            Ok(rules) => rules.clone(),
            Err(RuleError { id, reason }) => {
                return Err(BadSettings::ShippedRule { id: id.clone(), reason: reason.clone() });
            }
        };
        let mut enabled = vec![true; rules.rules.len()];
        for id in &settings.disabled_rules {
            let at = rules.rules.iter().position(|rule| rule.id() == id);
            match at.and_then(|at| enabled.get_mut(at)) {
                Some(rule) => *rule = false,
                None => return Err(BadSettings::NoSuchRule(id.clone())),
            }
        }
        Ok(Some(Self { rules, enabled }))
    }

    /// Looks for secrets in `text` that stands at `place`, in a file of that name if it is one.
    pub(crate) fn inspect(&self, text: &str, place: &str, file: Option<&str>, verdict: &mut Verdict) {
        self.apply(text, place, file, |_| true, verdict);
    }

    /// Looks for secrets in texts that were joined. What follows a word such as "key" there is another text, so the
    /// rule that goes by such words says nothing.
    pub(crate) fn inspect_joined(&self, text: &str, verdict: &mut Verdict) {
        self.apply(text, "", None, |rule| rule.id() != "generic-api-key", verdict);
    }

    fn apply(
        &self,
        text: &str,
        place: &str,
        file: Option<&str>,
        applies: impl Fn(&Rule) -> bool,
        verdict: &mut Verdict,
    ) {
        for at in self.rules.applicable(text.as_bytes()) {
            let enabled = self.enabled.get(at).is_some_and(|enabled| *enabled);
            let rule = self.rules.rules.get(at).filter(|rule| enabled && applies(rule));
            let Some(rule) = rule else { continue };
            if let Some(secret) = rule.find(text.as_bytes(), file, &self.rules.allowed) {
                verdict.add(&rule.finding, place, &masked(&String::from_utf8_lossy(secret)));
            }
        }
    }

    /// Looks at all forms of a text.
    pub(crate) fn inspect_text(&self, text: &Text<'_>, verdict: &mut Verdict) {
        for form in text.forms() {
            self.inspect(form, &text.place, None, verdict);
        }
    }

    /// Looks at a name of a file, which alone says that it is a secret.
    pub(crate) fn inspect_name(&self, name: &str, verdict: &mut Verdict) {
        for (rule, enabled) in self.rules.rules.iter().zip(&self.enabled) {
            let path = rule.path.as_ref().filter(|_| *enabled && rule.regex.is_none());
            if path.is_some_and(|path| path.is_match(name.as_bytes())) {
                verdict.add(&rule.finding, "name", "");
            }
        }
    }
}

impl Rules {
    fn compile(published: &str) -> Result<Self, RuleError> {
        let error =
            |reason: &dyn std::fmt::Display| RuleError { id: String::new(), reason: reason.to_string() };
        let published: published::Rules = toml::from_str(published).map_err(|e| error(&e))?;
        let mut rules = Vec::with_capacity(published.rules.len());
        let mut keywords: Vec<String> = Vec::new();
        let mut of_keyword: Vec<Vec<usize>> = Vec::new();
        let mut always = Vec::new();
        for (number, rule) in published.rules.into_iter().enumerate() {
            if rule.keywords.is_empty() && rule.regex.is_some() {
                always.push(number);
            }
            for keyword in &rule.keywords {
                let keyword = keyword.to_ascii_lowercase();
                let at = keywords.iter().position(|known| *known == keyword).unwrap_or_else(|| {
                    keywords.push(keyword);
                    of_keyword.push(Vec::new());
                    keywords.len() - 1
                });
                if let Some(of_keyword) = of_keyword.get_mut(at) {
                    of_keyword.push(number);
                }
            }
            let id = rule.id.clone();
            rules.push(Rule::compile(rule).map_err(|reason| RuleError { id, reason })?);
        }
        let allowed = Allowed::compile(published.allowlist)
            .map_err(|reason| RuleError { id: "global allow-list".to_owned(), reason })?;
        let keywords = words(&keywords).map_err(|e| error(&e))?;
        Ok(Self { rules, keywords, of_keyword, always, allowed })
    }

    /// The rules whose keywords are in `text`, in their order.
    fn applicable(&self, text: &[u8]) -> Vec<usize> {
        let mut seen = vec![false; self.of_keyword.len()];
        let mut applicable = Vec::new();
        for keyword in self.keywords.find_overlapping_iter(text) {
            let at = keyword.pattern().as_usize();
            let Some(seen) = seen.get_mut(at).filter(|seen| !**seen) else { continue };
            *seen = true;
            applicable.extend(self.of_keyword.get(at).into_iter().flatten());
        }
        applicable.extend(&self.always);
        applicable.sort_unstable();
        applicable.dedup();
        applicable
    }
}

impl Rule {
    fn compile(rule: published::Rule) -> Result<Self, String> {
        Ok(Self {
            finding: format!("secret:{}", rule.id),
            regex: rule.regex.as_deref().map(expression).transpose()?,
            group: rule.secret_group,
            entropy: rule.entropy,
            allowed: rule.allowlists.into_iter().map(Allowed::compile).collect::<Result<_, _>>()?,
            path: rule.path.as_deref().map(expression).transpose()?,
        })
    }

    fn id(&self) -> &str {
        self.finding.strip_prefix("secret:").unwrap_or_default()
    }

    /// The first secret of this rule.
    fn find<'t>(&self, text: &'t [u8], file: Option<&str>, allowed: &Allowed) -> Option<&'t [u8]> {
        if let Some(path) = &self.path
            && !file.is_some_and(|file| path.is_match(file.as_bytes()))
        {
            return None;
        }
        for groups in self.regex.as_ref()?.captures_iter(text).take(MATCHES_OF_RULE) {
            let Some(whole) = groups.get(0) else { continue };
            let group = match self.group {
                0 => groups.iter().skip(1).flatten().find(|group| !group.is_empty()),
                group => groups.get(group),
            };
            let secret = group.map_or(whole.as_bytes(), |group| group.as_bytes());
            let secret = secret.trim_ascii_end();
            if self.entropy > 0.0 && entropy(secret) <= self.entropy {
                continue;
            }
            let found = Found { secret, whole: whole.as_bytes(), line: line(text, whole.range()) };
            if allowed.allows(&found) || self.allowed.iter().any(|allowed| allowed.allows(&found)) {
                continue;
            }
            return Some(secret);
        }
        None
    }
}

struct Found<'t> {
    secret: &'t [u8],
    whole: &'t [u8],
    line: &'t [u8],
}

impl Allowed {
    fn compile(list: published::Allowlist) -> Result<Self, String> {
        Ok(Self {
            all: list.condition == "AND",
            paths: !list.paths.is_empty(),
            regexes: list.regexes.iter().map(|regex| expression(regex)).collect::<Result<_, _>>()?,
            target: list.regex_target,
            words: (!list.stopwords.is_empty())
                .then(|| words(&list.stopwords))
                .transpose()
                .map_err(|error| error.to_string())?,
        })
    }

    fn allows(&self, found: &Found<'_>) -> bool {
        if self.all && self.paths {
            return false;
        }
        let target = match self.target {
            Target::Secret => found.secret,
            Target::Match => found.whole,
            Target::Line => found.line,
        };
        let regex = || self.regexes.iter().any(|regex| regex.is_match(target));
        let word = || self.words.as_ref().is_some_and(|words| words.is_match(found.secret));
        if self.all {
            (self.regexes.is_empty() || regex()) && (self.words.is_none() || word())
        } else {
            regex() || word()
        }
    }
}

fn words(words: &[String]) -> Result<AhoCorasick, aho_corasick::BuildError> {
    AhoCorasick::builder().ascii_case_insensitive(true).match_kind(MatchKind::Standard).build(words)
}

/// Compiles an expression in Go's syntax, in which the rules are written: its classes are of ASCII.
fn expression(go: &str) -> Result<Regex, String> {
    RegexBuilder::new(&braces_escaped(go))
        .unicode(false)
        .size_limit(RULE_BYTES)
        .dfa_size_limit(EXPRESSION_CACHE_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

/// In Go, a brace that begins no repetition stands for itself; here it must be escaped for that.
fn braces_escaped(go: &str) -> String {
    let mut escaped = String::with_capacity(go.len() + 8);
    let mut rest = go;
    while let Some(at) = rest.find(['\\', '{']) {
        let (before, from) = rest.split_at(at);
        escaped.push_str(before);
        let taken = match from.strip_prefix('{') {
            Some(after) if !repetition(after) => {
                escaped.push('\\');
                1
            }
            Some(_) => 1,
            // The escaped character and, of a class such as \p{L}, its brace.
            None if from.get(2..3) == Some("{") && matches!(from.get(1..2), Some("p" | "P" | "x")) => 3,
            None => 1 + from.chars().nth(1).map_or(0, char::len_utf8),
        };
        let (piece, after) = from.split_at(taken);
        escaped.push_str(piece);
        rest = after;
    }
    escaped.push_str(rest);
    escaped
}

/// Whether what follows a brace makes it a repetition: `3}`, `3,}`, `3,5}`.
fn repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        Some((least, most)) => number(least) && (most.is_empty() || number(most)),
        None => number(inside),
    }
}

/// Shannon's entropy of `bytes`, bits per byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let all = bytes.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / all)
        .map(|p| -p * p.log2())
        .sum()
}

/// The lines in which a range lies.
fn line(text: &[u8], range: std::ops::Range<usize>) -> &[u8] {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    let start = memchr::memrchr(b'\n', before.unwrap_or_default()).map_or(0, |at| at + 1);
    let end = memchr::memchr(b'\n', after.unwrap_or_default()).map_or(text.len(), |at| range.end + at);
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let secrets = Secrets::new(&SecretSettings::default()).unwrap().unwrap();
        let mut verdict = Verdict::default();
        secrets.inspect(text, "/body", None, &mut verdict);
        verdict.findings().iter().map(|finding| finding.id.clone()).collect()
    }

    #[derive(Deserialize)]
    struct Example {
        id: String,
        /// The name of the file it is in, where the rule asks for one.
        file: Option<String>,
        secret: bool,
        /// Base64, so that scanners of this repository find none.
        text: String,
    }

    #[test]
    fn every_rule_finds_its_examples_and_not_its_counter_examples() {
        let examples: Vec<Example> = serde_json::from_str(include_str!("../rules/examples.json")).unwrap();
        let rules = COMPILED.as_ref().unwrap();
        let mut wrong = Vec::new();
        for example in &examples {
            let text = STANDARD.decode(&example.text).unwrap();
            let rule = rules.rules.iter().find(|rule| rule.id() == example.id).unwrap();
            let at = rules.rules.iter().position(|rule| rule.id() == example.id).unwrap();
            let file = example.file.as_deref();
            let found = match &rule.regex {
                Some(_) => {
                    rules.applicable(&text).contains(&at) && rule.find(&text, file, &rules.allowed).is_some()
                }
                None => rule.path.as_ref().unwrap().is_match(file.unwrap().as_bytes()),
            };
            if found != example.secret {
                wrong.push(format!("{}: {}", example.id, String::from_utf8_lossy(&text)));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
        for rule in &rules.rules {
            assert!(examples.iter().any(|e| e.id == rule.id() && e.secret), "{} has no example", rule.id());
        }
    }

    #[test]
    fn no_rule_finds_its_examples_when_they_are_torn_apart() {
        let examples: Vec<Example> = serde_json::from_str(include_str!("../rules/examples.json")).unwrap();
        let rules = COMPILED.as_ref().unwrap();
        for example in examples.iter().filter(|example| example.secret) {
            let text = STANDARD.decode(&example.text).unwrap();
            let torn: Vec<u8> = text.chunks(2).flat_map(|two| [two, b" "].concat()).collect();
            let rule = rules.rules.iter().find(|rule| rule.id() == example.id).unwrap();
            let found = rule.find(&torn, example.file.as_deref(), &rules.allowed);
            assert_eq!(found.map(String::from_utf8_lossy), None, "{}", example.id);
        }
    }

    #[test]
    fn a_secret_is_found_in_a_sentence_and_masked() {
        let secrets = Secrets::new(&SecretSettings::default()).unwrap().unwrap();
        let mut verdict = Verdict::default();
        let key = ["AKIA", "QYLPMN5HFIQR7XYA"].concat();
        secrets.inspect(&format!("the key is {key}, keep it"), "/body", None, &mut verdict);
        assert_eq!(verdict.findings().len(), 1);
        assert_eq!(verdict.findings()[0].id, "secret:aws-access-token");
        assert_eq!(verdict.findings()[0].excerpt, "AKIA****");
        assert!(!format!("{verdict:?}").contains(&key));
    }

    #[test]
    fn ordinary_talk_has_no_secrets() {
        for text in [
            "Shall we meet at the key station? My password manager told me the token had expired.",
            "The api is at https://matrix.org/docs/api and access is free.",
            "key: value, secret: no, AKIA is a prefix",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_comment_does_not_switch_a_rule_off() {
        let key = ["AKIA", "QYLPMN5HFIQR7XYA"].concat();
        assert_eq!(found(&format!("{key} # gitleaks:allow")), ["secret:aws-access-token"]);
    }

    #[test]
    fn a_rule_can_be_disabled_and_an_unknown_one_is_refused() {
        let settings =
            SecretSettings { disabled_rules: vec!["aws-access-token".to_owned()], ..Default::default() };
        let secrets = Secrets::new(&settings).unwrap().unwrap();
        let mut verdict = Verdict::default();
        secrets.inspect(&["AKIA", "QYLPMN5HFIQR7XYA"].concat(), "/body", None, &mut verdict);
        assert_eq!(verdict, Verdict::default());

        let settings =
            SecretSettings { disabled_rules: vec!["no-such-rule".to_owned()], ..Default::default() };
        assert_eq!(Secrets::new(&settings).unwrap_err(), BadSettings::NoSuchRule("no-such-rule".to_owned()));
    }

    #[test]
    fn a_name_of_a_key_file_is_found() {
        let secrets = Secrets::new(&SecretSettings::default()).unwrap().unwrap();
        let mut verdict = Verdict::default();
        secrets.inspect_name("server.p12", &mut verdict);
        assert!(verdict.contains("secret:pkcs12-file"));
    }

    #[test]
    fn braces_that_repeat_nothing_stand_for_themselves() {
        assert_eq!(braces_escaped(r"a{3}b{3,}{{x}\{y{,2}[{]\p{L}"), r"a{3}b{3,}\{\{x}\{y\{,2}[\{]\p{L}");
    }

    #[test]
    fn entropy_is_in_bits_per_byte() {
        assert_eq!(entropy(b""), 0.0);
        assert_eq!(entropy(b"aaaa"), 0.0);
        assert_eq!(entropy(b"abcd"), 2.0);
    }

    proptest! {
        #[test]
        fn any_expression_is_escaped_or_refused(go in r"([a-z{}\\,3\[\]px]|é){0,20}") {
            let _ = expression(&go);
        }

        #[test]
        fn a_token_is_found_wherever_it_stands(
            token in "ghp_[0-9a-zA-Z]{36}", before in "[ a-z.,\n]{0,40}", after in "[ .,\n]{0,40}",
        ) {
            prop_assume!(entropy(token.as_bytes()) > 4.0);
            let ids = found(&format!("{before} {token}{after}"));
            prop_assert!(ids.contains(&"secret:github-pat".to_owned()), "{ids:?}");
        }
    }
}
