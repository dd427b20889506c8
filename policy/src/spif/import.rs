//! Policies from XML SPIFs: the schema of xmlspif.org, versions 1.0 to 2.1.
//!
//! What the schema says about encoded labels, certificates and input forms has no counterpart here. What is left out
//! although it says something about labels is noted.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Class, Direction, Equivalence, Need, Problem, Problems, Requirement, Spif, SpifMarking, Tag, TagMarking,
    TagValue, ValueRef,
    xml::{self, Element},
};
use crate::{
    equivalence::{LACV, OID},
    label::TagType,
    limits, names,
};

/// A policy from an XML file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The policy.
    pub spif: Spif,
    /// What the file says that the policy does not, and what to look at, a sentence each.
    pub notes: Vec<String>,
}

/// The places of markings that a banner corresponds to, the best first. A code that is missing means everywhere.
const BANNER: [&str; 6] =
    ["pageTopBottom", "pageTop", "documentStart", "pageBottom", "documentEnd", "noNameDisplay"];

pub(super) fn read(text: &str) -> Result<Import, Problems> {
    let root = xml::read(text)?;
    if root.name != "SPIF" {
        let name: String = root.name.chars().take(40).collect();
        return Err(Problems::one("", format!("is an XML file of '{name}', not of SPIF")));
    }
    let mut import =
        Reading { notes: Vec::new(), problems: Vec::new(), tags: Vec::new(), classes: BTreeMap::new() };
    let spif = import.spif(&root);
    if !import.problems.is_empty() {
        import.problems.truncate(limits::PROBLEMS);
        return Err(Problems(import.problems));
    }
    import.notes.dedup();
    import.notes.truncate(limits::PROBLEMS);
    Ok(Import { spif, notes: import.notes })
}

/// A tag and where it stood in the file.
struct KnownTag {
    set: String,
    name: String,
    kind: TagType,
    values: Vec<(String, String)>,
}

struct Reading {
    notes: Vec<String>,
    problems: Vec<Problem>,
    tags: Vec<KnownTag>,
    /// Classifications' numbers to names.
    classes: BTreeMap<String, String>,
}

impl Reading {
    fn note(&mut self, note: impl Into<String>) {
        if self.notes.len() < limits::PROBLEMS {
            self.notes.push(note.into());
        }
    }

