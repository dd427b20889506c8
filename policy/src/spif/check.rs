//! What must hold in a policy file. Everything that does not is reported, each with its path.

use std::collections::{BTreeMap, HashMap};

use super::{Problem, Requirement, Spif, Tag, TagValue, ValueRef};
use crate::{label::TagType, limits, names};

pub(super) fn check(spif: &Spif) -> Vec<Problem> {
    let mut check = Check { spif, tags: tag_places(spif), problems: Vec::new() };
    check.head();
    check.classes();
    check.tags();
    check.equivalences();
    // It is read with the policy's own names, which are in order only now.
    if check.problems.is_empty()
        && let Some(default) = &spif.default
        && let Err(error) = crate::Policies::read_default(spif, default)
    {
        check.add("default", error.to_string());
    }
    check.problems
}

type TagPlaces<'s> = (&'s Tag, HashMap<String, &'s TagValue>);

fn tag_places(spif: &Spif) -> HashMap<String, TagPlaces<'_>> {
    let tags = spif.tags.iter().take(limits::TAGS).map(|tag| {
        let names = tag.values.iter().take(limits::TAG_VALUES).flat_map(|value| {
            let aliases = value.aliases.iter().take(limits::LIST);
            std::iter::once(&value.name).chain(aliases).map(move |name| (names::fold(name), value))
        });
        (names::fold(&tag.name), (tag, names.collect()))
    });
    tags.collect()
}

struct Check<'s> {
    spif: &'s Spif,
    /// Tags by their names, and values of each by all of their names.
    tags: HashMap<String, TagPlaces<'s>>,
    problems: Vec<Problem>,
}

impl<'s> Check<'s> {
    fn add(&mut self, path: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() < limits::PROBLEMS {
            self.problems.push(Problem::new(path, what));
        }
    }

    fn name(&mut self, path: String, name: &str) {
        if let Some(problem) = names::problem_in_policy(name) {
            self.add(path, problem);
        }
    }

    /// Names that have to be told apart: `seen` has where each one stood first.
    fn unique(&mut self, path: String, name: &str, seen: &mut BTreeMap<String, String>) {
        if let Some(first) = seen.get(&names::fold(name)) {
            let what = format!("'{name}' is there already, at {first}");
            self.add(path, what);
        } else {
            seen.insert(names::fold(name), path);
        }
    }

    fn shown(&mut self, path: String, text: Option<&str>) {
        let Some(text) = text else { return };
        if text.len() > limits::NAME_BYTES {
            self.add(path.clone(), format!("has {} bytes, more than {}", text.len(), limits::NAME_BYTES));
        }
        if let Some(problem) = names::unprintable(text) {
            self.add(path, problem);
        }
    }

    fn colour(&mut self, path: String, colour: &str) {
        let right = colour
            .strip_prefix('#')
            .is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if !right {
            self.add(path, format!("'{colour}' is no colour of the form #rrggbb"));
        }
    }

    fn count(&mut self, path: String, count: usize, most: usize) {
        if count > most {
            self.add(path, format!("has {count} entries, more than {most}"));
        }
    }

