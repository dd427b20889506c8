//! A set of policies, read and checked as a whole.
//!
//! A set is the rail, what comes with Postern ([`Base`]), and the operator's texts. It is either valid altogether or
//! refused. Each policy has an id that stays: that of its `@id("…")`, else the name of its text and its number there.
//!
//! > **Invariant.** The rail is in every set: one `forbid` for each of [`Action::RAILED`], unless `context.dominates`.
//! > A `forbid` wins over every `permit`, and an id of the rail cannot be taken by another policy.

use super::{
    bundle::Digest256,
    depth::{too_deep, with_room},
    limits::{LONGEST_ID, LONGEST_NAME, MOST_RULES, MOST_TEXT, MOST_TEXTS},
    problem::{Problem, Refused, Severity, place},
    question::{Action, Question},
    schema::KNOWN,
};
use cedar_policy::{
    ActionConstraint, Effect, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
    ValidationMode, Validator,
};
use cedar_policy_core::ast::{self, Expr, PrincipalOrResourceConstraint};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

/// What `base.cedar` is called among texts.
const BASE: (&str, &str) = ("base.cedar", include_str!("../../policies/base.cedar"));
const PEERS: (&str, &str) = ("peers.cedar", include_str!("../../policies/peers.cedar"));
const OPEN: (&str, &str) = ("open.cedar", include_str!("../../policies/open.cedar"));

/// Ids that begin so are not for the operator's policies.
const RESERVED: [&str; 2] = ["rail-", "base-"];

/// What crosses the boundary before the operator has said anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// Nothing: every way across is permitted by a policy of the operator.
    Closed,
    /// To and from accredited servers of the peer table.
    #[default]
    Peers,
    /// As [`Self::Peers`], and what has no label to and from any server, as everywhere in Matrix.
    Open,
}

impl Base {
    fn texts(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Closed => &[BASE],
            Self::Peers => &[BASE, PEERS],
            Self::Open => &[BASE, PEERS, OPEN],
        }
    }
}

/// Policies as text, under a name that problems and ids are told by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    pub name: String,
    pub text: String,
}

/// Names a set: SHA-256 over its policies in the order of their ids, however they are laid out and over however many
/// texts they are spread.
pub type Revision = Digest256;

/// What a policy is known by.
#[derive(Debug, Clone)]
pub struct Rule {
    pub id: String,
    /// Does it permit, or forbid?
    pub permits: bool,
    /// What `@reason("…")` says, for people.
    pub reason: Option<String>,
    /// The name of its text; `rail` for the rail.
    pub file: String,
    /// Where it begins there, from 1.
    pub line: usize,
    pub(super) policy: Policy,
}

impl Rule {
    /// The policy as Cedar writes it.
    #[must_use]
    pub fn text(&self) -> String {
        self.policy.to_string()
    }
}

/// An action, and the types of principal and resource.
type Shape = (Action, &'static str, &'static str);

/// A policy as it is asked of the questions whose [`Shape`] fits it.
pub(super) struct Ready {
    pub id: String,
    pub permits: bool,
    /// It applies exactly where this holds.
    pub condition: Expr,
}

/// A valid set of policies.
pub struct RuleSet {
    rules: BTreeMap<String, Rule>,
    /// For each question that the schema has, those of the policies whose scope may fit it, in the order of their ids.
    by_shape: HashMap<Shape, Arc<[Arc<Ready>]>>,
    revision: Revision,
    warnings: Vec<Problem>,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuleSet({} policies, {})", self.rules.len(), self.revision)
    }
}

impl RuleSet {
    /// Reads the base and the operator's texts.
    ///
    /// # Errors
    /// [`Refused`] with everything that is wrong: text that is no policy, what the schema does not have, ids that are
    /// taken twice or not for the operator, templates, and sets beyond [`limits`](super::limits).
    pub fn build(base: Base, texts: &[Text]) -> Result<Self, Refused> {
        with_room(|| {
            let mut reading = Reading::default();
            let rail = rail();
            reading.read("rail", &rail, true);
            for (name, text) in base.texts() {
                reading.read(name, text, true);
            }
            reading.read_all(texts);
            reading.finish()
        })
    }

