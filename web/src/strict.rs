//! JSON that means one thing only.

use crate::ApiError;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use std::{borrow::Cow, collections::HashSet, fmt};

/// Any JSON in which no object has a key twice: of such keys some readers take the first, others the last. It is all
/// looked at, its text and its depth too, and nothing is kept.
#[derive(Debug, Clone, Copy)]
pub struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A key, without a copy where it has no escapes.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Strict {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys: HashSet<Key<'de>> = HashSet::new();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if keys.contains(&key) {
                return Err(de::Error::custom(format!("the key {:?} occurs twice", key.0)));
            }
            keys.insert(key);
            map.next_value_seed(self)?;
        }
        Ok(self)
    }
}

/// Checks that a body is a JSON object that means one thing only.
pub fn check_object(bytes: &[u8]) -> Result<(), ApiError> {
    let _: Strict = parse_json(bytes)?;
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_json("the body is not a JSON object"));
    }
    Ok(())
}

/// JSON to a type.
pub fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ApiError> {
    // Said first, and of all of it: a parser may pass over text that is not wanted.
    if std::str::from_utf8(bytes).is_err() {
        return Err(ApiError::not_json("the body is not UTF-8"));
    }
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::bad_json(error.to_string()),
        _ if serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() => {
            ApiError::bad_json(error.to_string())
        }
        _ => ApiError::not_json(format!("the body is not JSON: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Strict> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_key_that_occurs_twice_is_noticed_at_any_depth_and_however_it_is_written() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, r#"{"\u00e9":1,"é":2}"#] {
            assert!(read(text).unwrap_err().to_string().contains("occurs twice"), "{text}");
        }
        for text in [r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#, "{}", "1", "null", r#""x""#, "[true, -1, 2.5]"]
        {
            assert!(read(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(read(&("[".repeat(100) + &"]".repeat(100))).is_ok());
        assert!(read(&("[".repeat(200) + &"]".repeat(200))).is_err());
    }
}
