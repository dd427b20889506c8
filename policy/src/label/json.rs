//! Labels as JSON: in the content of events.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{Label, Malformed, TagType};
use crate::limits;

/// Where a label stands in an event's content.
pub const KEY: &str = "io.postern.label";

impl Label {
    /// The label of an event's content, if it has one.
    ///
    /// # Errors
    /// When there is one that cannot be read. Such an object is not unlabelled: nobody may see it.
    pub fn of_content(content: &Map<String, Value>) -> Result<Option<Self>, Malformed> {
        content.get(KEY).map(|label| Self::from_json(label).map_err(|error| error.below(KEY))).transpose()
    }

    /// Reads a label.
    ///
    /// # Errors
    /// When anything is not as documented in `docs/labels.md`, with the path. An unknown field is an error, since it
    /// could restrict what the reader would then release.
    pub fn from_json(value: &Value) -> Result<Self, Malformed> {
        Self::read(value, true)
    }

    fn read(value: &Value, alternatives: bool) -> Result<Self, Malformed> {
        let object =
            object(value, &["policy", "class", "cats", "originator_only", "mark", "created", "alt", "spif"])?;
        let mut label = Self::new(text(object, "policy")?, text(object, "class")?)?;
        for (at, cat) in list(object, "cats", limits::CATEGORIES)?.iter().enumerate() {
            label = label.read_category(cat).map_err(|error| error.below(&format!("cats[{at}]")))?;
        }
        if let Some(only) = object.get("originator_only") {
            label.originator_only = only
                .as_bool()
                .ok_or_else(|| Malformed::new("originator_only", "is neither true nor false"))?;
        }
        if object.contains_key("mark") {
            label = label.with_mark(text(object, "mark")?)?;
        }
        if let Some(created) = object.get("created") {
            let created = created.as_u64().ok_or_else(|| {
                Malformed::new("created", "is not a whole number of milliseconds since the epoch")
            })?;
            label = label.with_created(created)?;
        }
        if object.contains_key("spif") {
            label = label.with_spif(text(object, "spif")?)?;
        }
        if object.contains_key("alt") && !alternatives {
            return Err(Malformed::new("alt", "stands within an equivalent label: list them side by side"));
        }
        for (at, alt) in list(object, "alt", limits::ALTERNATIVES)?.iter().enumerate() {
            let path = format!("alt[{at}]");
            let alt = Self::read(alt, false).map_err(|error| error.below(&path))?;
            label = label.with_alternative(alt).map_err(|error| error.below(&path))?;
        }
        Ok(label)
    }

    fn read_category(self, value: &Value) -> Result<Self, Malformed> {
        let object = object(value, &["tag", "type", "vals"])?;
        let kind = text(object, "type")?;
        let kind = TagType::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
            Malformed::new("type", format!("is '{kind}', not RESTRICTIVE, PERMISSIVE or INFORMATIVE"))
        })?;
        if !object.contains_key("vals") {
            return Err(Malformed::new("vals", "is missing"));
        }
        let vals = strings(object, "vals", limits::CATEGORY_VALUES)?;
        self.with(text(object, "tag")?, kind, vals)
    }

    /// The label as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        if !self.alt.is_empty() {
            object.insert("alt".into(), self.alt.iter().map(Self::to_json).collect());
        }
        if !self.cats.is_empty() {
            let cats = self.cats.iter().map(|cat| {
                Value::Object(Map::from_iter([
                    ("tag".into(), cat.tag.clone().into()),
                    ("type".into(), cat.kind.name().into()),
                    ("vals".into(), cat.vals.clone().into()),
                ]))
            });
            object.insert("cats".into(), cats.collect());
        }
        object.insert("class".into(), self.class.clone().into());
        if let Some(created) = self.created {
            object.insert("created".into(), created.into());
        }
        if let Some(mark) = &self.mark {
            object.insert("mark".into(), mark.clone().into());
        }
        if self.originator_only {
            object.insert("originator_only".into(), true.into());
        }
        object.insert("policy".into(), self.policy.clone().into());
        if let Some(spif) = &self.spif {
            object.insert("spif".into(), spif.clone().into());
        }
        Value::Object(object)
    }

    /// The label as canonical JSON: one label, one text.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        // Keys are inserted in their order, so this holds whether or not a build keeps that of insertion.
        self.to_json().to_string()
    }
}

