//! An event as push rules look at it: its properties by their paths.

use serde_json::Value;
use std::collections::HashMap;

/// An event, flattened (specification: appendices, dot-separated property paths).
#[derive(Debug)]
pub(crate) struct Subject {
    /// Properties that are no objects: text, numbers, truth values, lists, nothing.
    properties: HashMap<String, Value>,
    /// The body in lower case, which nearly every rule set asks for.
    body: Option<String>,
    has_mentions: bool,
}

impl Subject {
    /// From the event's JSON.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn new(json: &str) -> Result<Self, serde_json::Error> {
        let event: Value = serde_json::from_str(json)?;
        let mentions = event.get("content").and_then(|content| content.get("m.mentions"));
        let has_mentions = mentions.is_some();
        let mut properties = HashMap::new();
        flatten(event, None, &mut properties);
        let body = properties.get("content.body").and_then(Value::as_str).map(str::to_lowercase);
        Ok(Self { properties, body, has_mentions })
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        self.properties.get(path)
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.as_str()
    }

    /// `content.body` in lower case.
    pub(crate) fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Whether the sender says who is mentioned: then the text is not searched for names.
    pub(crate) const fn has_mentions(&self) -> bool {
        self.has_mentions
    }
}

/// Deeper than JSON is read.
fn flatten(value: Value, path: Option<&str>, properties: &mut HashMap<String, Value>) {
    match (value, path) {
        (Value::Object(fields), _) => {
            for (name, value) in fields {
                let name = name.replace('\\', r"\\").replace('.', r"\.");
                let path = path.map_or_else(|| name.clone(), |path| format!("{path}.{name}"));
                flatten(value, Some(&path), properties);
            }
        }
        (value, Some(path)) => {
            properties.insert(path.to_owned(), value);
        }
        (_, None) => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn properties_are_found_by_their_paths() {
        // The examples of the specification's appendix.
        let event = json!({ "m.foo": { "b\\ar": "abc" }, "a": { "": 1, "b": [1, "x"], "c": null, "d": {} } });
        let subject = Subject::new(&event.to_string()).unwrap();
        assert_eq!(subject.text(r"m\.foo.b\\ar"), Some("abc"));
        assert_eq!(subject.get("a."), Some(&json!(1)));
        assert_eq!(subject.get("a.b"), Some(&json!([1, "x"])));
        assert_eq!(subject.get("a.c"), Some(&Value::Null));
        assert_eq!(subject.get("a.d"), None);
        assert_eq!(subject.get("m.foo"), None);
    }

    #[test]
    fn mentions_are_there_however_they_are_written() {
        let has =
            |content: Value| Subject::new(&json!({ "content": content }).to_string()).unwrap().has_mentions();
        assert!(has(json!({ "m.mentions": {} })) && has(json!({ "m.mentions": [] })));
        assert!(!has(json!({ "m": { "mentions": {} } })) && !has(json!({})));
    }
}
