//! Twilio's Messages resource: a form is posted, JSON comes back, refusals have a number.

use std::{error::Error as StdError, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Uri, header};
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::{Accepted, SmsSender, Text};
use crate::{
    Error, Result, Secret,
    error::Cause,
    http::{self, Client, System},
};

/// How long connecting, the answer's head and its body may take together.
const DEADLINE: Duration = Duration::from_secs(15);

/// What is read of an answer; they have about one KiB.
const LONGEST_ANSWER: usize = 64 * 1024;

/// An account at Twilio.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the API is, without a path.
    pub url: String,
    /// The account: `AC…`.
    pub account: String,
    /// Its token.
    pub token: Secret,
    /// From which number messages are, or of which messaging service (`MG…`).
    pub from: String,
    /// The time for one message, in seconds.
    pub deadline_seconds: Option<u64>,
}

fn unusable(what: &str, source: impl Into<Cause>) -> Error {
    Error::Configuration { what: what.to_owned(), source: source.into() }
}

impl Config {
    pub(super) fn of_url(url: &Url, from: Option<&str>) -> Result<Self> {
        let wrong = |reason: &'static str| unusable("GANTRY_SMS_URL", reason);
        let local = url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(wrong("it begins with https:// or sandbox:"));
        }
        let (account, token) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !plain(&account) || !plain(&token) {
            return Err(wrong("it has the account and its token before the host, as https://ACCOUNT:TOKEN@host"));
        }
        let from = from.ok_or_else(|| unusable("GANTRY_SMS_FROM", "it is not set, and messages need a sender"))?;
        let mut base = url.clone();
        base.set_path("");
        base.set_query(None);
        if base.set_username("").is_err() || base.set_password(None).is_err() {
            return Err(wrong("it names no host"));
        }
        let token = Secret::new(token);
        Ok(Self { url: base.to_string(), account, token, from: from.to_owned(), deadline_seconds: None })
    }
}

/// Sends by one account.
pub struct TwilioSms {
    client: Client<System>,
    uri: Uri,
    authorization: String,
    from: String,
    deadline: Duration,
}

/// What Twilio answers.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    sid: Option<String>,
    code: Option<u64>,
    message: Option<String>,
}

impl TwilioSms {
    /// A sender by this account.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &Config) -> Result<Self> {
        let Config { url, account, token, from, deadline_seconds } = config;
        let uri = format!("{}/2010-04-01/Accounts/{account}/Messages.json", url.trim_end_matches('/'));
        let uri = uri.parse().map_err(|error: hyper::http::uri::InvalidUri| unusable("GANTRY_SMS_URL", error))?;
        let client = http::client(System, Vec::new()).map_err(|source| unusable("the client of Twilio", source))?;
        let authorization = format!("Basic {}", STANDARD.encode(format!("{account}:{}", token.expose())));
        let deadline = deadline_seconds.map_or(DEADLINE, Duration::from_secs);
        Ok(Self { client, uri, authorization, from: from.clone(), deadline })
    }

    fn request(&self, text: &Text) -> Result<Request<Full<Bytes>>> {
        let from = if self.from.starts_with("MG") { "MessagingServiceSid" } else { "From" };
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("To", &text.to)
            .append_pair(from, &self.from)
            .append_pair("Body", &text.body)
            .finish();
        Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::USER_AGENT, http::USER_AGENT)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(form.into()))
            .map_err(|error| unusable("the client of Twilio", error))
    }

    async fn exchange(&self, text: &Text) -> Result<Accepted> {
        let answer = self.client.request(self.request(text)?).await.map_err(|error| {
            let reason = last(&error).into();
            if error.is_connect() { Error::Connect(reason) } else { Error::Reset(reason) }
        })?;
        let status = answer.status().as_u16();
        let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Error::Reset(last(&*error).into()))?.to_bytes();
        let read: Option<Answer> = serde_json::from_slice(&body).ok();
        match (status, read) {
            (200..300, Some(Answer { sid: Some(sid), .. })) => Ok(Accepted { reference: sid }),
            (200..300, _) => Err(Error::Protocol("the answer does not say what was made".into())),
            (status, read) => Err(refusal(status, read.unwrap_or_default(), wait, &text.to)),
        }
    }
}