    /// Names the set.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// In the order of their ids.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// The policy with this id.
    pub fn rule(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// What is suspicious, but no reason to refuse the set.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The policies that can have to do with a question; `None` where the schema has no such question.
    pub(super) fn concerned(&self, question: &Question) -> Option<&[Arc<Ready>]> {
        let Question { principal, action, resource, .. } = question;
        self.by_shape.get(&(*action, principal.type_name(), resource.type_name())).map(|ready| &**ready)
    }
}

/// All that is wrong with the operator's texts, errors and warnings, in the order of files and lines.
pub fn check(base: Base, texts: &[Text]) -> Vec<Problem> {
    match RuleSet::build(base, texts) {
        Ok(set) => set.warnings,
        Err(Refused(problems)) => problems,
    }
}

/// Nothing goes to anyone, or comes from anyone, whose clearance does not dominate its label.
fn rail() -> String {
    let rule = |action: &Action| {
        format!(
            "@id(\"rail-{action}\")\n@reason(\"the clearance does not dominate the label\")\n\
             forbid (principal, action == Action::\"{action}\", resource) unless {{ context.dominates }};\n"
        )
    };
    Action::RAILED.iter().map(rule).collect()
}

/// A policy and where it stands, before it is known to be valid.
struct Found<'t> {
    rule: Rule,
    text: &'t str,
    /// In bytes.
    start: usize,
}

#[derive(Default)]
struct Reading<'t> {
    found: BTreeMap<String, Found<'t>>,
    problems: Vec<Problem>,
    rules: usize,
}

