//! What every sender of webhooks does, whoever it delivers to.

use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::{HookRequest, HookSender, KEPT_BODY};

/// The other side of a sender, as far as the suite directs it.
pub(crate) trait Receiver {
    /// A URL that reaches the receiver.
    fn url(&self, path: &str) -> Url;
    /// How the next delivery that nothing was planned for is met. Without a plan it is answered with 200.
    fn answer_next(&self, plan: Plan);
    /// All deliveries so far.
    fn received(&self) -> Vec<Received>;
}

/// How a receiver meets a delivery.
pub(crate) enum Plan {
    Status(u16),
    Silence,
    HangUp,
}

/// A delivery as the receiver saw it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

/// Runs the whole contract against one sender.
pub(crate) async fn suite(sender: &dyn HookSender, receiver: &dyn Receiver) {
    the_delivery_arrives_as_it_was_given(sender, receiver).await;
    any_status_is_an_answer_and_a_redirect_is_not_followed(sender, receiver).await;
    silence_ends_at_the_deadline(sender, receiver).await;
    a_connection_that_ends_early_is_a_reset(sender, receiver).await;
    what_must_not_be_sent_is_refused_before_it_is(sender, receiver).await;
    a_failure_leaves_nothing_behind(sender, receiver).await;
}

async fn the_delivery_arrives_as_it_was_given(sender: &dyn HookSender, receiver: &dyn Receiver) {
    let body = Bytes::from_static(b"{\"type\":\"webhook.ping\"}\n\0\xff");
    let request = HookRequest::new(receiver.url("/inbox"), body.clone())
        .header("webhook-id", "msg_1")
        .header("x-twice", "one")
        .header("x-twice", "two");
    let answer = sender.send(request).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.is_success());
    assert!(answer.body.len() <= KEPT_BODY);

    let received = receiver.received().pop().unwrap();
    assert_eq!(received.path, "/inbox");
    assert_eq!(received.body, body);
    let all = |name: &str| {
        received.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(all("webhook-id"), ["msg_1"]);
    assert_eq!(all("x-twice"), ["one", "two"]);
}

async fn any_status_is_an_answer_and_a_redirect_is_not_followed(sender: &dyn HookSender, receiver: &dyn Receiver) {
    for status in [200, 204, 301, 302, 307, 400, 410, 429, 500, 503] {
        let before = receiver.received().len();
        receiver.answer_next(Plan::Status(status));
        let answer = sender.send(HookRequest::new(receiver.url("/"), "{}")).await.unwrap();
        assert_eq!(answer.status, status);
        assert_eq!(answer.is_success(), status < 300);
        assert_eq!(receiver.received().len(), before + 1);
    }
}

async fn silence_ends_at_the_deadline(sender: &dyn HookSender, receiver: &dyn Receiver) {
    receiver.answer_next(Plan::Silence);
    let request = HookRequest::new(receiver.url("/"), "{}").within(Duration::from_millis(200));
    let error = sender.send(request).await.unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert!(error.is_transient());
}

async fn a_connection_that_ends_early_is_a_reset(sender: &dyn HookSender, receiver: &dyn Receiver) {
    receiver.answer_next(Plan::HangUp);
    let error = sender.send(HookRequest::new(receiver.url("/"), "{}")).await.unwrap_err();
    assert_eq!(error.code(), "reset", "{}", error.explain());
    assert!(error.is_transient());
}

async fn what_must_not_be_sent_is_refused_before_it_is(sender: &dyn HookSender, receiver: &dyn Receiver) {
    let before = receiver.received().len();
    let mut with_password = receiver.url("/");
    with_password.set_password(Some("secret")).unwrap();
    let other_scheme = "ftp://hooks.example/".parse().unwrap();
    for url in [with_password, other_scheme] {
        let error = sender.send(HookRequest::new(url, "{}")).await.unwrap_err();
        assert_eq!(error.code(), "invalid_url");
        assert!(!error.is_transient());
    }
    for host in ["169.254.169.254", "[fe80::1]", "0xa9fea9fe"] {
        let url = format!("http://{host}/latest/meta-data").parse().unwrap();
        assert_eq!(sender.send(HookRequest::new(url, "{}")).await.unwrap_err().code(), "refused_address");
    }
    for (name, value) in [
        ("x-a", "1\r\nx-b: 2"),
        ("x a", "1"),
        ("", "1"),
        ("Host", "other"),
        ("Content-Length", "0"),
        ("transfer-encoding", "chunked"),
        ("Proxy-Authorization", "x"),
    ] {
        let request = HookRequest::new(receiver.url("/"), "{}").header(name, value);
        assert_eq!(sender.send(request).await.unwrap_err().code(), "invalid_header", "{name}");
    }
    assert_eq!(receiver.received().len(), before);
}

async fn a_failure_leaves_nothing_behind(sender: &dyn HookSender, receiver: &dyn Receiver) {
    receiver.answer_next(Plan::HangUp);
    assert!(sender.send(HookRequest::new(receiver.url("/"), "first")).await.is_err());
    assert!(sender.send(HookRequest::new(receiver.url("/"), "second")).await.unwrap().is_success());
    assert_eq!(receiver.received().pop().unwrap().body, "second");
}
