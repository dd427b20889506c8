//! The `Authorization` header of requests between servers
//! (<https://spec.matrix.org/v1.19/server-server-api/#request-authentication>).

use ruma::{OwnedServerName, ServerName};

/// Longest header that is read, bytes: two server names, a key id and a signature are far shorter.
const LENGTH: usize = 2_048;

/// What a request says about who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XMatrix {
    /// The sender.
    pub origin: OwnedServerName,
    /// Whom it is for. Servers of before 1.3 do not say it.
    pub destination: Option<OwnedServerName>,
    /// The id of the key it is signed with.
    pub key: String,
    /// The signature, base64.
    pub sig: String,
}

impl XMatrix {
    /// Reads the value of a header; nothing if its scheme is another.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(value: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, parameters) = value.trim_start().split_once(' ')?;
        scheme.eq_ignore_ascii_case("X-Matrix").then(|| Self::read(parameters))
    }

    fn read(parameters: &str) -> Result<Self, &'static str> {
        if parameters.len() > LENGTH {
            return Err("the Authorization header is too long");
        }
        let (mut origin, mut destination, mut key, mut sig) = (None, None, None, None);
        let mut rest = parameters;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('=').ok_or("a parameter of X-Matrix has no value")?;
            let (value, after) = take_value(after.trim_start_matches([' ', '\t']))?;
            rest = after;
            let place = match name.trim_end().to_ascii_lowercase().as_str() {
                "origin" => &mut origin,
                "destination" => &mut destination,
                "key" => &mut key,
                "sig" => &mut sig,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err("a parameter of X-Matrix occurs twice");
            }
        }
        let name = |text: String| {
            ServerName::parse(text).map_err(|_| "X-Matrix has something that is no server name")
        };
        Ok(Self {
            origin: name(origin.ok_or("X-Matrix has no origin")?)?,
            destination: destination.map(name).transpose()?,
            key: key.ok_or("X-Matrix has no key")?,
            sig: sig.ok_or("X-Matrix has no sig")?,
        })
    }
}

/// A value from the front of `text`, in quotes or not, and what follows.
fn take_value(text: &str) -> Result<(String, &str), &'static str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        // More than tokens of HTTP: colons, as the specification asks for, and all of base64.
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if value.is_empty() || !value.bytes().all(fits) {
            return Err("a value of X-Matrix needs quotes");
        }
        return ended(rest).map(|rest| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return ended(quoted.get(at + 1..).unwrap_or_default()).map(|rest| (value, rest)),
            '\\' => value.push(characters.next().ok_or("a quote of X-Matrix does not end")?.1),
            other => value.push(other),
        }
    }
    Err("a quote of X-Matrix does not end")
}

/// After a value there is nothing, or a comma.
fn ended(rest: &str) -> Result<&str, &'static str> {
    let rest = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() || rest.starts_with(',') {
        Ok(rest)
    } else {
        Err("X-Matrix needs commas between parameters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<XMatrix, &'static str> {
        XMatrix::parse(value).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let read = read(
            r#"X-Matrix origin="origin.hs.example.com",destination="destination.hs.example.com",key="ed25519:key1",sig="ABCDEF...""#,
        )
        .unwrap();
        assert_eq!(read.origin, "origin.hs.example.com");
        assert_eq!(read.destination.unwrap(), "destination.hs.example.com");
        assert_eq!((read.key.as_str(), read.sig.as_str()), ("ed25519:key1", "ABCDEF..."));
    }

    #[test]
    fn spaces_case_order_quotes_and_unknown_parameters_do_not_matter() {
        let plain = read(r#"X-Matrix origin="a.test:1",key="ed25519:k",sig="c2ln+/==""#).unwrap();
        assert_eq!(plain.destination, None);
        for same in [
            r#"x-matrix   sig="c2ln+/==" ,	KEY="ed25519:k", Origin="a.test:1""#,
            r#"X-Matrix origin=a.test:1,key=ed25519:k,sig=c2ln+/==,"#,
            r#"X-Matrix origin="a\.test:1",x="\"",y=z,key="ed25519:\k",sig="c2ln+/==""#,
        ] {
            assert_eq!(read(same).unwrap(), plain, "{same}");
        }
    }

    #[test]
    fn what_is_incomplete_or_ambiguous_is_refused() {
        for wrong in [
            "X-Matrix ",
            "X-Matrix origin",
            "X-Matrix origin=a.test,key=k",
            "X-Matrix origin=a.test,origin=b.test,key=k,sig=s",
            "X-Matrix origin=a_b/c,key=k,sig=s",
            "X-Matrix origin=\"\",key=k,sig=s",
            "X-Matrix origin=\"a.test,key=k,sig=s",
            "X-Matrix origin=\"a.test\"key=k,sig=s",
            "X-Matrix origin=a.test key=k,sig=s",
            "X-Matrix origin=\"a.test\\",
            "X-Matrix origin=a.test,destination=,key=k,sig=s",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("X-Matrix origin=a.test,key=k,sig={}", "s".repeat(3000))).is_err());
        assert!(XMatrix::parse("Bearer x").is_none() && XMatrix::parse("X-Matrix").is_none());
    }
}