/// What a refusal means: whether the message is at fault or the account, and whether it may be tried again.
fn refusal(status: u16, answer: Answer, wait: Option<u64>, to: &str) -> Error {
    let code = answer.code.map_or_else(|| format!("HTTP {status}"), |code| code.to_string());
    let said = answer.message.unwrap_or_else(|| "no reason was given".to_owned());
    let reason: String = said.replace(to, "the number").chars().take(200).collect();
    // 400 and 404 are about the message. Who we are, how fast we are and how the vendor is can be put right.
    match (status, answer.code) {
        // The account is not found, not permitted or suspended: as wrong as a wrong token.
        (400 | 404, code_) if !matches!(code_, Some(20_003 | 20_404 | 20_429 | 14_107)) => {
            Error::Rejected { code, reason }
        }
        _ => Error::PutOff { code, reason, wait: wait.map(|seconds| Duration::from_secs(seconds.min(3_600))) },
    }
}

fn last(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

#[async_trait]
impl SmsSender for TwilioSms {
    fn name(&self) -> &'static str {
        "twilio"
    }

    async fn send(&self, text: &Text) -> Result<Accepted> {
        text.check()?;
        timeout(self.deadline, self.exchange(text)).await.map_err(|_| Error::Timeout(self.deadline))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::testing::{Reply, Server};
    use crate::sms::contract::{self, Phone, Plan, Received};

    fn json(status: u16, body: &str) -> Reply {
        let head =
            format!("HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        Reply::Send(format!("{head}\r\n\r\n{body}").into_bytes())
    }

    const TAKEN: &str = r#"{"sid":"SM0123456789abcdef0123456789abcdef","status":"queued","error_code":null}"#;

    impl Phone for Server {
        fn answer_next(&self, plan: Plan) {
            self.reply_next(match plan {
                Plan::Take => json(201, TAKEN),
                Plan::Refuse(status, code) => {
                    json(status, &format!(r#"{{"code":{code},"message":"no: +15551230000","status":{status}}}"#))
                }
                Plan::Silence => Reply::Silence,
                Plan::HangUp => Reply::SendAndClose(b"HTTP/1.1 201 Created\r\ncontent-".to_vec()),
            });
        }

        fn received(&self) -> Vec<Received> {
            let all = crate::hooks::contract::Receiver::received(self);
            let read = all.into_iter().map(|request| {
                let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
                let field =
                    |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap();
                assert_eq!(request.path, "/2010-04-01/Accounts/AC0123/Messages.json");
                assert_eq!(field("From"), "+15557650000");
                let header = |name: &str| request.headers.iter().find(|(key, _)| key == name).unwrap().1.clone();
                assert_eq!(header("authorization"), "Basic QUMwMTIzOnRva2Vu");
                assert_eq!(header("content-type"), "application/x-www-form-urlencoded");
                Received { to: field("To"), body: field("Body") }
            });
            read.collect()
        }
    }

    fn sender(server: &Server) -> TwilioSms {
        let url = format!("http://AC0123:token@127.0.0.1:{}", server.address.port()).parse().unwrap();
        let config = Config::of_url(&url, Some("+15557650000")).unwrap();
        TwilioSms::new(&Config { deadline_seconds: Some(1), ..config }).unwrap()
    }

    #[tokio::test]
    async fn twilio_keeps_the_contract_of_senders() {
        let server = Server::start().await;
        contract::suite(&sender(&server), &server).await;
    }

    #[tokio::test]
    async fn what_is_ours_to_put_right_is_tried_again() {
        let server = Server::start().await;
        for (status, code) in [(401, 20_003), (429, 20_429), (503, 20_503), (400, 14_107)] {
            Phone::answer_next(&server, Plan::Refuse(status, code));
            let error = sender(&server).send(&contract::text("msg_1")).await.unwrap_err();
            assert!(error.is_transient() && error.code() == "put_off", "{status} {code}");
        }
        server.reply_next(json(502, "<html>bad gateway</html>"));
        let error = sender(&server).send(&contract::text("msg_1")).await.unwrap_err();
        assert!(error.to_string().contains("HTTP 502") && error.is_transient());
        server.reply_next(json(201, "{}"));
        assert_eq!(sender(&server).send(&contract::text("msg_1")).await.unwrap_err().code(), "protocol");
    }

    #[test]
    fn an_account_is_said_in_one_line() {
        let read = |url: &str| Config::of_url(&url.parse().unwrap(), Some("MG7"));
        let config = read("https://AC1:t0ken@api.twilio.com/").unwrap();
        assert_eq!((config.account.as_str(), config.url.as_str()), ("AC1", "https://api.twilio.com/"));
        assert!(!format!("{config:?}").contains("t0ken"));
        for bad in
            ["http://AC1:token@api.twilio.com", "https://api.twilio.com", "https://AC1@api.twilio.com", "smtp://a"]
        {
            assert_eq!(read(bad).unwrap_err().code(), "configuration", "{bad}");
        }
        assert!(Config::of_url(&"https://AC1:token@api.twilio.com".parse().unwrap(), None).is_err());
    }
}