    fn required<'e>(&mut self, element: &'e Element, attribute: &str) -> &'e str {
        element.attribute(attribute).unwrap_or_else(|| {
            if self.problems.len() < limits::PROBLEMS {
                self.problems
                    .push(Problem::new(element.name.as_str(), format!("lacks the attribute '{attribute}'")));
            }
            ""
        })
    }

    fn spif(&mut self, root: &Element) -> Spif {
        let missing = Element { name: "securityPolicyId".into(), ..Element::default() };
        let id = root.first("securityPolicyId").unwrap_or(&missing);
        let name = self.required(id, "name").trim().to_owned();
        let oid = Some(self.required(id, "id").to_owned()).filter(|oid| looks_like_oid(oid));
        if oid.is_none() {
            self.note("the policy's id is no object identifier and left out");
        }
        let classes: Vec<&Element> =
            root.all("securityClassifications").flat_map(|all| all.all("securityClassification")).collect();
        // What is beyond the bounds is refused when the policy is checked; until then lists of all of them are made for
        // every value.
        for class in classes.iter().take(limits::CLASSES) {
            let number = class.attribute("lacv").unwrap_or_default().to_owned();
            self.classes.insert(number, class.attribute("name").unwrap_or_default().trim().to_owned());
        }
        let sets: Vec<&Element> =
            root.all("securityCategoryTagSets").flat_map(|all| all.all("securityCategoryTagSet")).collect();
        self.know_tags(&sets);
        let prefix = Self::prefix(root, &name);
        let qualifier = Qualifier::of(root);
        let marking = SpifMarking {
            prefix: format!("{}{prefix}", qualifier.prefix.unwrap_or_default()),
            separator: Some(qualifier.separator.unwrap_or_else(|| " ".into())),
            group_separator: None,
        };
        let mut equivalences = Equivalences::new(root);
        let classes = self.classes(&classes, &marking.prefix, &name, &mut equivalences);
        let tags = self.tags(&sets, &mut equivalences);
        if root.first("privacyMarks").is_some() {
            self.note("privacy marks are left out: a label's mark is made from its values");
        }
        let equivalences = equivalences.finish(self);
        if !equivalences.is_empty() {
            self.note("equivalences are for showing and translating labels; set access = true where they are to decide");
        }
        Spif { name, oid, marking, classes, tags, equivalences, ..EMPTY }
    }

    /// What stands before classifications: the policy's name, unless the file replaces it.
    fn prefix(root: &Element, name: &str) -> String {
        match replacing(root) {
            Some("") => String::new(),
            Some(phrase) => format!("{phrase} "),
            None => format!("{name} "),
        }
    }

    fn know_tags(&mut self, sets: &[&Element]) {
        let mut seen = BTreeSet::new();
        for set in sets {
            let set_name = set.attribute("name").unwrap_or_default().trim();
            for tag in set.all("securityCategoryTag") {
                // References are to all tags of a set.
                if self.tags.len() >= limits::TAGS {
                    let what = format!("is one too many, {} are allowed", limits::TAGS);
                    self.problems.push(Problem::new("securityCategoryTag", what));
                    return;
                }
                let own =
                    tag.attribute("name").map(str::trim).filter(|own| !own.is_empty()).unwrap_or(set_name);
                let own = own.replace(':', " ");
                let own = own.trim();
                let name =
                    if seen.insert(names::fold(own)) { own.to_owned() } else { format!("{set_name} {own}") };
                seen.insert(names::fold(&name));
                let kind = self.kind(tag);
                let pair = |value: &Element| {
                    let part = |name| value.attribute(name).unwrap_or_default().trim().to_owned();
                    (part("lacv"), part("name"))
                };
                let values = tag.all("tagCategory").filter(|value| !is_input(value)).map(pair).collect();
                self.tags.push(KnownTag { set: set_name.to_owned(), name, kind, values });
            }
        }
    }

    fn kind(&mut self, tag: &Element) -> TagType {
        match tag_type(tag) {
            Some(kind) => kind,
            None => {
                let what = format!(
                    "has the type '{}' ('{}')",
                    tag.attribute("tagType").unwrap_or_default(),
                    tag.attribute("enumType").unwrap_or_default()
                );
                self.problems.push(Problem::new("securityCategoryTag", what));
                TagType::Restrictive
            }
        }
    }

    fn classes(
        &mut self,
        all: &[&Element],
        prefix: &str,
        policy: &str,
        equivalences: &mut Equivalences,
    ) -> Vec<Class> {
        let hierarchy =
            |class: &Element| class.attribute("hierarchy").and_then(|text| text.trim().parse::<i64>().ok());
        let lowest = all.iter().filter_map(|class| hierarchy(class)).min().unwrap_or(0);
        let mut classes = Vec::new();
        for class in all {
            let name = self.required(class, "name").trim().to_owned();
            // Only the order matters; the schema allows negative numbers.
            let above_lowest =
                hierarchy(class).and_then(|rank| u16::try_from(rank.checked_sub(lowest.min(0))?).ok());
            let rank = above_lowest.unwrap_or_else(|| {
                self.problems.push(Problem::new(
                    "securityClassification",
                    format!("'{name}' has no usable hierarchy"),
                ));
                0
            });
            let phrase = phrase(class).unwrap_or(&name);
            let marking = match replacing(class) {
                Some(instead) => Some(format!("{instead} {phrase}")),
                // Older files have the policy in the classification's name.
                None if names::strip_prefix(phrase, policy).is_some() => Some(phrase.to_owned()),
                None if phrase != name => Some(format!("{prefix}{phrase}")),
                None => None,
            };
            let colour = class.attribute("color").and_then(colour);
            if colour.is_none() && class.attribute("color").is_some() {
                self.note(format!("the colour of '{name}' is unknown and left out"));
            }
            for equivalent in class.all("equivalentClassification") {
                equivalences.class(&name, equivalent);
            }
            classes.push(Class {
                rank,
                marking,
                colour,
                lacv: class.attribute("lacv").map(str::to_owned),
                obsolete: is_true(class, "obsolete"),
                requires: self.requirements(class),
                name,
                ..Class::default()
            });
        }
        classes
    }

    fn tags(&mut self, sets: &[&Element], equivalences: &mut Equivalences) -> Vec<Tag> {
        let mut tags = Vec::new();
        let mut number = 0;
        for set in sets {
            let oid = set.attribute("id").filter(|oid| looks_like_oid(oid)).map(str::to_owned);
            for element in set.all("securityCategoryTag") {
                let Some(KnownTag { name, kind, .. }) = self.tags.get(number) else { continue };
                let (name, kind) = (name.clone(), *kind);
                number += 1;
                let qualifier = Qualifier::of(element);
                let marking = TagMarking {
                    prefix: qualifier.prefix.unwrap_or_default(),
                    separator: Some(qualifier.separator.unwrap_or_else(|| "/".into())),
                    suffix: qualifier.suffix.unwrap_or_default(),
                    replaces_prefix: element.all("tagCategory").any(|value| replacing(value).is_some()),
                    ..TagMarking::default()
                };
                let mut values = Vec::new();
                for value in element.all("tagCategory") {
                    if is_input(value) {
                        let value = value.attribute("name").unwrap_or_default().to_owned();
                        self.note(format!("'{value}' of '{name}' is for free text and left out"));
                        continue;
                    }
                    values.push(self.value(&name, value, equivalences));
                }
                let most = if is_true(element, "singleSelection") {
                    Some("1")
                } else {
                    element.attribute("maxSelection")
                };
                let most = most.and_then(|most| most.parse().ok()).filter(|most| *most > 0);
                tags.push(Tag { name, kind, short: None, oid: oid.clone(), most, marking, values });
            }
            if set.first("equivalentSecurityCategoryTagSet").is_some() {
                self.note(format!(
                    "equivalent tag sets of '{}' are left out",
                    set.attribute("name").unwrap_or_default()
                ));
            }
        }
        tags
    }

    fn value(&mut self, tag: &str, element: &Element, equivalences: &mut Equivalences) -> TagValue {
        let name = self.required(element, "name").trim().to_owned();
        for equivalent in element.all("equivalentSecCategoryTag") {
            equivalences.value(tag, &name, equivalent);
        }
        let excluded: Vec<String> =
            element.all("excludedClass").map(|class| class.text.trim().to_owned()).collect();
        let required = element.attribute("requiredClass").map(str::trim);
        let allowed = |class: &String| required.is_none_or(|only| class == only) && !excluded.contains(class);
        let restricted = required.is_some() || !excluded.is_empty();
        let classes: Vec<String> =
            self.classes.values().filter(|class| restricted && allowed(class)).cloned().collect();
        if restricted && classes.is_empty() {
            self.note(format!("'{name}' of '{tag}' excludes every classification, which is left out"));
        }
        if element.attribute("notBefore").or(element.attribute("notAfter")).is_some() {
            self.note(format!("the period in which '{name}' of '{tag}' is valid is left out"));
        }
        TagValue {
            marking: phrase(element)
                .filter(|phrase| *phrase != name)
                .or_else(|| replacing(element))
                .map(str::to_owned),
            lacv: element.attribute("lacv").map(str::to_owned),
            obsolete: is_true(element, "obsolete"),
            classes,
            requires: self.requirements(element),
            excludes: element.all("excludedCategory").flat_map(|category| self.refer(category)).collect(),
            name,
            ..TagValue::default()
        }
    }

    fn requirements(&mut self, element: &Element) -> Vec<Requirement> {
        let mut requirements = Vec::new();
        for required in element.all("requiredCategory") {
            let need = match required.attribute("operation") {
                Some("onlyOne") => Need::One,
                Some("oneOrMore") => Need::Any,
                _ => Need::All,
            };
            let of: Vec<ValueRef> =
                required.all("categoryGroup").flat_map(|group| self.refer(group)).collect();
            if of.is_empty() {
                self.note("a required category of unknown values is left out");
            } else {
                requirements.push(Requirement { need, of });
            }
        }
        requirements
    }

    /// The values that a reference by tag set, type and number means.
    fn refer(&self, element: &Element) -> Vec<ValueRef> {
        let set = element.attribute("tagSetRef").unwrap_or_default().trim();
        let kind = tag_type(element);
        let number = element.attribute("lacv").map(str::trim);
        let tags = self.tags.iter().filter(|tag| tag.set == set && kind.is_none_or(|kind| kind == tag.kind));
        let found = tags.filter_map(|tag| {
            let value = match number {
                None => None,
                Some(number) => Some(tag.values.iter().find(|(known, _)| known == number)?.1.clone()),
            };
            (!tag.values.is_empty()).then(|| ValueRef { tag: tag.name.clone(), value })
        });
        found.collect()
    }
}

