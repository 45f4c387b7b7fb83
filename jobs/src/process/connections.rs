//! How PostgreSQL and Redis are reached.

use std::fmt;
use std::str::FromStr;

use redis::IntoConnectionInfo as _;
use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::settings::{Settings, SettingsError};

impl Settings {
    /// The connection that a variable's URL describes.
    pub fn postgres(&self, name: &str) -> Result<PgConnectOptions, SettingsError> {
        self.required_with(name, |text| postgres(text, self.program().name()))
    }

    /// As [`Settings::postgres`], where the variable is set.
    pub fn postgres_if_set(&self, name: &str) -> Result<Option<PgConnectOptions>, SettingsError> {
        self.optional_with(name, |text| postgres(text, self.program().name()))
    }

    /// The connection that a variable's URL describes.
    pub fn redis(&self, name: &str) -> Result<redis::ConnectionInfo, SettingsError> {
        self.required_with(name, |text| {
            let url = url(text, &["redis", "rediss", "valkey", "valkeys", "unix", "redis+unix", "valkey+unix"])?;
            url.into_connection_info()
                .map_err(|_| "that URL is not one of Redis (rediss://user:password@host:port/database)".to_owned())
        })
    }
}

// Nothing said here repeats a part of the URL: it is a secret.
fn postgres(text: &str, application: &str) -> Result<PgConnectOptions, String> {
    let url = url(text, &["postgres", "postgresql"])?;
    let named = |parameter: &str| url.query_pairs().any(|(key, value)| key == parameter && !value.is_empty());
    if url.username().is_empty() && !named("user") {
        return Err("its URL names no user, and which role it is decides what it sees".to_owned());
    }
    if url.path().trim_matches('/').is_empty() && !named("dbname") {
        return Err("its URL names no database".to_owned());
    }
    let options = PgConnectOptions::from_str(text)
        .map_err(|_| "a parameter of its URL is not understood (sslmode, port, hostaddr, …)".to_owned())?;
    Ok(if named("application_name") { options } else { options.application_name(application) })
}

fn url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("that is not a URL: {error}"))?;
    if schemes.contains(&url.scheme()) {
        Ok(url)
    } else {
        Err(format!("its URL does not begin with {}://", schemes[0]))
    }
}

/// The first part of every key in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("1 to 40 characters of a-z, 0-9, _ and - are needed")]
pub struct NotANamespace;

impl FromStr for Namespace {
    type Err = NotANamespace;

    fn from_str(text: &str) -> Result<Self, NotANamespace> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        if (1..=40).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotANamespace)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::settings::tests::settings;

    fn database(url: &str) -> Result<PgConnectOptions, SettingsError> {
        settings(&[("GANTRY_DATABASE_URL", url)]).postgres("DATABASE_URL")
    }

    #[test]
    fn a_database_url_becomes_options_that_name_the_program() {
        let options = database("postgres://gantry_app:p%40ss@db.test:6432/gantry?sslmode=verify-full").unwrap();
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_username(), options.get_database()),
            ("db.test", 6432, "gantry_app", Some("gantry"))
        );
        assert_eq!(options.get_application_name(), Some("gantry-api"));

        let socket = database("postgres://gantry_app@localhost:5432/gantry?host=/run/postgres").unwrap();
        assert_eq!(socket.get_socket().unwrap().to_str(), Some("/run/postgres"));
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_by_the_variables_name_without_its_password() {
        for (url, reason) in [
            ("hunter2", "that is not a URL: relative URL without a base"),
            ("postgres://app:hunter2@db:port/gantry", "that is not a URL: invalid port number"),
            ("mysql://app:hunter2@db/gantry", "does not begin with postgres://"),
            ("postgres://:hunter2@db/gantry", "names no user"),
            ("postgres://app:hunter2@db/", "names no database"),
            ("postgres://app:hunter2@db/gantry?sslmode=hunter2", "a parameter of its URL is not understood"),
        ] {
            let said = database(url).expect_err(url).to_string();
            assert!(said.starts_with("GANTRY_DATABASE_URL is set (a secret, not shown), but "), "{said}");
            assert!(said.contains(reason) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_redis_url_says_host_database_and_tls() {
        let info =
            settings(&[("GANTRY_REDIS_URL", "rediss://me:hunter2@redis.test:6380/2")]).redis("REDIS_URL").unwrap();
        assert!(matches!(info.addr(), redis::ConnectionAddr::TcpTls { host, port: 6380, .. } if host == "redis.test"));
        assert_eq!(info.redis_settings().db(), 2);

        for url in ["http://redis.test/", "redis://redis.test/two"] {
            assert!(settings(&[("GANTRY_REDIS_URL", url)]).redis("REDIS_URL").is_err(), "{url}");
        }
    }

    #[test]
    fn a_namespace_is_one_short_plain_word() {
        assert_eq!("gantry-eu_1".parse::<Namespace>().unwrap().as_str(), "gantry-eu_1");
        for bad in ["", "Gantry", "a b", "{gantry}", "a:b", &"a".repeat(41)] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