pub(crate) fn object<'v>(value: &'v Value, known: &[&str]) -> Result<&'v Map<String, Value>, Malformed> {
    let object = value.as_object().ok_or_else(|| Malformed::new("", "is not an object"))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => {
            let unknown: String = unknown.chars().take(40).collect();
            Err(Malformed::new(
                "",
                format!("has the unknown field '{unknown}'; known are {}", known.join(", ")),
            ))
        }
        None => Ok(object),
    }
}

pub(crate) fn text<'v>(object: &'v Map<String, Value>, key: &str) -> Result<&'v str, Malformed> {
    let value = object.get(key).ok_or_else(|| Malformed::new(key, "is missing"))?;
    value.as_str().ok_or_else(|| Malformed::new(key, "is not a text"))
}

pub(crate) fn list<'v>(
    object: &'v Map<String, Value>,
    key: &str,
    most: usize,
) -> Result<&'v [Value], Malformed> {
    let Some(value) = object.get(key) else { return Ok(&[]) };
    let list = value.as_array().ok_or_else(|| Malformed::new(key, "is not a list"))?;
    if list.len() > most {
        return Err(Malformed::new(key, format!("has {} entries, more than {most}", list.len())));
    }
    Ok(list)
}

pub(crate) fn strings<'v>(
    object: &'v Map<String, Value>,
    key: &str,
    most: usize,
) -> Result<Vec<&'v str>, Malformed> {
    let texts = list(object, key, most)?.iter().enumerate();
    texts
        .map(|(at, value)| {
            value.as_str().ok_or_else(|| Malformed::new(format!("{key}[{at}]"), "is not a text"))
        })
        .collect()
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Value::Object(object) = self.to_json() else { return to.serialize_map(Some(0))?.end() };
        object.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::from_json(&Value::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refusal(value: &Value) -> String {
        Label::from_json(value).unwrap_err().to_string()
    }

    #[test]
    fn a_label_is_written_in_one_way_as_canonical_json() {
        let label = Label::from_json(&json!({
            "spif": format!("sha256:{}", "0".repeat(64)),
            "policy": "NATO", "class": "SECRET", "created": 1_764_000_000_000_u64, "mark": "NATO SECRET",
            "cats": [
                {"tag": "Special Category", "type": "RESTRICTIVE", "vals": ["ATOMAL"]},
                {"vals": ["USA", "GBR"], "type": "PERMISSIVE", "tag": "Releasable To"},
                {"tag": "Administrative", "type": "INFORMATIVE", "vals": []},
            ],
            "alt": [{"policy": "US", "class": "SECRET", "originator_only": false}],
        }));
        let written = format!(
            concat!(
                r#"{{"alt":[{{"class":"SECRET","policy":"US"}}],"cats":["#,
                r#"{{"tag":"Releasable To","type":"PERMISSIVE","vals":["GBR","USA"]}},"#,
                r#"{{"tag":"Special Category","type":"RESTRICTIVE","vals":["ATOMAL"]}}],"class":"SECRET","#,
                r#""created":1764000000000,"mark":"NATO SECRET","policy":"NATO","spif":"sha256:{}"}}"#
            ),
            "0".repeat(64)
        );
        let label = label.unwrap();
        assert_eq!(label.to_canonical_json(), written);
        assert_eq!(serde_json::to_string(&label).unwrap(), written);
        assert_eq!(serde_json::from_str::<Label>(&written).unwrap(), label);
        assert_eq!(
            label.to_string(),
            "NATO SECRET//Releasable To: GBR, USA//Special Category: ATOMAL = US SECRET"
        );
    }

    #[test]
    fn a_label_of_a_wrong_form_is_refused_with_the_place() {
        let cat = |cat: Value| json!({"policy": "P", "class": "C", "cats": [cat]});
        for (label, error) in [
            (json!("NATO SECRET"), "is not an object"),
            (json!({"class": "C"}), "policy: is missing"),
            (json!({"policy": "P", "class": 3}), "class: is not a text"),
            (json!({"policy": "P", "class": ""}), "class: is empty"),
            (json!({"policy": "P", "class": "C\u{202e}"}), "class: has the invisible character U+202E in it"),
            (json!({"policy": "P", "class": " C"}), "class: begins or ends with a space"),
            (json!({"policy": "P", "class": "x".repeat(257)}), "class: has 257 bytes, more than 256"),
            (
                json!({"policy": "P", "class": "C", "created": 1.5}),
                "created: is not a whole number of milliseconds since the epoch",
            ),
            (
                json!({"policy": "P", "class": "C", "created": -1}),
                "created: is not a whole number of milliseconds since the epoch",
            ),
            (
                json!({"policy": "P", "class": "C", "originator_only": 1}),
                "originator_only: is neither true nor false",
            ),
            (
                json!({"policy": "P", "class": "C", "spif": "md5:0"}),
                "spif: is not 'sha256:' and 64 lowercase hexadecimal digits",
            ),
            (
                json!({"policy": "P", "class": "C", "mark": "x".repeat(1025)}),
                "mark: has 1025 bytes, more than 1024",
            ),
            (
                cat(json!({"tag": "T", "type": "permissive", "vals": []})),
                "cats[0].type: is 'permissive', not RESTRICTIVE, PERMISSIVE or INFORMATIVE",
            ),
            (cat(json!({"tag": "T", "type": "PERMISSIVE"})), "cats[0].vals: is missing"),
            (
                cat(json!({"tag": "T", "type": "PERMISSIVE", "vals": ["A", 1]})),
                "cats[0].vals[1]: is not a text",
            ),
            (
                cat(json!({"tag": "T", "type": "PERMISSIVE", "vals": ["A", "A"]})),
                "cats[0].vals: has 'A' twice",
            ),
            (
                json!({"policy": "P", "class": "C", "alt": [{"policy": "Q", "class": "C", "alt": []}]}),
                "alt[0].alt: stands within an equivalent label: list them side by side",
            ),
            (
                json!({"policy": "P", "class": "C", "alt": [{"policy": "P", "class": "C"}]}),
                "alt[0].policy: 'P' has a label already",
            ),
        ] {
            assert_eq!(refusal(&label), error);
        }
        let unknown = json!({"policy": "P", "class": "C", "caveat": "X"});
        assert!(refusal(&unknown).starts_with("has the unknown field 'caveat'; known are policy"));
        let twice = json!({"tag": "T", "type": "PERMISSIVE", "vals": ["A"]});
        let twice = json!({"policy": "P", "class": "C", "cats": [twice, twice]});
        assert!(refusal(&twice).starts_with("cats[1].tag: 'T' has a category already"));
    }

    #[test]
    fn content_with_a_label_that_cannot_be_read_is_not_unlabelled() {
        let content = json!({"body": "hello"});
        assert_eq!(Label::of_content(content.as_object().unwrap()), Ok(None));
        let content = json!({"io.postern.label": {"policy": "P"}});
        let error = Label::of_content(content.as_object().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "io.postern.label.class: is missing");
    }

    proptest! {
        #[test]
        fn any_label_is_read_as_it_is_written(
            policy in "[A-Za-z][^\\p{C}\\p{Z}]{0,9}", class in "[A-Z\"\\\\é]{1,9}", tags in proptest::collection::btree_map("[A-Z]{1,4}", (0usize..3, proptest::collection::btree_set("[a-z]{1,4}", 0..4)), 0..4),
        ) {
            let mut label = Label::new(&policy, &class).unwrap();
            for (tag, (kind, vals)) in tags {
                label = label.with(&tag, TagType::ALL[kind], vals).unwrap();
            }
            let json = label.to_canonical_json();
            prop_assert_eq!(Label::from_json(&serde_json::from_str(&json).unwrap()).unwrap(), label);
        }
    }
}