impl<'t> Reading<'t> {
    fn read_all(&mut self, texts: &'t [Text]) {
        if texts.len() > MOST_TEXTS {
            self.problems.push(Problem::whole(
                "policies",
                format!("{} texts: no more than {MOST_TEXTS} are read", texts.len()),
            ));
            return;
        }
        let size: usize = texts.iter().map(|text| text.text.len()).sum();
        if size > MOST_TEXT {
            self.problems.push(Problem::whole(
                "policies",
                format!("{size} bytes of policies: no more than {MOST_TEXT} are read"),
            ));
            return;
        }
        let mut names = HashSet::new();
        for Text { name, text } in texts {
            if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
                let reason =
                    format!("a name of a text is 1 to {LONGEST_NAME} bytes without control characters");
                self.problems.push(Problem::whole(&name.escape_debug().to_string(), reason));
            } else if !names.insert(name) {
                self.problems.push(Problem::whole(name, "there is another text of this name"));
            } else {
                self.read(name, text, false);
            }
        }
    }

    /// Takes in the policies of one text. `ours` came with Postern.
    fn read(&mut self, name: &str, text: &'t str, ours: bool) {
        if let Some((at, reason)) = too_deep(text) {
            self.problems.push(Problem::at(name, text, at, reason));
            return;
        }
        let set = match PolicySet::from_str(text) {
            Ok(set) => set,
            Err(errors) => {
                self.problems.extend(errors.iter().map(|error| Problem::parse(name, text, error)));
                return;
            }
        };
        for template in set.templates() {
            let reason = "a template (with ?principal or ?resource) is not a policy: name what it is about";
            self.problems.push(Problem::at(
                name,
                text,
                template.as_ref().loc().map_or(0, |loc| loc.start()),
                reason,
            ));
        }
        let mut policies: Vec<_> = set
            .policies()
            .map(|policy| (policy.as_ref().loc().map_or(0, |loc| loc.start()), policy))
            .collect();
        policies.sort_by_key(|(start, _)| *start);
        self.rules += policies.len();
        if self.rules > MOST_RULES {
            let reason = format!("with this text there are more than {MOST_RULES} policies");
            self.problems.push(Problem::whole(name, reason));
            return;
        }
        for (number, (start, policy)) in policies.into_iter().enumerate() {
            self.take(name, text, ours, number + 1, start, policy);
        }
    }

    fn take(&mut self, name: &str, text: &'t str, ours: bool, number: usize, start: usize, policy: &Policy) {
        let id = policy.annotation("id").map_or_else(|| format!("{name}:{number}"), str::to_owned);
        let mut refuse = |reason: String| {
            self.problems.push(Problem::at(name, text, start, reason).of_rule(&id));
        };
        if id.is_empty() || id.len() > LONGEST_ID || id.chars().any(char::is_control) {
            return refuse(format!("an id is 1 to {LONGEST_ID} bytes without control characters"));
        }
        if !ours && let Some(reserved) = RESERVED.iter().find(|reserved| id.starts_with(**reserved)) {
            return refuse(format!("ids that begin with {reserved:?} are for what comes with Postern"));
        }
        if let Some(other) = self.found.get(&id) {
            return refuse(format!(
                "this id is taken by the policy in {}:{}",
                other.rule.file, other.rule.line
            ));
        }
        let rule = Rule {
            permits: policy.effect() == Effect::Permit,
            reason: policy.annotation("reason").map(str::to_owned),
            file: name.to_owned(),
            line: place(text, start).0,
            policy: policy.new_id(PolicyId::new(&id)),
            id: id.clone(),
        };
        self.found.insert(id, Found { rule, text, start });
    }

    /// Checks all against the schema.
    fn finish(mut self) -> Result<RuleSet, Refused> {
        let policies = self.found.values().map(|found| found.rule.policy.clone());
        match PolicySet::from_policies(policies) {
            Ok(set) => {
                let result = Validator::new(KNOWN.schema.clone()).validate(&set, ValidationMode::Strict);
                let mut wrong = HashSet::new();
                for error in result.validation_errors() {
                    wrong.insert(error.policy_id());
                    self.problem(error.policy_id(), |file, text, start| {
                        Problem::invalid(file, text, start, error)
                    });
                }
                for warning in result.validation_warnings() {
                    // That it never applies follows from what is wrong with it.
                    if wrong.contains(warning.policy_id()) {
                        continue;
                    }
                    self.problem(warning.policy_id(), |file, text, start| {
                        Problem::warning(file, text, start, warning)
                    });
                }
            }
            Err(error) => self.problems.push(Problem::whole("policies", error.to_string())),
        }
        self.problems.sort();
        if self.problems.iter().any(|problem| problem.severity == Severity::Error) {
            return Err(Refused(self.problems));
        }
        let rules: BTreeMap<_, _> = self.found.into_iter().map(|(id, found)| (id, found.rule)).collect();
        let revision = revision(&rules)?;
        let by_shape = by_shape(&rules);
        Ok(RuleSet { rules, by_shape, revision, warnings: self.problems })
    }

    fn problem(&mut self, id: &PolicyId, problem: impl Fn(&str, &str, usize) -> Problem) {
        let id: &str = id.as_ref();
        let problem = match self.found.get(id) {
            Some(found) => problem(&found.rule.file, found.text, found.start).of_rule(id),
            None => problem("policies", "", 0).of_rule(id),
        };
        self.problems.push(problem);
    }
}

/// For each question that the schema has, the policies that may fit it. Lists that are the same are one.
fn by_shape(rules: &BTreeMap<String, Rule>) -> HashMap<Shape, Arc<[Arc<Ready>]>> {
    let ready = |rule: &Rule| Ready {
        id: rule.id.clone(),
        permits: rule.permits,
        condition: condition(rule.policy.as_ref()),
    };
    let ready: Vec<_> = rules.values().map(|rule| (rule, Arc::new(ready(rule)))).collect();
    let mut lists: HashMap<Vec<&str>, Arc<[Arc<Ready>]>> = HashMap::new();
    let mut by_shape = HashMap::new();
    for shape in KNOWN.shapes.iter().copied() {
        let fit = || ready.iter().filter(|(rule, _)| may_fit(&rule.policy, shape));
        let ids = fit().map(|(rule, _)| rule.id.as_str()).collect();
        let list = lists.entry(ids).or_insert_with(|| fit().map(|(_, ready)| ready.clone()).collect());
        by_shape.insert(shape, list.clone());
    }
    by_shape
}

