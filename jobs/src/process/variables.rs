//! Every variable that the two programs read, in one list: what is not in it is refused.

use std::fmt::Write as _;

/// The prefix of every variable's name in the environment.
pub(super) const PREFIX: &str = "GANTRY_";

/// Who reads the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `gantry-api`.
    Api,
    /// `gantry-worker`.
    Worker,
}

impl Program {
    /// The program's name: in traces, and in PostgreSQL's list of sessions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "gantry-api",
            Self::Worker => "gantry-worker",
        }
    }
}

/// Which program reads a variable; the other one accepts it, so that both can share a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBy {
    /// The api and the worker.
    Both,
    /// Only the api.
    Api,
    /// Only the worker.
    Worker,
}

/// What a variable is when it is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// It has to be set where it is needed.
    Required,
    /// It is left out.
    Nothing,
    /// This.
    Is(&'static str),
    /// Something else in each program.
    Each {
        /// In the api.
        api: &'static str,
        /// In the worker.
        worker: &'static str,
    },
}

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name without the prefix, in upper case; in a file it is written in lower case.
    pub name: &'static str,
    /// Never shown, and can be given as a file: `<NAME>_FILE`.
    pub secret: bool,
    /// Set and empty turns it off; elsewhere an empty value is the same as none.
    pub empty_is_off: bool,
    /// Who reads it.
    pub read_by: ReadBy,
    /// What it is when it is not set.
    pub default: Unset,
    /// A value that would be accepted.
    pub example: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

impl Variable {
    const fn new(name: &'static str, default: Unset, example: &'static str, doc: &'static str) -> Self {
        Self { name, secret: false, empty_is_off: false, read_by: ReadBy::Both, default, example, doc }
    }

    const fn required(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self::new(name, Unset::Required, example, doc)
    }

    const fn optional(name: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self::new(name, Unset::Nothing, example, doc)
    }

    const fn with_default(name: &'static str, default: &'static str, doc: &'static str) -> Self {
        Self::new(name, Unset::Is(default), default, doc)
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    const fn empty_is_off(mut self) -> Self {
        self.empty_is_off = true;
        self
    }

    const fn read_by(mut self, read_by: ReadBy) -> Self {
        self.read_by = read_by;
        self
    }

    /// Its default in a program.
    pub const fn default_in(&self, program: Program) -> Option<&'static str> {
        match (self.default, program) {
            (Unset::Is(text), _)
            | (Unset::Each { api: text, .. }, Program::Api)
            | (Unset::Each { worker: text, .. }, Program::Worker) => Some(text),
            (Unset::Required | Unset::Nothing, _) => None,
        }
    }

    /// Its name in the environment.
    pub fn in_environment(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }
}

