//! A bounded reader of XML: elements, their attributes and text. No document type, no entities but XML's own five and
//! character references, no processing instructions that mean anything.

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use super::Problems;
use crate::limits;

/// An element. Prefixes of names are left out: published policies have elements without the one they should have.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'e>(&'e self, name: &str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    pub(super) fn first(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }
}

/// Reads a document's root element.
pub(super) fn read(text: &str) -> Result<Element, Problems> {
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut open: Vec<Element> = Vec::new();
    let mut elements = 0;
    let mut root = None;
    loop {
        let at = reader.buffer_position();
        let wrong = |what: String| Problems::one(line(text, at), what);
        let event = reader.read_event().map_err(|error| {
            Problems::one(line(text, reader.error_position()), format!("is not well-formed: {error}"))
        })?;
        let closed = match event {
            Event::Start(start) => {
                if root.is_some() {
                    return Err(wrong("has a second root element".into()));
                }
                elements += 1;
                if elements > limits::XML_ELEMENTS || open.len() >= limits::XML_DEPTH {
                    return Err(wrong(format!(
                        "has more than {} elements, or more than {} within one another",
                        limits::XML_ELEMENTS,
                        limits::XML_DEPTH
                    )));
                }
                open.push(element(&start).map_err(wrong)?);
                None
            }
            Event::Empty(start) => {
                elements += 1;
                if elements > limits::XML_ELEMENTS || root.is_some() {
                    return Err(wrong(format!(
                        "has more than {} elements, or two roots",
                        limits::XML_ELEMENTS
                    )));
                }
                Some(element(&start).map_err(wrong)?)
            }
            Event::End(_) => open.pop(),
            Event::Text(text) => {
                add_text(&mut open, &text);
                None
            }
            Event::CData(text) => {
                add_text(&mut open, &text);
                None
            }
            Event::GeneralRef(reference) => {
                let sign = reference.resolve_char_ref().map_err(|error| wrong(error.to_string()))?;
                let predefined = quick_xml::escape::resolve_predefined_entity(&reference);
                match (sign, predefined) {
                    (Some(sign), _) => add_text(&mut open, sign.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => add_text(&mut open, text),
                    (None, None) => return Err(wrong("refers to an entity, which is not allowed".into())),
                }
                None
            }
            Event::DocType(_) => return Err(wrong("has a document type, which is not allowed".into())),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => None,
            Event::Eof => break,
        };
        if let Some(closed) = closed {
            match open.last_mut() {
                Some(parent) => parent.children.push(closed),
                None => root = Some(closed),
            }
        }
    }
    if !open.is_empty() {
        return Err(Problems::one("", "ends within an element"));
    }
    root.ok_or_else(|| Problems::one("", "has no element"))
}

fn line(text: &str, position: u64) -> String {
    let before =
        usize::try_from(position).ok().and_then(|at| text.as_bytes().get(..at)).unwrap_or(text.as_bytes());
    format!("line {}", before.iter().filter(|&&byte| byte == b'\n').count() + 1)
}

fn add_text(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let name = start.local_name().as_ref().to_owned();
    let mut element = Element { name, ..Element::default() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| format!("has a wrong attribute: {error}"))?;
        if element.attributes.len() >= limits::XML_ATTRIBUTES {
            return Err(format!("has more than {} attributes", limits::XML_ATTRIBUTES));
        }
        let name = attribute.key.as_ref().to_owned();
        let value = attribute
            .normalized_value(XmlVersion::Explicit1_0)
            .map_err(|error| format!("has a wrong attribute '{name}': {error}"))?;
        element.attributes.push((name, value.into_owned()));
    }
    Ok(element)
}