/// Equivalences of the file, by policy and direction.
struct Equivalences {
    ids: BTreeMap<String, String>,
    all: BTreeMap<(String, bool), Equivalence>,
    left_out: BTreeSet<String>,
}

impl Equivalences {
    fn new(root: &Element) -> Self {
        let policies = root.all("equivalentPolicies").flat_map(|all| all.all("equivalentPolicy"));
        let mut left_out = BTreeSet::new();
        let ids = policies.filter_map(|policy| {
            let name = policy.attribute("name")?;
            if policy.first("requiredCategory").is_some() {
                left_out.insert(format!("categories that labels get in '{name}' are left out"));
            }
            Some((name.to_owned(), policy.attribute("id")?.to_owned()))
        });
        let ids = ids.collect();
        Self { ids, all: BTreeMap::new(), left_out }
    }

    fn of(&mut self, element: &Element) -> Vec<(Direction, &mut Equivalence)> {
        let policy = element.attribute("policyRef").unwrap_or_default().to_owned();
        let inward = match element.attribute("applied") {
            Some("encrypt") => vec![false],
            Some("decrypt") => vec![true],
            _ => vec![false, true],
        };
        for &inward in &inward {
            let name = self.ids.get(&policy).filter(|id| looks_like_oid(id)).map(|id| format!("{OID}{id}"));
            let direction = if inward { Direction::In } else { Direction::Out };
            let policy = name.unwrap_or_else(|| policy.clone());
            let new = || Equivalence { policy: policy.clone(), direction, ..Equivalence::default() };
            self.all.entry((policy.clone(), inward)).or_insert_with(new);
        }
        let key =
            self.ids.get(&policy).filter(|id| looks_like_oid(id)).map_or(policy, |id| format!("{OID}{id}"));
        let found = self.all.range_mut((key.clone(), false)..=(key, true));
        let found = found.filter(|((_, way), _)| inward.contains(way));
        found.map(|(_, equivalence)| (equivalence.direction, equivalence)).collect()
    }

