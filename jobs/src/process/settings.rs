//! Settings of a process: from the environment, and from a file below it.
//!
//! They are read once in `main` and passed on as values. Everything that is wrong is said at once: the name, the value
//! unless it is a secret, and what to do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::variables::{self, PREFIX, Program, Variable};

/// A file that holds a secret is small; what is larger is the wrong file.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// One thing that is wrong with the settings: what, and what to do about it. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(String);

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(Vec<Problem>);

impl SettingsError {
    /// One problem.
    pub fn new(problem: impl Into<String>) -> Self {
        Self(vec![Problem(problem.into())])
    }

    /// All of them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    fn of(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
}

impl Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [problem] => write!(f, "{problem}"),
            problems => {
                write!(f, "{} settings need attention:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl std::error::Error for SettingsError {}

/// Several settings at once: `(a, b, c).together()?` says everything that is wrong, not only the first.
pub trait Together {
    /// The values.
    type Values;

    /// All values, or all problems.
    fn together(self) -> Result<Self::Values, SettingsError>;
}

macro_rules! together {
    ($($T:ident $value:ident),+) => {
        impl<$($T),+> Together for ($(Result<$T, SettingsError>,)+) {
            type Values = ($($T,)+);

            fn together(self) -> Result<Self::Values, SettingsError> {
                let ($($value,)+) = self;
                let mut problems = Vec::new();
                $(let $value = $value.map_err(|error| problems.extend(error.0)).ok();)+
                match ($($value,)+) {
                    ($(Some($value),)+) => Ok(($($value,)+)),
                    _ => Err(SettingsError(problems)),
                }
            }
        }
    };
}
together!(A a, B b);
together!(A a, B b, C c);
together!(A a, B b, C c, D d);
together!(A a, B b, C c, D d, E e);
together!(A a, B b, C c, D d, E e, F f);
together!(A a, B b, C c, D d, E e, F f, G g);
together!(A a, B b, C c, D d, E e, F f, G g, H h);
together!(A a, B b, C c, D d, E e, F f, G g, H h, I i);
together!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j);
together!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k);
together!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l);

/// Where a value was found, as its reader would look for it.
#[derive(Clone)]
struct Found {
    value: SecretString,
    place: String,
}

/// The settings of a process.
#[derive(Clone)]
pub struct Settings {
    program: Program,
    found: BTreeMap<&'static str, Found>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_map();
        for (name, found) in &self.found {
            let secret = variables::find(name).is_none_or(|variable| variable.secret);
            shown.entry(name, &if secret { "[REDACTED]" } else { found.value.expose_secret() });
        }
        shown.finish()
    }
}

