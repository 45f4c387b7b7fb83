//! Hands letters to a mail server (RFC 5321), over TLS unless told otherwise.

use std::{error::Error as StdError, io, str::FromStr as _, time::Duration};

use async_trait::async_trait;
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
        extension::ClientId,
    },
};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::{Accepted, Letter, MailSender};
use crate::{Error, Result, Secret, error::Cause};

/// How long connecting and the whole conversation may take.
const DEADLINE: Duration = Duration::from_secs(40);

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// It is begun in the clear and encrypted before anything is said (RFC 3207); a server that cannot is sent nothing.
    Starttls,
    /// TLS from the beginning (RFC 8314).
    Tls,
    /// Not at all: for a relay on the same machine.
    None,
}

/// A mail server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How connections to it are protected.
    pub security: Security,
    /// As whom to sign in.
    pub username: Option<String>,
    /// With what.
    pub password: Option<Secret>,
    /// From whom letters are: an address, or a name and an address in angle brackets.
    pub from: String,
    /// Certificates in PEM that are trusted beside the system's, for a server with a private authority.
    pub trusted_roots_pem: Option<String>,
    /// How long connecting and the whole conversation may take, in seconds.
    pub deadline_seconds: Option<u64>,
}

fn unusable(what: &str, source: impl Into<Cause>) -> Error {
    Error::Configuration { what: what.to_owned(), source: source.into() }
}

impl Config {
    pub(super) fn of_url(url: &Url, from: Option<&str>) -> Result<Self> {
        let wrong = |reason: &'static str| unusable("GANTRY_MAIL_URL", reason);
        let host = url.host_str().ok_or_else(|| wrong("it names no host"))?.to_owned();
        let asked = url.query_pairs().collect::<Vec<_>>();
        let security = match (url.scheme(), asked.as_slice()) {
            ("smtps", []) => Security::Tls,
            ("smtp", []) => Security::Starttls,
            ("smtp", [(name, value)]) if name == "tls" && value == "none" => Security::None,
            ("smtp" | "smtps", _) => return Err(wrong("the only parameter there is is tls=none, of smtp://")),
            _ => return Err(wrong("it begins with smtp://, smtps:// or sandbox:")),
        };
        let port = url.port().unwrap_or(if security == Security::Tls { 465 } else { 587 });
        let decoded = |text: &str| {
            let pair = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
            url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        let username = Some(url.username()).filter(|name| !name.is_empty()).and_then(decoded);
        let password = url.password().and_then(decoded).map(Secret::new);
        let from =
            from.ok_or_else(|| unusable("GANTRY_MAIL_FROM", "it is not set, and mail needs a sender"))?.to_owned();
        let config =
            Self { host, port, security, username, password, from, trusted_roots_pem: None, deadline_seconds: None };
        config.sender()?;
        Ok(config)
    }

    fn sender(&self) -> Result<Mailbox> {
        let wrong = |_| unusable("GANTRY_MAIL_FROM", "it is an address, or a name and an address in <>");
        Mailbox::from_str(&self.from).map_err(wrong)
    }

    fn tls(&self) -> Result<TlsParameters> {
        let wrong = |error: smtp::Error| unusable("the mail server's TLS", error);
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(pem) = &self.trusted_roots_pem {
            parameters = parameters.add_root_certificate(Certificate::from_pem(pem.as_bytes()).map_err(wrong)?);
        }
        parameters.build_rustls().map_err(wrong)
    }
}

/// Hands letters to one mail server, each over a connection of its own.
pub struct SmtpMail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    deadline: Duration,
}

impl SmtpMail {
    /// A sender by this server. Connects when it is first needed.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &Config) -> Result<Self> {
        let from = config.sender()?;
        let deadline = config.deadline_seconds.map_or(DEADLINE, Duration::from_secs);
        let tls = match config.security {
            Security::Starttls => Tls::Required(config.tls()?),
            Security::Tls => Tls::Wrapper(config.tls()?),
            Security::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&config.host)
            .port(config.port)
            .tls(tls)
            .timeout(Some(deadline))
            .hello_name(ClientId::Domain(from.email.domain().to_owned()));
        if let (Some(username), Some(password)) = (&config.username, &config.password) {
            builder = builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
        }
        Ok(Self { transport: builder.build(), from, deadline })
    }

    fn message(&self, letter: &Letter) -> Result<Message> {
        let address =
            |text: &str, header: &str| Address::from_str(text).map_err(|_| Error::InvalidHeader(header.to_owned()));
        let name = letter.from_name.clone().or_else(|| self.from.name.clone());
        let mut builder = Message::builder()
            .from(Mailbox::new(name, self.from.email.clone()))
            .to(Mailbox::new(None, address(&letter.to, "to")?))
            .subject(&letter.subject)
            .date(letter.written_at)
            .message_id(Some(format!("<{}@{}>", letter.id, self.from.email.domain())));
        if let Some(reply_to) = &letter.reply_to {
            builder = builder.reply_to(Mailbox::new(None, address(reply_to, "reply-to")?));
        }
        let parts = MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone());
        let mut message = builder.multipart(parts).map_err(|error| Error::Protocol(error.into()))?;
        // Programs that answer letters leave it alone (RFC 3834).
        let by_itself = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(by_itself, "auto-generated".to_owned()));
        Ok(message)
    }
}