/// What is left to ask of a policy of which [`may_fit`] holds: which entities its scope names, and its conditions. Cedar would ask
/// for types and action once more, which costs as much as the rest.
fn condition(policy: &ast::Policy) -> Expr {
    let (principal, resource) = (policy.principal_constraint(), policy.resource_constraint());
    let names = |constraint: &PrincipalOrResourceConstraint| {
        !matches!(constraint, PrincipalOrResourceConstraint::Any | PrincipalOrResourceConstraint::Is(_))
    };
    let parts = [
        names(principal.as_inner()).then(|| principal.as_expr()),
        names(resource.as_inner()).then(|| resource.as_expr()),
        policy.non_scope_constraints().cloned(),
    ];
    parts.into_iter().flatten().reduce(Expr::and).unwrap_or_else(|| Expr::val(true))
}

/// Does nothing in the scope of a policy exclude such a question?
fn may_fit(policy: &Policy, (action, principal, resource): Shape) -> bool {
    let is = |of: &cedar_policy::EntityTypeName, wanted: &str| of.basename() == wanted;
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::In(_) => true,
        PrincipalConstraint::Eq(uid) => is(uid.type_name(), principal),
        PrincipalConstraint::Is(of) | PrincipalConstraint::IsIn(of, _) => is(&of, principal),
    };
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::In(_) => true,
        ResourceConstraint::Eq(uid) => is(uid.type_name(), resource),
        ResourceConstraint::Is(of) | ResourceConstraint::IsIn(of, _) => is(&of, resource),
    };
    principal && resource && has(policy, action)
}

/// Does the scope of a policy have this action, itself or in a group?
pub(super) fn has(policy: &Policy, action: Action) -> bool {
    let named = |uid: &cedar_policy::EntityUid| {
        let name: &str = uid.id().unescaped();
        name == action.as_str() || (name == "admin" && action.as_str().starts_with("admin."))
    };
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => named(&uid),
        ActionConstraint::In(uids) => uids.iter().any(named),
    }
}

