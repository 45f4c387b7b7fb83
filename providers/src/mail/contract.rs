//! What every sender of mail does, whoever takes it.

use std::time::{Duration, SystemTime};

use super::{Letter, MailSender};

/// The other side of a sender, as far as the suite directs it.
pub(super) trait Mailbox {
    /// How the next letter that nothing was planned for is met. Without a plan it is taken.
    fn answer_next(&self, plan: Plan);
    /// All letters that were taken so far.
    fn received(&self) -> Vec<Received>;
}

/// How a mailbox meets a letter.
pub(super) enum Plan {
    Code(u16),
    Silence,
    HangUp,
}

/// A letter as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) to: String,
    pub(super) message_id: String,
    pub(super) subject: String,
    pub(super) parts: Vec<String>,
}

pub(super) fn letter(id: &str) -> Letter {
    Letter {
        id: id.to_owned(),
        to: "ada@example.com".to_owned(),
        from_name: Some("Acme Ä".to_owned()),
        reply_to: Some("help@acme.example".to_owned()),
        subject: "Grüße from Acme".to_owned(),
        text: "Read this: https://cloud.example/account?token=abc\n\n.A line that begins with a dot, and an ä.\n"
            .to_owned(),
        html: "<p>Read <a href=\"https://cloud.example/account?token=abc\">this</a>, ä.</p>".to_owned(),
        written_at: SystemTime::UNIX_EPOCH + Duration::from_hours(490_896),
    }
}

/// Runs the whole contract against one sender.
pub(super) async fn suite(sender: &dyn MailSender, mailbox: &dyn Mailbox) {
    a_letter_arrives_as_it_was_written(sender, mailbox).await;
    what_is_refused_for_good_and_for_now_is_told_apart(sender, mailbox).await;
    silence_and_hanging_up_are_no_acceptance(sender, mailbox).await;
    what_would_end_a_header_is_refused_before_anything_is_sent(sender, mailbox).await;
}

async fn a_letter_arrives_as_it_was_written(sender: &dyn MailSender, mailbox: &dyn Mailbox) {
    sender.send(&letter("msg_first")).await.unwrap();
    let received = mailbox.received().pop().unwrap();
    assert_eq!(received.to, "ada@example.com");
    assert!(received.message_id.contains("msg_first"), "{received:?}");
    assert_eq!(received.subject, "Grüße from Acme");
    let written = letter("msg_first");
    assert_eq!(received.parts.len(), 2);
    assert_eq!(received.parts[0].trim_end(), written.text.trim_end());
    assert_eq!(received.parts[1].trim_end(), written.html.trim_end());
}

async fn what_is_refused_for_good_and_for_now_is_told_apart(sender: &dyn MailSender, mailbox: &dyn Mailbox) {
    let before = mailbox.received().len();
    for (code, name, transient) in [(550, "rejected", false), (451, "put_off", true), (552, "rejected", false)] {
        mailbox.answer_next(Plan::Code(code));
        let error = sender.send(&letter("msg_refused")).await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (name, transient), "{}", error.explain());
        assert!(error.to_string().contains(&code.to_string()));
        assert!(!error.explain().contains("ada@example.com"), "{}", error.explain());
    }
    assert_eq!(mailbox.received().len(), before);
    sender.send(&letter("msg_after")).await.unwrap();
    assert_eq!(mailbox.received().len(), before + 1);
}

async fn silence_and_hanging_up_are_no_acceptance(sender: &dyn MailSender, mailbox: &dyn Mailbox) {
    for (plan, name) in [(Plan::Silence, "timeout"), (Plan::HangUp, "reset")] {
        mailbox.answer_next(plan);
        let error = sender.send(&letter("msg_lost")).await.unwrap_err();
        assert!(error.is_transient() && error.code() == name, "{} {}", error.code(), error.explain());
    }
}

async fn what_would_end_a_header_is_refused_before_anything_is_sent(sender: &dyn MailSender, mailbox: &dyn Mailbox) {
    let before = mailbox.received().len();
    let injected = "x\r\nBcc: everybody@example.com";
    for bad in [
        Letter { subject: injected.to_owned(), ..letter("msg_bad") },
        Letter { to: format!("ada@example.com{injected}"), ..letter("msg_bad") },
        Letter { from_name: Some(injected.to_owned()), ..letter("msg_bad") },
        Letter { reply_to: Some(injected.to_owned()), ..letter("msg_bad") },
        letter(injected),
    ] {
        assert_eq!(sender.send(&bad).await.unwrap_err().code(), "invalid_header");
    }
    assert_eq!(mailbox.received().len(), before);
}