    fn oid(&mut self, path: String, oid: Option<&str>) {
        let Some(oid) = oid else { return };
        let mut arcs = oid.split('.');
        let first = matches!(arcs.next(), Some("0" | "1" | "2"));
        let rest: Vec<&str> = arcs.collect();
        let numeric = |arc: &&str| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit());
        if !first || rest.is_empty() || oid.len() > limits::NAME_BYTES || !rest.iter().all(numeric) {
            self.add(path, format!("'{oid}' is no object identifier like 1.3.26.1.3.1"));
        }
    }

    fn head(&mut self) {
        let spif = self.spif;
        let mut seen = BTreeMap::new();
        for (path, name) in with_aliases("", "name", &spif.name, &spif.aliases) {
            self.name(path.clone(), name);
            if name.contains(':') {
                self.add(path.clone(), "has ':' in it, which ends a policy's name in a label's text");
            }
            self.unique(path, name, &mut seen);
        }
        self.count("aliases".into(), spif.aliases.len(), limits::LIST);
        self.oid("oid".into(), spif.oid.as_deref());
        self.shown("title".into(), Some(&spif.title));
        self.shown("marking.prefix".into(), Some(&spif.marking.prefix));
        self.shown("marking.separator".into(), spif.marking.separator.as_deref());
        self.shown("marking.group_separator".into(), spif.marking.group_separator.as_deref());
    }

    fn classes(&mut self) {
        let classes = &self.spif.classes;
        if classes.is_empty() {
            self.add("classes", "is empty: a policy has one classification at least");
        }
        self.count("classes".into(), classes.len(), limits::CLASSES);
        let (mut seen, mut ranks) = (BTreeMap::new(), BTreeMap::new());
        for (at, class) in classes.iter().enumerate().take(limits::CLASSES) {
            let path = format!("classes[{at}]");
            self.count(format!("{path}.aliases"), class.aliases.len(), limits::LIST);
            for (path, name) in with_aliases(&path, "name", &class.name, &class.aliases) {
                self.name(path.clone(), name);
                self.unique(path, name, &mut seen);
            }
            if let Some(other) = ranks.insert(class.rank, class.name.as_str()) {
                let what = format!("{} is the rank of '{other}' too: one is above the other", class.rank);
                self.add(format!("{path}.rank"), what);
            }
            self.shown(format!("{path}.marking"), class.marking.as_deref());
            self.shown(format!("{path}.portion"), class.portion.as_deref());
            self.shown(format!("{path}.lacv"), class.lacv.as_deref());
            if let Some(colour) = &class.colour {
                self.colour(format!("{path}.colour"), colour);
            }
            self.requirements(&path, &class.requires);
        }
    }

    fn tags(&mut self) {
        self.count("tags".into(), self.spif.tags.len(), limits::TAGS);
        let mut seen = BTreeMap::new();
        let reserved = "(what is for the originator alone)";
        seen.insert(names::fold(crate::text::ORIGINATOR_ONLY), reserved.to_owned());
        for (at, tag) in self.spif.tags.iter().enumerate().take(limits::TAGS) {
            let path = format!("tags[{at}]");
            let short = tag
                .short
                .iter()
                .filter(|short| **short != tag.name)
                .map(|short| (format!("{path}.short"), short));
            for (path, name) in [(format!("{path}.name"), &tag.name)].into_iter().chain(short) {
                self.name(path.clone(), name);
                if name.contains(':') {
                    self.add(path.clone(), "has ':' in it, which ends a tag's name in a label's text");
                }
                self.unique(path, name, &mut seen);
            }
            self.oid(format!("{path}.oid"), tag.oid.as_deref());
            if tag.most == Some(0) {
                self.add(format!("{path}.most"), "is 0: leave the tag out instead");
            }
            let marking = &tag.marking;
            self.shown(format!("{path}.marking.prefix"), Some(&marking.prefix));
            self.shown(format!("{path}.marking.separator"), marking.separator.as_deref());
            self.shown(format!("{path}.marking.suffix"), Some(&marking.suffix));
            self.count(format!("{path}.marking.colours"), marking.colours.len(), limits::CLASSES);
            for (class, colour) in marking.colours.iter().take(limits::CLASSES) {
                self.class(&format!("{path}.marking.colours"), class);
                self.colour(format!("{path}.marking.colours.{class}"), colour);
            }
            self.values(&path, tag);
        }
    }

    fn values(&mut self, path: &str, tag: &'s Tag) {
        self.count(format!("{path}.values"), tag.values.len(), limits::TAG_VALUES);
        let (mut seen, mut alone) = (BTreeMap::new(), BTreeMap::new());
        for (at, value) in tag.values.iter().enumerate().take(limits::TAG_VALUES) {
            let path = format!("{path}.values[{at}]");
            for (path, name) in with_aliases(&path, "name", &value.name, &value.aliases) {
                self.name(path.clone(), name);
                self.unique(path, name, &mut seen);
            }
            if let Some(text) = &value.alone {
                self.name(format!("{path}.alone"), text);
                self.unique(format!("{path}.alone"), text, &mut alone);
            }
            self.count(format!("{path}.aliases"), value.aliases.len(), limits::LIST);
            self.count(format!("{path}.classes"), value.classes.len(), limits::CLASSES);
            self.shown(format!("{path}.title"), Some(&value.title));
            self.shown(format!("{path}.marking"), value.marking.as_deref());
            self.shown(format!("{path}.portion"), value.portion.as_deref());
            self.shown(format!("{path}.alone_portion"), value.alone_portion.as_deref());
            self.shown(format!("{path}.lacv"), value.lacv.as_deref());
            for class in value.classes.iter().take(limits::CLASSES) {
                self.class(&format!("{path}.classes"), class);
            }
            self.requirements(&path, &value.requires);
            self.refs(&format!("{path}.excludes"), &value.excludes);
            self.members(&path, tag, value);
        }
    }

    fn members(&mut self, path: &str, tag: &Tag, value: &TagValue) {
        let path = format!("{path}.members");
        self.count(path.clone(), value.members.len(), limits::LIST);
        if !value.members.is_empty() && tag.kind != TagType::Permissive {
            self.add(path, "are for values of permissive tags only");
            return;
        }
        for member in value.members.iter().take(limits::LIST) {
            let values = self.tags.get(&names::fold(&tag.name)).map(|(_, values)| values);
            match values.and_then(|values| values.get(&names::fold(member))) {
                None => self.add(path.clone(), format!("'{member}' is no value of '{}'", tag.name)),
                // Groups of groups would have to be searched for circles; lists are short enough to be written out.
                Some(group) if !group.members.is_empty() => {
                    self.add(path.clone(), format!("'{member}' is a group itself: list its members"));
                }
                Some(_) => {}
            }
        }
    }

    fn class(&mut self, path: &str, class: &str) {
        if !self.spif.classes.iter().any(|known| is(&known.name, &known.aliases, class)) {
            self.add(path, format!("'{class}' is no classification of this policy"));
        }
    }

    fn requirements(&mut self, path: &str, requirements: &[Requirement]) {
        self.count(format!("{path}.requires"), requirements.len(), limits::LIST);
        for (at, requirement) in requirements.iter().enumerate().take(limits::LIST) {
            let path = format!("{path}.requires[{at}].of");
            if requirement.of.is_empty() {
                self.add(path.clone(), "is empty");
            }
            self.refs(&path, &requirement.of);
        }
    }

    fn refs(&mut self, path: &str, refs: &[ValueRef]) {
        self.count(path.to_owned(), refs.len(), limits::LIST);
        for (at, value) in refs.iter().enumerate().take(limits::LIST) {
            let Some((tag, values)) = self.tags.get(&names::fold(&value.tag)) else {
                self.add(format!("{path}[{at}].tag"), format!("'{}' is no tag of this policy", value.tag));
                continue;
            };
            if let Some(name) = &value.value
                && !values.contains_key(&names::fold(name))
            {
                let tag = &tag.name;
                self.add(format!("{path}[{at}].value"), format!("'{name}' is no value of '{tag}'"));
            }
        }
    }

    fn equivalences(&mut self) {
        let mut seen = BTreeMap::new();
        self.count("equivalences".into(), self.spif.equivalences.len(), limits::LIST);
        for (at, equivalence) in self.spif.equivalences.iter().enumerate().take(limits::LIST) {
            let path = format!("equivalences[{at}]");
            let direction = format!("{} ({:?})", equivalence.policy, equivalence.direction);
            self.unique(format!("{path}.policy"), &direction, &mut seen);
            self.count(format!("{path}.classes"), equivalence.classes.len(), limits::LIST);
            self.count(format!("{path}.tags"), equivalence.tags.len(), limits::TAGS);
            self.count(format!("{path}.values"), equivalence.values.len(), limits::TAGS);
            for (tag, values) in equivalence.values.iter().take(limits::TAGS) {
                self.count(format!("{path}.values.{tag}"), values.len(), limits::TAG_VALUES);
                if !equivalence.tags.contains_key(tag) {
                    self.add(format!("{path}.values.{tag}"), "is no tag under `tags` of the equivalence");
                }
            }
            self.count(format!("{path}.requires"), equivalence.requires.len(), limits::TAGS);
            self.count(format!("{path}.discard"), equivalence.discard.len(), limits::LIST);
            self.count(format!("{path}.add"), equivalence.add.len(), limits::LIST);
            if equivalence.classes.is_empty() {
                self.add(format!("{path}.classes"), "is empty: nothing would have an equivalent");
            }
        }
    }
}

/// Whether `name` is one of a thing's names.
fn is(own: &str, aliases: &[String], name: &str) -> bool {
    let name = names::fold(name);
    names::fold(own) == name || aliases.iter().any(|alias| names::fold(alias) == name)
}

fn with_aliases<'n>(
    path: &str,
    field: &str,
    name: &'n str,
    aliases: &'n [String],
) -> impl Iterator<Item = (String, &'n str)> {
    let dot = if path.is_empty() { "" } else { "." };
    let (name_path, path) = (format!("{path}{dot}{field}"), format!("{path}{dot}aliases"));
    let aliases = aliases.iter().take(limits::LIST).enumerate();
    std::iter::once((name_path, name))
        .chain(aliases.map(move |(at, alias)| (format!("{path}[{at}]"), alias.as_str())))
}