    fn class(&mut self, name: &str, element: &Element) {
        let theirs = format!("{LACV}{}", element.attribute("lacv").unwrap_or_default().trim());
        if element.first("requiredCategory").is_some() {
            self.left_out.insert(format!("categories that '{name}' gets in other policies are left out"));
        }
        for (direction, equivalence) in self.of(element) {
            match direction {
                Direction::Out => equivalence.classes.insert(name.to_owned(), theirs.clone()),
                Direction::In => equivalence.classes.insert(theirs.clone(), name.to_owned()),
            };
        }
    }

    fn value(&mut self, tag: &str, name: &str, element: &Element) {
        let discard = element.attribute("action") == Some("discard");
        let set = element.attribute("tagSetId").unwrap_or_default().trim();
        let (their_tag, theirs) = (
            format!("{OID}{set}"),
            format!("{LACV}{}", element.attribute("lacv").unwrap_or_default().trim()),
        );
        let mut conflict = false;
        for (direction, equivalence) in self.of(element) {
            let (from_tag, from, to_tag, to) = match direction {
                Direction::Out if discard => {
                    equivalence.discard.push(ValueRef { tag: tag.to_owned(), value: Some(name.to_owned()) });
                    continue;
                }
                Direction::In if discard => continue,
                Direction::Out => (tag, name, their_tag.as_str(), theirs.as_str()),
                Direction::In => (their_tag.as_str(), theirs.as_str(), tag, name),
            };
            let target = equivalence.tags.entry(from_tag.to_owned()).or_insert_with(|| to_tag.to_owned());
            if target == to_tag {
                let values = equivalence.values.entry(from_tag.to_owned()).or_default();
                values.insert(from.to_owned(), to.to_owned());
            } else {
                conflict = true;
            }
        }
        if conflict {
            self.left_out.insert(format!(
                "'{name}' of '{tag}' becomes another tag than others of it, which is left out"
            ));
        }
    }

    fn finish(self, reading: &mut Reading) -> Vec<Equivalence> {
        self.left_out.into_iter().for_each(|note| reading.note(note));
        let (whole, bare): (Vec<_>, Vec<_>) =
            self.all.into_values().partition(|equivalence| !equivalence.classes.is_empty());
        for equivalence in bare {
            reading.note(format!(
                "no classification has an equivalent in '{}', which is left out",
                equivalence.policy
            ));
        }
        whole
    }
}

