//! What every sender of text messages does, whoever takes them.

use super::{LONGEST, SmsSender, Text};

/// The other side of a sender, as far as the suite directs it.
pub(super) trait Phone {
    /// How the next message is met.
    fn answer_next(&self, plan: Plan);
    /// All messages that were asked to be sent so far.
    fn received(&self) -> Vec<Received>;
}

/// How a message is met.
#[derive(Clone, Copy)]
pub(super) enum Plan {
    Take,
    /// With a status of HTTP, and the vendor's code.
    Refuse(u16, u32),
    Silence,
    HangUp,
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Received {
    pub(super) to: String,
    pub(super) body: String,
}

pub(super) fn text(id: &str) -> Text {
    Text {
        id: id.to_owned(),
        to: "+15551230000".to_owned(),
        body: "Ä code & more: 123456\n@acme.example #123456".to_owned(),
    }
}

/// Runs the whole contract against one sender.
pub(super) async fn suite(sender: &dyn SmsSender, phone: &dyn Phone) {
    phone.answer_next(Plan::Take);
    let taken = sender.send(&text("msg_first")).await.unwrap();
    assert!(!taken.reference.is_empty());
    let written = text("msg_first");
    assert_eq!(phone.received().pop(), Some(Received { to: written.to, body: written.body }));

    for (status, code, name, transient) in
        [(400, 21_610, "rejected", false), (429, 20_429, "put_off", true), (500, 20_500, "put_off", true)]
    {
        phone.answer_next(Plan::Refuse(status, code));
        let error = sender.send(&text("msg_refused")).await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (name, transient), "{}", error.explain());
        assert!(error.to_string().contains(&code.to_string()) && !error.explain().contains("+15551230000"));
    }
    for (plan, name) in [(Plan::Silence, "timeout"), (Plan::HangUp, "reset")] {
        phone.answer_next(plan);
        let error = sender.send(&text("msg_lost")).await.unwrap_err();
        assert!(error.is_transient() && error.code() == name, "{} {}", error.code(), error.explain());
    }

    let before = phone.received().len();
    for (bad, code) in [
        (Text { to: "5551230000".to_owned(), ..text("msg_bad") }, "21211"),
        (Text { to: "+1555123000x".to_owned(), ..text("msg_bad") }, "21211"),
        (Text { body: String::new(), ..text("msg_bad") }, "21602"),
        (Text { body: "x".repeat(LONGEST + 1), ..text("msg_bad") }, "21617"),
    ] {
        let error = sender.send(&bad).await.unwrap_err();
        assert!(error.code() == "rejected" && error.to_string().contains(code), "{error}");
    }
    assert_eq!(phone.received().len(), before);
    phone.answer_next(Plan::Take);
    assert!(sender.send(&text("msg_after")).await.is_ok());
}
