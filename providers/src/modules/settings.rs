//! What operators say about modules, as they write it.

use std::str::FromStr;

/// `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

/// The text says neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither on nor off")]
pub struct InvalidSwitch(String);

impl FromStr for Switch {
    type Err = InvalidSwitch;

    fn from_str(text: &str) -> Result<Self, InvalidSwitch> {
        match text {
            "on" => Ok(Self(true)),
            "off" => Ok(Self(false)),
            other => Err(InvalidSwitch(other.to_owned())),
        }
    }
}

/// Plugins of Terraform by their sources, with commas between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plugins(pub Vec<String>);

/// The text is no list of plugins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no source of a plugin; write such as hashicorp/dns, with commas between them")]
pub struct InvalidPlugin(String);

impl FromStr for Plugins {
    type Err = InvalidPlugin;

    fn from_str(text: &str) -> Result<Self, InvalidPlugin> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"-_.".contains(&it))
        };
        let mut plugins = Vec::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let parts: Vec<&str> = entry.split('/').collect();
            if !(2..=3).contains(&parts.len()) || !parts.iter().all(|part| is_word(part)) {
                return Err(InvalidPlugin(entry.to_owned()));
            }
            plugins.push(entry.to_owned());
        }
        Ok(Self(plugins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_operators_write_is_read_or_named() {
        assert_eq!("on".parse(), Ok(Switch(true)));
        assert!("true".parse::<Switch>().is_err());
        let plugins: Plugins = "hashicorp/dns, registry.example/acme/thing".parse().unwrap();
        assert_eq!(plugins.0, ["hashicorp/dns", "registry.example/acme/thing"]);
        for bad in ["dns", "a/b/c/d", "A/b", "a//b"] {
            assert_eq!(bad.parse::<Plugins>(), Err(InvalidPlugin(bad.to_owned())));
        }
    }
}