/// Every variable, in the order of `.env.example`.
pub const VARIABLES: &[Variable] = &[
    Variable::optional(
        "CONFIG",
        "/etc/gantry/gantry.toml",
        "A configuration file (TOML); the environment wins over it.",
    ),
    Variable::required(
        "DATABASE_URL",
        "postgres://gantry_app:password@127.0.0.1:5432/gantry",
        "PostgreSQL (15 or later), as the role gantry_app, which sees one organization at a time.",
    )
    .secret(),
    Variable::required(
        "ENGINE_DATABASE_URL",
        "postgres://gantry_engine:password@127.0.0.1:5432/gantry",
        "The same database as the role gantry_engine, which sees everybody's jobs and nothing else.",
    )
    .secret(),
    Variable::with_default(
        "DATABASE_CONNECTIONS",
        "16",
        "The most connections that one process keeps to each of the two; half are for single statements.",
    ),
    Variable::required("REDIS_URL", "redis://127.0.0.1:6379/", "Redis (7 or later) or Valkey; rediss:// with TLS.")
        .secret(),
    Variable::with_default("REDIS_NAMESPACE", "gantry", "The first part of every key in Redis, of a-z, 0-9, _ and -."),
    Variable::required(
        "SEALING_KEY",
        "$(openssl rand -base64 32)",
        "32 random bytes in base64: opens the secrets that are sealed in the database.",
    )
    .secret(),
    Variable::optional(
        "SEALING_KEYS_OLDER",
        "2025:u7Xc…=,2024:9fPq…=",
        "Sealing keys that only open what they once sealed, comma-separated: values SEALING_KEY has had.",
    )
    .secret(),
    Variable::with_default(
        "LOG",
        "info",
        "What is logged: error, warn, info, debug or trace, per part if need be (info,gantry_workers::engine=debug).",
    ),
    Variable::with_default("LOG_FORMAT", "json", "How it is logged: human or json."),
    Variable::new(
        "METRICS_LISTEN",
        Unset::Each { api: "127.0.0.1:9464", worker: "127.0.0.1:9465" },
        "127.0.0.1:9464",
        "Where Prometheus finds /metrics; empty for nowhere.",
    )
    .empty_is_off(),
    Variable::optional(
        "OTLP_ENDPOINT",
        "http://127.0.0.1:4317",
        "An OpenTelemetry collector (OTLP over gRPC) for traces; none are sent without it.",
    ),
    Variable::with_default(
        "DRAIN_SECONDS",
        "30",
        "How long SIGTERM waits for requests and attempts that have begun, before attempts are handed back.",
    ),
    Variable::with_default(
        "WEBHOOKS_ALLOW_PRIVATE",
        "false",
        "Whether webhook receivers may be http:// and lie at private addresses.",
    ),
    Variable::optional(
        "WEBHOOKS_ALLOW",
        "10.1.0.0/16,hooks.internal",
        "Webhook receivers inside the network that may be called all the same: networks, addresses and hosts.",
    ),
    Variable::optional(
        "LICENSE_ISSUERS",
        "k4.public.wqLWoivpUb4gWjgynYYbf0C333pQ5iIi1YYBeOZN5Dc",
        "Public keys of others whose licenses are believed, besides the platform's own, comma-separated.",
    ),
    Variable::with_default("LISTEN", "127.0.0.1:8080", "Where the API listens.").read_by(ReadBy::Api),
    Variable::optional(
        "PUBLIC_URL",
        "https://gantry.example",
        "The URL under which the world reaches the API; unset: http:// and where it listens. The inspector's bins begin with it.",
    )
    .read_by(ReadBy::Api),
    Variable::optional(
        "BASE_DOMAIN",
        "cloud.example",
        "The domain below which organizations have host names, one label each; unset: they have none.",
    )
    .read_by(ReadBy::Api),
    Variable::with_default(
        "SIGN_UP",
        "invitation",
        "Who may make an account: open (everybody), invitation (who was invited), or closed (nobody).",
    )
    .read_by(ReadBy::Api),
    Variable::with_default("API_REQUESTS", "512", "Requests worked on at the same time; more are refused with 503.")
        .read_by(ReadBy::Api),
    Variable::with_default("API_WAITING", "10000", "Requests that wait for a job or stream news at the same time.")
        .read_by(ReadBy::Api),
    Variable::with_default("API_BODY_MIB", "128", "MiB of request bodies held at the same time.")
        .read_by(ReadBy::Api),
    Variable::with_default("API_CONNECTIONS", "20000", "Connections at the same time.").read_by(ReadBy::Api),
    Variable::optional(
        "CORS_ORIGINS",
        "https://console.example.com",
        "Origins whose web pages may call the API from a browser, comma-separated, or *; none without it.",
    )
    .read_by(ReadBy::Api),
    Variable::optional(
        "HSTS_SECONDS",
        "31536000",
        "For how long browsers are told to use TLS only (Strict-Transport-Security); set it where TLS ends before the API.",
    )
    .read_by(ReadBy::Api),
    Variable::optional(
        "TRUSTED_PROXIES",
        "10.0.0.0/8,2001:db8::/32",
        "Addresses and networks of the proxies before the API, comma-separated: what they say of where a request comes from is believed; unix for peers without an address. None without it.",
    )
    .read_by(ReadBy::Api),
    Variable::with_default(
        "PROXY_HEADER",
        "x-forwarded-for",
        "The header in which trusted proxies say it: x-forwarded-for, or forwarded (RFC 7239).",
    )
    .read_by(ReadBy::Api),
    Variable::optional(
        "ALLOWED_HOSTS",
        "api.example.com,*.example.net",
        "The names under which the API may be asked (the header Host), comma-separated; any without it.",
    )
    .read_by(ReadBy::Api),
    Variable::optional(
        "GEO_DATABASE",
        "/var/lib/gantry/city.mmdb",
        "A file in MaxMind's format that says where addresses are, read anew when it changes; without it countries cannot be restricted and places are not shown.",
    )
    .read_by(ReadBy::Api),
    Variable::required(
        "OWNER_DATABASE_URL",
        "postgres://gantry:password@127.0.0.1:5432/gantry",
        "The owner of the database, for `gantry-api migrate` only.",
    )
    .secret()
    .read_by(ReadBy::Api),
    Variable::with_default(
        "QUEUES",
        "webhooks=200,default=20,provisioning=8,maintenance=2",
        "The queues this worker serves, no others, and how many jobs of each it runs at a time.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "MAIL_URL",
        "smtps://user:password@mail.example",
        "The mail server: smtps:// (TLS), smtp:// (STARTTLS), smtp://host?tls=none, or sandbox: for mail that reaches nobody. No mail is sent without it.",
    )
    .secret()
    .read_by(ReadBy::Worker),
    Variable::optional("MAIL_FROM", "Gantry <no-reply@cloud.example>", "From whom mail is: an address, or a name and an address in <>.")
        .read_by(ReadBy::Worker),
    Variable::optional(
        "SMS_URL",
        "https://ACCOUNT:TOKEN@api.twilio.com",
        "The account at Twilio for text messages, or sandbox: for messages that reach nobody. None are sent without it.",
    )
    .secret()
    .read_by(ReadBy::Worker),
    Variable::optional("SMS_FROM", "+15557650000", "From which number text messages are, or of which messaging service (MG…).")
        .read_by(ReadBy::Worker),
    Variable::optional(
        "TERRAFORM",
        "/usr/local/bin/terraform",
        "The program that makes servers: Terraform 1.5 or OpenTofu 1.6, or later; unset: terraform or tofu, whichever is found first in PATH.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "TERRAFORM_PLUGINS",
        "/usr/share/terraform/plugins",
        "A directory with Terraform's plugins, for workers that may not fetch them.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "PROVISIONING_DIRECTORY",
        "/var/lib/gantry/provisioning",
        "Where Terraform works, and where machines of the sandbox lie; unset: below the system's directory for what is temporary.",
    )
    .read_by(ReadBy::Worker),
    Variable::with_default(
        "TERRAFORM_ISOLATION",
        "auto",
        "Whether Terraform is confined to its directory: auto (by bubblewrap where it can make a sandbox, else as another user), required (by bubblewrap, or nothing is begun) or off. The sandbox's machines are not: they live on.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "TERRAFORM_USER",
        "60700-60899",
        "As whom Terraform runs where the worker is root: numbers from-to, of which each run has one of its own, a number, or a name of /etc/passwd; unset: 60700-60899.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "CLOUD_ENDPOINTS",
        "hetzner=https://hetzner.internal.example",
        "Clouds that are reached elsewhere than where they really are, with commas between them: by a proxy, or a server that stands in for one.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "SERVERS_ALLOW",
        "10.2.0.0/16,db.internal",
        "Machines inside the network that organizations may connect all the same: networks, addresses and hosts.",
    )
    .read_by(ReadBy::Worker),
    Variable::with_default(
        "SANDBOX_CLOUD",
        "false",
        "Whether servers may be made in the sandbox: OpenSSH servers on this machine's loopback, which run as the worker does.",
    )
    .read_by(ReadBy::Worker),
    Variable::with_default(
        "MODULES",
        "off",
        "Whether organizations may bring modules of their own for Terraform: on or off. Workers run them kept apart by bubblewrap.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "MODULE_PROVIDERS",
        "hashicorp/dns",
        "Plugins of Terraform that modules may use besides the cloud's own, random, null, tls, time and cloudinit, with commas between them.",
    )
    .read_by(ReadBy::Worker),
    Variable::optional(
        "MODULE_HOSTS",
        "git.internal.example",
        "Networks, addresses and hosts that modules may be fetched from, and their servers be at, though they are not public.",
    )
    .read_by(ReadBy::Worker),
];