#[async_trait]
impl MailSender for SmtpMail {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn send(&self, letter: &Letter) -> Result<Accepted> {
        letter.check()?;
        let message = self.message(letter)?;
        let sent = timeout(self.deadline, self.transport.send(message)).await;
        match sent.map_err(|_| Error::Timeout(self.deadline))? {
            Ok(answer) => {
                let said: String = answer.message().collect::<Vec<_>>().join(" ");
                Ok(Accepted {
                    reference: Some(said.chars().take(200).collect()).filter(|said: &String| !said.is_empty()),
                })
            }
            Err(error) => Err(self.classify(&error, &letter.to)),
        }
    }
}

impl SmtpMail {
    fn classify(&self, error: &smtp::Error, to: &str) -> Error {
        let reason = |error: &smtp::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
        if error.is_timeout() {
            return Error::Timeout(self.deadline);
        }
        if let Some(code) = error.status() {
            // Servers like to repeat the address, which is nobody's business but the letter's.
            let reason: String = reason(error).replace(to, "the address").chars().take(200).collect();
            let code = code.to_string();
            // Who we are is refused, not the letter: it can go when that is put right.
            let ours = matches!(code.as_str(), "530" | "534" | "535" | "538");
            return if error.is_permanent() && !ours {
                Error::Rejected { code, reason }
            } else {
                Error::PutOff { code, reason, wait: None }
            };
        }
        if error.is_tls() {
            return Error::Tls(reason(error).into());
        }
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<io::Error>() {
                return match cause.kind() {
                    io::ErrorKind::TimedOut => Error::Timeout(self.deadline),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        Error::Reset(cause.to_string().into())
                    }
                    io::ErrorKind::InvalidData => Error::Tls(cause.to_string().into()),
                    _ => Error::Connect(cause.to_string().into()),
                };
            }
            source = cause.source();
        }
        if error.is_response() {
            // What came before the connection ended.
            let reason = reason(error);
            let ended = reason.contains("incomplete");
            return if ended { Error::Reset(reason.into()) } else { Error::Protocol(reason.into()) };
        }
        // The client's own: a server without STARTTLS, without a way to sign in, or a connection that ended.
        Error::Connect(reason(error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{contract, testing::Server};

    fn config(server: &Server, security: Security) -> Config {
        Config {
            host: "localhost".to_owned(),
            port: server.port(),
            security,
            username: Some("gantry".to_owned()),
            password: Some(Secret::new("hunter2")),
            from: "Gantry <no-reply@cloud.example>".to_owned(),
            trusted_roots_pem: server.certificate(),
            deadline_seconds: Some(1),
        }
    }

    #[tokio::test]
    async fn smtp_keeps_the_contract_of_senders() {
        for security in [Security::None, Security::Starttls, Security::Tls] {
            let server = Server::start(security).await;
            let sender = SmtpMail::new(&config(&server, security)).unwrap();
            contract::suite(&sender, &server).await;
            assert_eq!(server.signed_in_as().as_deref(), Some("gantry:hunter2"));
            assert_eq!(server.was_encrypted(), security != Security::None);
        }
    }

    #[tokio::test]
    async fn a_server_that_cannot_encrypt_is_sent_nothing() {
        let server = Server::start(Security::None).await;
        let sender = SmtpMail::new(&config(&server, Security::Starttls)).unwrap();
        let error = sender.send(&contract::letter("msg_1")).await.unwrap_err();
        assert!(error.is_transient(), "{}", error.explain());
        assert!(server.signed_in_as().is_none() && contract::Mailbox::received(&server).is_empty());
    }

    #[tokio::test]
    async fn a_certificate_that_nobody_trusts_is_refused() {
        let server = Server::start(Security::Tls).await;
        let config = Config { trusted_roots_pem: None, ..config(&server, Security::Tls) };
        let error = SmtpMail::new(&config).unwrap().send(&contract::letter("msg_1")).await.unwrap_err();
        assert_eq!(error.code(), "tls", "{}", error.explain());
    }

    #[tokio::test]
    async fn a_wrong_password_is_ours_to_put_right() {
        let server = Server::start(Security::None).await;
        server.refuse_sign_in();
        let sender = SmtpMail::new(&config(&server, Security::None)).unwrap();
        let error = sender.send(&contract::letter("msg_1")).await.unwrap_err();
        assert!(error.code() == "put_off" && error.is_transient(), "{}", error.explain());
    }

    #[tokio::test]
    async fn nobody_listens() {
        let server = Server::start(Security::None).await;
        let mut config = config(&server, Security::None);
        config.port = 1;
        let error = SmtpMail::new(&config).unwrap().send(&contract::letter("msg_1")).await.unwrap_err();
        assert_eq!(error.code(), "connect", "{}", error.explain());
    }
}
