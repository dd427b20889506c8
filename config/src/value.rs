//! The kinds of values a setting can have: how each is read from TOML and from plain text, and how it is shown.

use crate::secret::{REDACTED, Secret};
use std::{fmt, net::SocketAddr, path::PathBuf};

/// A kind of value.
pub trait Setting: Sized {
    /// Whether it must never be printed, and may be read from a file by the key with `_file` at its end.
    const SECRET: bool = false;

    /// What would be right, to follow "must be".
    fn expected() -> String;

    /// Reads a value of the configuration file.
    fn from_toml(value: &toml::Value) -> Option<Self>;

    /// Reads an environment variable or a flag.
    fn from_text(text: &str) -> Option<Self>;

    /// As it would stand in the file; nothing if it is not set. Secrets are redacted.
    fn show(&self) -> Option<toml::Value>;
}

/// A further demand on a value.
pub(crate) struct Rule<T> {
    pub(crate) expected: String,
    pub(crate) holds: Box<dyn Fn(&T) -> bool>,
}

impl<T> fmt::Debug for Rule<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.expected).finish()
    }
}

/// A number from `low` to `high`.
pub(crate) fn between<T: PartialOrd + fmt::Display + 'static>(low: T, high: T) -> Rule<T> {
    Rule {
        expected: format!("from {low} to {high}"),
        holds: Box::new(move |value| *value >= low && *value <= high),
    }
}

/// A number above 0, at most `high`.
pub(crate) fn positive_up_to(high: f64) -> Rule<f64> {
    Rule {
        expected: format!("above 0, at most {high}"),
        holds: Box::new(move |value| *value > 0.0 && *value <= high),
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),*) => {$(
        impl Setting for $kind {
            fn expected() -> String {
                "a whole number".to_owned()
            }
            fn from_toml(value: &toml::Value) -> Option<Self> {
                value.as_integer()?.try_into().ok()
            }
            fn from_text(text: &str) -> Option<Self> {
                text.replace('_', "").parse().ok()
            }
            fn show(&self) -> Option<toml::Value> {
                // The largest settings are far below this.
                Some(toml::Value::Integer(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }
    )*};
}
whole_numbers!(u32, u64, usize);

impl Setting for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        let whole = || value.as_integer().and_then(|number| i32::try_from(number).ok()).map(Self::from);
        value.as_float().or_else(whole).filter(|number| number.is_finite())
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &Self| number.is_finite())
    }
    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Float(*self))
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_bool()
    }
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Boolean(*self))
    }
}

/// Values that are written as a string everywhere.
macro_rules! written_as_text {
    ($kind:ty, $expected:expr, $parse:expr, $show:expr) => {
        impl $crate::value::Setting for $kind {
            fn expected() -> String {
                $expected.to_owned()
            }
            fn from_toml(value: &toml::Value) -> Option<Self> {
                value.as_str().and_then(Self::from_text)
            }
            fn from_text(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<$kind> = $parse;
                parse(text)
            }
            fn show(&self) -> Option<toml::Value> {
                let show: fn(&$kind) -> String = $show;
                Some(toml::Value::String(show(self)))
            }
        }
    };
}
pub(crate) use written_as_text;

written_as_text!(String, "a text", |text| Some(text.to_owned()), Clone::clone);
written_as_text!(PathBuf, "a path", |text| (!text.is_empty()).then(|| PathBuf::from(text)), |path| path
    .display()
    .to_string());
written_as_text!(
    SocketAddr,
    "an IP address and a port, such as \"127.0.0.1:8008\" or \"[::1]:8008\"",
    |text| text.parse().ok(),
    ToString::to_string
);
written_as_text!(
    ipnet::IpNet,
    "a network, such as \"10.0.0.0/8\", or an IP address",
    |text| { text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from)) },
    ToString::to_string
);
written_as_text!(
    url::Url,
    "a URL with http or https and without query, such as \"https://matrix.example.org\"",
    |text| {
        url::Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        })
    },
    |url| url.as_str().trim_end_matches('/').to_owned()
);

impl Setting for Secret {
    const SECRET: bool = true;

    fn expected() -> String {
        format!("a text that is not empty and not \"{REDACTED}\"")
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_str().and_then(Self::from_text)
    }
    fn from_text(text: &str) -> Option<Self> {
        // What `config show` prints in its place is not the secret.
        (!text.is_empty() && text != REDACTED).then(|| Self::new(text))
    }
    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::String(REDACTED.to_owned()))
    }
}

/// Not set, or set. An empty environment variable or flag unsets it.
impl<T: Setting> Setting for Option<T> {
    const SECRET: bool = T::SECRET;

    fn expected() -> String {
        T::expected()
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        T::from_toml(value).map(Some)
    }
    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::from_text(text).map(Some) }
    }
    fn show(&self) -> Option<toml::Value> {
        self.as_ref().and_then(Setting::show)
    }
}

/// A list: an array in the file; in text either an array as in the file, or items separated by commas.
impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }
    fn from_toml(value: &toml::Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_toml).collect()
    }
    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        // An address can begin with a bracket, too: only what is an array as a whole is read as one.
        if let Ok(table) = format!("list = {text}").parse::<toml::Table>()
            && let Some(list @ toml::Value::Array(_)) = table.get("list")
        {
            return Self::from_toml(list);
        }
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }
    fn show(&self) -> Option<toml::Value> {
        Some(toml::Value::Array(self.iter().filter_map(Setting::show).collect()))
    }
}