/// With our prefix, but for other programs: callers of the API, and scripts of a checkout.
const OF_OTHERS: &[&str] = &["URL", "API_KEY", "OWNER_TCP_URL", "TEST_REDIS_URL"];

/// The variable of a name without the prefix.
pub(super) fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// Whether a name without the prefix is none of ours, although it looks like it: other programs' variables, and those
/// that Kubernetes adds for a service named gantry or gantry-something (`GANTRY_API_PORT_8080_TCP_ADDR`).
pub(super) fn is_of_others(name: &str, value: &str) -> bool {
    let words: Vec<_> = name.rsplit('_').collect();
    OF_OTHERS.contains(&name)
        || match words[..] {
            ["HOST" | "PORT", "SERVICE", ..] => true,
            ["ADDR" | "PORT" | "PROTO", "TCP" | "UDP", number, "PORT", ..] => number.parse::<u16>().is_ok(),
            ["PORT" | "TCP" | "UDP", ..] => value.starts_with("tcp://") || value.starts_with("udp://"),
            _ => name.contains("SERVICE_PORT_"),
        }
}

/// The known name nearest to an unknown one, if it is near.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    VARIABLES
        .iter()
        .map(|variable| (strsim::damerau_levenshtein(unknown, variable.name), variable.name))
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// What `--help` says about a program's variables.
pub fn help(program: Program) -> String {
    let mut text = format!(
        "Environment variables (or keys in the file that {PREFIX}CONFIG names: in lower case, without {PREFIX}).\n\
         A variable marked * may also be given as a file: <NAME>_FILE names one that holds the value.\n"
    );
    let reads = |variable: &&Variable| match variable.read_by {
        ReadBy::Both => true,
        ReadBy::Api => program == Program::Api,
        ReadBy::Worker => program == Program::Worker,
    };
    for variable in VARIABLES.iter().filter(reads) {
        let star = if variable.secret { " *" } else { "" };
        let default = match (variable.default_in(program), variable.default) {
            (Some(default), _) => format!(" [default: {default}]"),
            (None, Unset::Required) => " [required]".to_owned(),
            (None, _) => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {PREFIX}{}{star}\n      {}{default}\n", variable.name, variable.doc);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// name without prefix → (commented out, value)
    fn example() -> BTreeMap<&'static str, (bool, &'static str)> {
        let assignment = |line: &'static str| {
            let (commented, line) = line.strip_prefix('#').map_or((false, line), |rest| (true, rest));
            let (name, value) = line.strip_prefix(PREFIX)?.split_once('=')?;
            Some((name, (commented, value)))
        };
        include_str!("../../../.env.example").lines().filter_map(assignment).collect()
    }

    #[test]
    fn the_example_file_and_the_list_name_the_same_variables() {
        let in_list: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        let in_file: BTreeSet<_> = example()
            .into_keys()
            .filter(|name| name.strip_suffix("_FILE").and_then(find).is_none_or(|variable| !variable.secret))
            .collect();
        assert_eq!(in_file, in_list);
        assert_eq!(in_list.len(), VARIABLES.len(), "a name is there twice");
    }

    #[test]
    fn the_example_file_comments_out_what_is_optional_and_shows_its_default() {
        let example = example();
        for variable in VARIABLES {
            let (commented, value) = example[variable.name];
            assert_eq!(commented, variable.default != Unset::Required, "{}", variable.name);
            if let Some(default) = variable.default_in(Program::Api) {
                assert_eq!(value, default, "{}", variable.name);
            }
        }
    }

    #[test]
    fn help_names_what_the_program_reads_and_nothing_else() {
        let (api, worker) = (help(Program::Api), help(Program::Worker));
        assert!(api.contains("GANTRY_LISTEN\n      Where the API listens. [default: 127.0.0.1:8080]\n"), "{api}");
        assert!(api.contains("GANTRY_REDIS_URL *\n") && !api.contains("GANTRY_QUEUES"), "{api}");
        assert!(worker.contains("GANTRY_QUEUES") && !worker.contains("GANTRY_LISTEN"), "{worker}");
        assert!(worker.contains("[default: 127.0.0.1:9465]"), "{worker}");
    }

    #[test]
    fn what_kubernetes_adds_for_a_service_is_not_ours() {
        for (name, value) in [
            ("SERVICE_HOST", "10.0.0.7"),
            ("API_SERVICE_HOST", "10.0.0.7"),
            ("API_SERVICE_PORT", "8080"),
            ("API_SERVICE_PORT_HTTP", "8080"),
            ("PORT", "tcp://10.0.0.7:8080"),
            ("API_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
            ("API_PORT_8080_TCP_PROTO", "tcp"),
            ("API_PORT_8080_TCP_PORT", "8080"),
            ("API_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ] {
            assert!(is_of_others(name, value), "{name}");
        }
        assert!(!is_of_others("PORT", "8080"));
        assert!(!is_of_others("LISTN", "127.0.0.1:8080"));
    }
}