/// What stands around and between markings.
#[derive(Default)]
struct Qualifier {
    prefix: Option<String>,
    separator: Option<String>,
    suffix: Option<String>,
}

impl Qualifier {
    fn of(element: &Element) -> Self {
        let place = |qualifier: &&Element| {
            let code = qualifier.attribute("markingCode").or_else(|| qualifier.attribute("code"));
            code.map_or(Some(0), |code| BANNER.iter().position(|known| *known == code))
        };
        let best = element.all("markingQualifier").filter(|one| place(one).is_some()).min_by_key(place);
        let mut qualifier = Self::default();
        for one in best.iter().flat_map(|best| best.all("qualifier")).filter(|one| is_english(one)) {
            let text = one.attribute("markingQualifier").map(str::to_owned);
            match one.attribute("qualifierCode") {
                Some("prefix") => qualifier.prefix = text,
                Some("separator") => qualifier.separator = text,
                Some("suffix") => qualifier.suffix = text,
                _ => {}
            }
        }
        qualifier
    }
}

/// What is shown of a classification or a value in a banner.
fn phrase(element: &Element) -> Option<&str> {
    let place = |data: &&Element| {
        let codes =
            data.all("code").filter_map(|code| BANNER.iter().position(|known| *known == code.text.trim()));
        codes.min()
    };
    let shown = element.all("markingData").filter(|data| is_english(data) && place(data).is_some());
    shown.min_by_key(place)?.attribute("phrase").map(str::trim).filter(|phrase| !phrase.is_empty())
}

fn has_code(data: &Element, code: &str) -> bool {
    is_english(data) && data.all("code").any(|one| one.text.trim() == code)
}

/// What is shown instead of the policy's name.
fn replacing(element: &Element) -> Option<&str> {
    element.all("markingData").find(|data| has_code(data, "replacePolicy"))?.attribute("phrase")
}

fn is_english(element: &Element) -> bool {
    element.attribute("xml:lang").is_none_or(|language| language == "en" || language.starts_with("en-"))
}

fn is_true(element: &Element, attribute: &str) -> bool {
    matches!(element.attribute(attribute), Some("true" | "1"))
}

/// A value that people would type, as a date.
fn is_input(value: &Element) -> bool {
    value.attribute("userInput").is_some()
}

fn tag_type(element: &Element) -> Option<TagType> {
    match (element.attribute("tagType")?, element.attribute("enumType")) {
        ("restrictive", _) | ("enumerated", Some("restrictive")) => Some(TagType::Restrictive),
        ("permissive", _) | ("enumerated", Some("permissive")) => Some(TagType::Permissive),
        ("tagType7" | "notApplicable", _) => Some(TagType::Informative),
        _ => None,
    }
}

fn looks_like_oid(text: &str) -> bool {
    let mut arcs = text.split('.');
    matches!(arcs.next(), Some("0" | "1" | "2"))
        && text.contains('.')
        && text.len() <= limits::NAME_BYTES
        && arcs.all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The colours that the schema names, and those it does not but published files use, as CSS has them.
fn colour(name: &str) -> Option<String> {
    let known = match name {
        "aqua" => "#00ffff",
        "black" => "#000000",
        "blue" => "#0000ff",
        "fuschia" | "fuchsia" => "#ff00ff",
        "gold" => "#ffd700",
        "gray" | "grey" => "#808080",
        "green" => "#008000",
        "lime" => "#00ff00",
        "maroon" => "#800000",
        "navy" => "#000080",
        "olive" => "#808000",
        "orange" => "#ffa500",
        "purple" => "#800080",
        "red" => "#ff0000",
        "silver" => "#c0c0c0",
        "teal" => "#008080",
        "white" => "#ffffff",
        "yellow" => "#ffff00",
        hex if hex.len() == 7
            && hex.starts_with('#')
            && hex.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit()) =>
        {
            hex
        }
        _ => return None,
    };
    Some(known.to_ascii_lowercase())
}

const EMPTY: Spif = Spif {
    name: String::new(),
    oid: None,
    aliases: Vec::new(),
    title: String::new(),
    default: None,
    marking: SpifMarking { prefix: String::new(), separator: None, group_separator: None },
    classes: Vec::new(),
    tags: Vec::new(),
    equivalences: Vec::new(),
};