impl Settings {
    /// Reads the environment (`std::env::vars_os()`) and the file it names. Refuses what it does not know.
    pub fn load<N, V>(program: Program, environment: impl IntoIterator<Item = (N, V)>) -> Result<Self, SettingsError>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut problems = Vec::new();
        let mut of_environment = Source::default();
        for (name, value) in environment {
            let Ok(name) = name.into().into_string() else { continue };
            let Some(short) = name.strip_prefix(PREFIX) else { continue };
            match value.into().into_string() {
                Ok(value) if variables::is_of_others(short, &value) => {}
                Ok(value) => of_environment.take(short, value, name.clone(), &mut problems),
                Err(_) => problems.push(Problem(format!("{name} is not UTF-8. Set it to text."))),
            }
        }
        of_environment.read_secret_files(&mut problems);
        let mut found = match of_environment.found.get("CONFIG") {
            Some(config) => Source::of_file(Path::new(config.value.expose_secret()), &mut problems).found,
            None => BTreeMap::new(),
        };
        found.extend(of_environment.found); // wins
        SettingsError::of(problems)?;
        Ok(Self { program, found })
    }

    /// Whose settings these are.
    pub fn program(&self) -> Program {
        self.program
    }

    /// The variable, or its default.
    pub fn required<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, SettingsError> {
        self.required_with(name, parse)
    }

    /// The variable, or its default, or nothing.
    pub fn optional<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, SettingsError> {
        self.read(variable(name), parse)
    }

    /// The variable, or `default`.
    pub fn or<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T, SettingsError> {
        match self.found(variable(name)) {
            Some(_) => self.required(name),
            None => Ok(default),
        }
    }

    /// A number of seconds, up to a day.
    pub fn seconds(&self, name: &str) -> Result<Duration, SettingsError> {
        self.required_with(name, |text| match text.parse() {
            Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
            _ => Err("a whole number of seconds from 0 to 86400 is needed".to_owned()),
        })
    }

    /// An address to listen at, or nothing where the variable is empty.
    pub fn address_unless_off(&self, name: &str) -> Result<Option<SocketAddr>, SettingsError> {
        self.required_with(name, |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) })
    }

    /// A secret as it is.
    pub fn secret(&self, name: &str) -> Result<SecretString, SettingsError> {
        self.required_with(name, |text| Ok(SecretString::from(text)))
    }

    /// The variable or its default, read by `parse`. What `parse` says of a secret must not contain it.
    pub(super) fn required_with<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let variable = variable(name);
        self.read(variable, parse)?.ok_or_else(|| {
            let Variable { doc, example, .. } = variable;
            let name = variable.in_environment();
            let or_file =
                if variable.secret { format!(", or {name}_FILE to a file that holds it") } else { String::new() };
            SettingsError::new(format!("{name} is not set. {doc} Set {name}={example}{or_file}."))
        })
    }

    /// The variable or its default or nothing, read by `parse`. What `parse` says of a secret must not contain it.
    pub(super) fn optional_with<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        self.read(variable(name), parse)
    }

    fn found(&self, variable: &Variable) -> Option<&Found> {
        self.found.get(variable.name)
    }

    fn read<T>(
        &self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let (text, place) = match (self.found(variable), variable.default_in(self.program)) {
            (Some(found), _) => (found.value.expose_secret(), found.place.clone()),
            (None, Some(default)) => (default, format!("the default of {}", variable.in_environment())),
            (None, None) => return Ok(None),
        };
        let Variable { doc, example, .. } = variable;
        parse(text).map(Some).map_err(|reason| {
            let value = if variable.secret { "set (a secret, not shown)".to_owned() } else { format!("{text:?}") };
            SettingsError::new(format!("{place} is {value}, but {reason}. {doc} For example: {example}"))
        })
    }
}

/// Reads by `FromStr`. The message of a foreign parser may repeat its input, so it is not for secrets.
fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("that cannot be read: {error}"))
}

fn variable(name: &str) -> &'static Variable {
    variables::find(name).unwrap_or_else(|| panic!("{name} is not in VARIABLES: a mistake in this program"))
}

/// What one place says: the environment, or a file.
#[derive(Default)]
struct Source {
    found: BTreeMap<&'static str, Found>,
    /// Paths of files that hold a secret.
    files: BTreeMap<&'static str, Found>,
}

impl Source {
    fn of_file(path: &Path, problems: &mut Vec<Problem>) -> Self {
        let mut source = Self::default();
        match std::fs::read_to_string(path) {
            Ok(text) => source.read_toml(path, &text, problems),
            Err(error) => problems.push(Problem(format!(
                "{PREFIX}CONFIG is {}, which cannot be read: {error}. Name a readable TOML file, or leave it out.",
                path.display()
            ))),
        }
        source.read_secret_files(problems);
        source
    }

    fn read_toml(&mut self, path: &Path, text: &str, problems: &mut Vec<Problem>) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Its Display shows the line, which may hold a secret.
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let (line, reason) = (before.matches('\n').count() + 1, error.message());
                problems.push(Problem(format!("{}, line {line}, is not TOML: {reason}.", path.display())));
                return;
            }
        };
        for (key, value) in table {
            let place = format!("{key} in {}", path.display());
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(truth) => truth.to_string(),
                other => {
                    let kind = other.type_str();
                    problems.push(Problem(format!(
                        "{place} is of type {kind}. Write a text, a whole number, true or false."
                    )));
                    continue;
                }
            };
            if key == "config" {
                problems.push(Problem(format!("{place}: a configuration file cannot name another. Remove it.")));
            } else if key.chars().any(char::is_uppercase) || key.starts_with("gantry_") {
                let short = key.to_lowercase();
                let short = short.strip_prefix("gantry_").unwrap_or(&short);
                problems.push(Problem(format!("{place}: keys are in lower case without prefix. Write {short} = …")));
            } else {
                self.take(&key.to_uppercase(), value, place, problems);
            }
        }
    }

    fn take(&mut self, name: &str, value: String, place: String, problems: &mut Vec<Problem>) {
        let file_of = || name.strip_suffix("_FILE").and_then(variables::find).filter(|variable| variable.secret);
        let (variable, into) = match (variables::find(name), file_of()) {
            (Some(variable), _) => (variable, &mut self.found),
            (None, Some(variable)) => (variable, &mut self.files),
            (None, None) => {
                let remedy = match variables::nearest(name) {
                    Some(name) if place.starts_with(PREFIX) => format!("did you mean {PREFIX}{name}?"),
                    Some(name) => format!("did you mean {}?", name.to_lowercase()),
                    None => "--help lists those that are; remove it.".to_owned(),
                };
                problems.push(Problem(format!("{place} is not a setting: {remedy}")));
                return;
            }
        };
        if !value.trim().is_empty() || variable.empty_is_off {
            into.insert(variable.name, Found { value: SecretString::from(value.trim()), place });
        }
    }

    fn read_secret_files(&mut self, problems: &mut Vec<Problem>) {
        for (name, Found { value: path, place }) in std::mem::take(&mut self.files) {
            if let Some(found) = self.found.get(name) {
                problems.push(Problem(format!("{} and {place} are both set. Keep one of them.", found.place)));
                continue;
            }
            let path = path.expose_secret();
            match read_secret_file(path) {
                Ok(value) => {
                    self.found.insert(name, Found { value, place: format!("the content of {path} ({place})") });
                }
                Err(reason) => problems.push(Problem(format!(
                    "{place} is {path:?}, {reason}. Name a readable file that holds the value, or set {PREFIX}{name}."
                ))),
            }
        }
    }
}