fn revision(rules: &BTreeMap<String, Rule>) -> Result<Revision, Refused> {
    let mut hash = Sha256::new();
    hash.update(b"io.postern.policies.revision.v1\0");
    for (id, rule) in rules {
        let json = rule
            .policy
            .to_json()
            .map_err(|error| Refused(vec![Problem::whole(&rule.file, error.to_string()).of_rule(id)]))?;
        for part in [id.as_bytes(), json.to_string().as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    Ok(Digest256(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::samples::text;

    fn problems(texts: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<_> = texts.iter().map(|(name, policy)| text(name, policy)).collect();
        check(Base::Peers, &texts).iter().map(Problem::to_string).collect()
    }

    fn revision_of(texts: &[(&str, &str)]) -> Revision {
        let texts: Vec<_> = texts.iter().map(|(name, policy)| text(name, policy)).collect();
        RuleSet::build(Base::Peers, &texts).unwrap().revision()
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_place() {
        let found = problems(&[
            (
                "a.cedar",
                "forbid (principal, action, resource is Event)\n  when { resource.kind == Kind::\"mesage\" };",
            ),
            ("b.cedar", "permit (principal, action == Action::\"relase\", resource);\n"),
            ("c.cedar", "\n  permit (principal, action"),
            (
                "d.cedar",
                "forbid (principal is User, action, resource) when { principal.clearance == \"A\" };",
            ),
        ]);
        let expected = [
            ("a.cedar:2:27: policy \"a.cedar:1\": ", "mesage"),
            ("b.cedar:1:", "did you mean `Action::\"release\"`"),
            ("c.cedar:2:28: ", "unexpected end of input"),
            ("d.cedar:1:", "clearance"),
        ];
        for (place, reason) in expected {
            assert!(
                found.iter().any(|one| one.starts_with(place) && one.contains(reason)),
                "{place}: {found:#?}"
            );
        }
    }

    #[test]
    fn a_column_counts_characters() {
        let found =
            problems(&[("a.cedar", "permit (principal, action, resource) when { \"é😀\" == contxt };")]);
        assert!(found[0].starts_with("a.cedar:1:53: "), "{found:?}");
    }

    #[test]
    fn ids_are_unique_and_not_those_of_postern() {
        let any = "(principal, action, resource);";
        let found = problems(&[
            ("a.cedar", &format!("@id(\"x\") forbid {any}\n@id(\"x\") forbid {any}")),
            ("b.cedar", &format!("@id(\"rail-release\") forbid {any} @id(\"base-mine\") forbid {any}")),
            ("c.cedar", &format!("@id(\"\") forbid {any}")),
            ("d.cedar", &format!("@id(\"a\\nb\") forbid {any}")),
            ("a.cedar", &format!("forbid {any}")),
        ]);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(
            found
                .iter()
                .any(|one| one.contains("a.cedar:2:1") && one.contains("taken by the policy in a.cedar:1"))
        );
        assert!(found.iter().any(|one| one.contains("another text of this name")));
    }

    #[test]
    fn a_policy_without_an_id_is_named_by_its_text_and_number() {
        let policies = "permit (principal, action, resource);\nforbid (principal, action, resource);";
        let set = RuleSet::build(Base::Closed, &[text("site.cedar", policies)]).unwrap();
        let second = set.rule("site.cedar:2").unwrap();
        assert_eq!((second.permits, second.line), (false, 2));
    }

    #[test]
    fn templates_and_what_never_applies_are_refused() {
        let found = problems(&[
            ("a.cedar", "permit (principal == ?principal, action, resource);"),
            ("b.cedar", "forbid (principal is Link, action == Action::\"send\", resource);"),
            ("c.cedar", "forbid (principal, action, resource) when { false };"),
        ]);
        assert!(found.iter().any(|one| one.starts_with("a.cedar") && one.contains("template")), "{found:#?}");
        for file in ["b.cedar", "c.cedar"] {
            assert!(found.iter().any(|one| one.starts_with(file) && !one.contains("warning")), "{found:#?}");
        }
    }

    #[test]
    fn text_that_is_shown_in_another_order_than_it_is_read_is_refused() {
        let found = problems(&[(
            "a.cedar",
            "forbid (principal, action, resource) when { context.guard.contains(\"x\u{202e}y\") };",
        )]);
        assert!(found[0].contains("BIDI") && found[0].contains("x\\u{202e}y"), "{found:?}");
    }

    #[test]
    fn bounds_hold() {
        let many: Vec<_> = (0..=MOST_TEXTS).map(|n| text(&n.to_string(), "")).collect();
        assert!(check(Base::Peers, &many)[0].reason.contains("no more than"));
        assert!(
            check(Base::Peers, &[text("a", &" ".repeat(MOST_TEXT + 1))])[0].reason.contains("no more than")
        );
        assert!(check(Base::Peers, &[text("", "")])[0].reason.contains("name"));
        let deep = format!("permit (principal, action, resource) when {{ {}true }};", "!(".repeat(20_000));
        assert!(!check(Base::Peers, &[text("a", &deep)]).is_empty());
    }

    #[test]
    fn the_revision_is_of_what_policies_say_and_not_of_their_layout() {
        let one = "@id(\"one\") forbid (principal, action, resource) when { context.hour > 3 };";
        let two = "@id(\"two\") permit (principal, action, resource);";
        let both = revision_of(&[("a.cedar", &format!("{one}\n{two}"))]);
        let spread = one.replace(" when", "\n// why\n  when");
        assert_eq!(revision_of(&[("b.cedar", two), ("c.cedar", &spread)]), both);
        assert_ne!(revision_of(&[("a.cedar", one)]), both);
        assert_ne!(revision_of(&[("a.cedar", &format!("{}\n{two}", one.replace('3', "4")))]), both);
        assert_ne!(revision_of(&[("a.cedar", &format!("{}\n{two}", one.replace("one", "uno")))]), both);
        assert_ne!(RuleSet::build(Base::Open, &[]).unwrap().revision(), revision_of(&[]));
    }
}
