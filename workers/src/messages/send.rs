use gantry_jobs::messages::SendMessage;
use gantry_providers::Error;
use gantry_providers::mail::Letter;
use gantry_providers::sms::Text;
use gantry_schema::messages::queries::{self, Message, MessageError};
use gantry_schema::messages::{Channel, Content, State};

use crate::{Context, Done, Failure, Run};

/// What senders that reach nobody are called; what they took can be read.
const SANDBOX: &str = "sandbox";

/// That a message was taken, and by whom.
struct Taken {
    provider: &'static str,
    reference: Option<String>,
}

impl Run for SendMessage {
    async fn run(&self, cx: &Context) -> Result<Done, Failure> {
        let mut tx = cx.begin().await?;
        let message = queries::find(&mut tx, cx.sealing_keys(), self.message).await.map_err(unreadable)?;
        // It was sent in an attempt whose end nobody heard of, or its organization was purged.
        let Some(message) = message.filter(|message| message.state == State::Queued) else {
            return cx.complete(tx).await;
        };
        let Some(content) = message.content.clone() else {
            queries::failed(&mut tx, message.id, "none", "there is nothing to send").await?;
            return cx.complete(tx).await;
        };
        if message.expires_at.is_some_and(|expires_at| expires_at <= cx.now()) {
            queries::failed(&mut tx, message.id, "none", "it came too late to be of use").await?;
            return cx.complete(tx).await;
        }
        // Nothing is held while others are waited for.
        tx.rollback().await?;
        match hand_over(cx, &message, content).await {
            Ok(Taken { provider, reference }) => {
                let mut tx = cx.begin().await?;
                queries::sent(&mut tx, message.id, provider, reference.as_deref(), provider == SANDBOX).await?;
                cx.complete(tx).await
            }
            Err(error) => {
                if !error.is_transient() || cx.is_last_attempt() {
                    let provider = provider_of(cx, message.channel);
                    let mut tx = cx.begin().await?;
                    queries::failed(&mut tx, message.id, provider, &error.explain()).await?;
                    tx.commit().await?;
                }
                Err(match error {
                    Error::PutOff { wait: Some(wait), .. } => Failure::RetryAfter(wait, error.into()),
                    error => error.into(),
                })
            }
        }
    }
}

fn provider_of(cx: &Context, channel: Channel) -> &'static str {
    match channel {
        Channel::Mail => cx.providers().mail.name(),
        Channel::Sms => cx.providers().sms.name(),
    }
}

async fn hand_over(cx: &Context, message: &Message, content: Content) -> Result<Taken, Error> {
    let id = message.id.to_string();
    let reference = match message.channel {
        Channel::Mail => {
            let letter = Letter {
                id,
                to: message.recipient.clone(),
                from_name: content.from_name,
                reply_to: content.reply_to,
                subject: content.subject.unwrap_or_default(),
                html: content.html.unwrap_or_default(),
                text: content.text,
                written_at: message.created_at.into(),
            };
            cx.providers().mail.send(&letter).await?.reference
        }
        Channel::Sms => {
            let text = Text { id, to: message.recipient.clone(), body: content.text };
            Some(cx.providers().sms.send(&text).await?.reference)
        }
    };
    Ok(Taken { provider: provider_of(cx, message.channel), reference })
}

fn unreadable(error: MessageError) -> Failure {
    match error {
        MessageError::Database(error) => error.into(),
        error => Failure::cancel(error),
    }
}