fn read_secret_file(path: &str) -> Result<SecretString, String> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| format!("which cannot be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_SECRET_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.trim() {
        "" => Err("which is empty".to_owned()),
        _ if text.len() as u64 > MAX_SECRET_FILE => Err(format!("which is larger than {MAX_SECRET_FILE} bytes")),
        secret => Ok(SecretString::from(secret)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;
    use std::num::NonZeroU32;

    use super::*;

    pub(crate) fn load(environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::load(Program::Api, environment.iter().copied())
    }

    pub(crate) fn settings(environment: &[(&str, &str)]) -> Settings {
        load(environment).expect("good settings")
    }

    fn file(content: &str) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    fn problem<T: fmt::Debug>(result: Result<T, SettingsError>) -> String {
        result.expect_err("a problem").to_string()
    }

    #[test]
    fn a_variable_is_what_it_is_set_to_or_its_default() {
        let settings = settings(&[("GANTRY_LISTEN", "0.0.0.0:80"), ("PATH", "/bin"), ("GANTRY_LOG", "")]);
        assert_eq!(settings.required::<SocketAddr>("LISTEN").unwrap().port(), 80);
        assert_eq!(settings.required::<String>("LOG").unwrap(), "info");
        assert_eq!(settings.optional::<String>("OTLP_ENDPOINT").unwrap(), None);
        assert_eq!(settings.or("LOG", "warn".to_owned()).unwrap(), "warn");
        assert_eq!(settings.seconds("DRAIN_SECONDS").unwrap(), Duration::from_secs(30));
        assert!(!settings.required::<bool>("WEBHOOKS_ALLOW_PRIVATE").unwrap());
    }

    #[test]
    fn metrics_have_a_port_of_their_own_in_each_program_and_can_be_off() {
        let port = |settings: &Settings| settings.address_unless_off("METRICS_LISTEN").unwrap().map(|at| at.port());
        assert_eq!(port(&settings(&[])), Some(9464));
        let worker = Settings::load(Program::Worker, std::iter::empty::<(String, String)>()).unwrap();
        assert_eq!(port(&worker), Some(9465));
        assert_eq!(port(&settings(&[("GANTRY_METRICS_LISTEN", "")])), None);
    }

    #[test]
    fn an_unknown_variable_is_refused_with_the_name_that_was_meant() {
        assert_eq!(
            problem(load(&[("GANTRY_LISTN", "x")])),
            "GANTRY_LISTN is not a setting: did you mean GANTRY_LISTEN?"
        );
        assert_eq!(
            problem(load(&[("GANTRY_COFFEE", "x")])),
            "GANTRY_COFFEE is not a setting: --help lists those that are; remove it."
        );
        assert!(load(&[("GANTRY_API_KEY", "of a caller"), ("GANTRY_SERVICE_HOST", "10.0.0.7")]).is_ok());
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let settings = settings(&[("GANTRY_LISTEN", "here"), ("GANTRY_DATABASE_CONNECTIONS", "0")]);
        let result = (
            settings.required::<SocketAddr>("LISTEN"),
            settings.required::<NonZeroU32>("DATABASE_CONNECTIONS"),
            settings.required::<String>("LOG"),
            settings.secret("REDIS_URL"),
        )
            .together();
        assert_eq!(
            problem(result),
            "3 settings need attention:\n  \
             - GANTRY_LISTEN is \"here\", but that cannot be read: invalid socket address syntax. \
             Where the API listens. For example: 127.0.0.1:8080\n  \
             - GANTRY_DATABASE_CONNECTIONS is \"0\", but that cannot be read: number would be zero for non-zero type. \
             The most connections that one process keeps to each of the two; half are for single statements. \
             For example: 16\n  \
             - GANTRY_REDIS_URL is not set. Redis (7 or later) or Valkey; rediss:// with TLS. \
             Set GANTRY_REDIS_URL=redis://127.0.0.1:6379/, or GANTRY_REDIS_URL_FILE to a file that holds it."
        );
        assert!(problem(load(&[("GANTRY_A", ""), ("GANTRY_B", "")])).starts_with("2 settings"));
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let (_file, path) = file("listen = \"0.0.0.0:81\"\ndrain_seconds = 5\nwebhooks_allow_private = true\n");
        let settings = settings(&[("GANTRY_CONFIG", &path), ("GANTRY_LISTEN", "0.0.0.0:80")]);
        assert_eq!(settings.required::<SocketAddr>("LISTEN").unwrap().port(), 80);
        assert_eq!(settings.seconds("DRAIN_SECONDS").unwrap(), Duration::from_secs(5));
        assert!(settings.required::<bool>("WEBHOOKS_ALLOW_PRIVATE").unwrap());
    }

    #[test]
    fn a_file_with_mistakes_is_refused_with_all_of_them() {
        let (_file, path) = file("listn = \"x\"\nqueues = [1]\nconfig = \"y\"\nGANTRY_LOG = \"info\"\n");
        let said = problem(load(&[("GANTRY_CONFIG", &path)]));
        assert!(said.contains(&format!("listn in {path} is not a setting: did you mean listen?")), "{said}");
        assert!(said.contains(&format!("queues in {path} is of type array. Write a text")), "{said}");
        assert!(said.contains("cannot name another"), "{said}");
        assert!(said.contains("Write log = …"), "{said}");
        assert!(problem(load(&[("GANTRY_CONFIG", "/nowhere.toml")])).contains("GANTRY_CONFIG is /nowhere.toml, which"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let settings =
            settings(&[("GANTRY_SEALING_KEY", "hunter2"), ("GANTRY_REDIS_URL", "hunter2"), ("GANTRY_LOG", "x")]);
        assert_eq!(format!("{settings:?}"), r#"{"LOG": "x", "REDIS_URL": "[REDACTED]", "SEALING_KEY": "[REDACTED]"}"#);
        for said in [problem(settings.sealing_keys()), problem(settings.redis("REDIS_URL").map(|_| ()))] {
            assert!(said.contains("is set (a secret, not shown), but") && !said.contains("hunter2"), "{said}");
        }
        let (_file, path) = file("log = \"info\"\nsealing_key = hunter2\n");
        let said = problem(load(&[("GANTRY_CONFIG", &path)]));
        assert!(said.contains("line 2") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_secret_can_be_a_file_of_its_own() {
        let (_file, path) = file("redis://10.0.0.7/\n");
        let from_file = settings(&[("GANTRY_REDIS_URL_FILE", &path), ("GANTRY_REDIS_URL", "")]);
        assert_eq!(from_file.secret("REDIS_URL").unwrap().expose_secret(), "redis://10.0.0.7/");

        let said = problem(load(&[("GANTRY_REDIS_URL_FILE", &path), ("GANTRY_REDIS_URL", "redis://x/")]));
        assert_eq!(said, "GANTRY_REDIS_URL and GANTRY_REDIS_URL_FILE are both set. Keep one of them.");
        assert!(problem(load(&[("GANTRY_REDIS_URL_FILE", "/nowhere")])).contains("or set GANTRY_REDIS_URL."));
        assert!(load(&[("GANTRY_LISTEN_FILE", &path)]).is_err(), "not a secret");

        let (_file, config) = file(&format!("redis_url_file = {path:?}\n"));
        let from_config = settings(&[("GANTRY_CONFIG", &config)]);
        assert_eq!(from_config.secret("REDIS_URL").unwrap().expose_secret(), "redis://10.0.0.7/");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf8_is_refused_by_name() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment = [("GANTRY_LOG", OsString::from_vec(vec![0xff]))];
        assert_eq!(problem(Settings::load(Program::Api, environment)), "GANTRY_LOG is not UTF-8. Set it to text.");
    }
}
