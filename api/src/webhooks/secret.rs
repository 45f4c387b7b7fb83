//! Signing secrets on their way in and out.

use gantry_schema::webhooks::secrets as rows;
use gantry_schema::webhooks::signature::{Scheme, SigningSecret};
use gantry_schema::{EndpointId, JobTx as _, OrganizationId, SecretId, TenantTx};
use rand::RngExt as _;
use secrecy::ExposeSecret as _;

use super::answers::{Secret, SignatureVersion};
use crate::app::App;
use crate::error::Error;

/// The secret a caller brings, or a new one.
///
/// # Errors
/// When what he brings is none, or not for the version he asks for.
pub(super) fn choose(
    brought: Option<&str>,
    wanted: Option<SignatureVersion>,
    otherwise: SignatureVersion,
) -> Result<SigningSecret, Error> {
    let Some(text) = brought else {
        return Ok(SigningSecret::generate(wanted.unwrap_or(otherwise).into(), &rand::rng().random()));
    };
    let secret = SigningSecret::parse(text)
        .map_err(|error| Error::field("secret", format!("{error}; leave it out to have one made")))?;
    match wanted {
        Some(wanted) if Scheme::from(wanted) != secret.scheme() => {
            let detail = "v1 signs with a secret that begins with whsec_, v1a with one that begins with whsk_";
            Err(Error::field("signature", detail))
        }
        _ => Ok(secret),
    }
}

/// The row of a new secret.
///
/// # Errors
/// When it cannot be sealed.
pub(super) fn seal(
    app: &App,
    tx: &TenantTx,
    organization: OrganizationId,
    endpoint: EndpointId,
    secret: &SigningSecret,
) -> Result<rows::Secret, Error> {
    let id: SecretId = tx.ids().mint();
    Ok(rows::Secret {
        id,
        organization,
        endpoint,
        scheme: secret.scheme().as_str().to_owned(),
        secret: app.sealing.seal(&rows::Secret::place(organization, id), secret.bytes())?,
        created_at: tx.now(),
        expires_at: None,
    })
}

/// What is shown of a new secret, once: the secret itself where the receiver needs it, or the public key.
pub(super) fn shown(secret: &SigningSecret) -> (Option<String>, Option<String>) {
    match secret.scheme() {
        Scheme::V1 => (Some(secret.reveal().expose_secret().to_owned()), None),
        Scheme::V1a => (None, secret.public_key()),
    }
}

/// The version of the signatures a stored secret makes.
pub(super) fn version(row: &rows::Secret) -> SignatureVersion {
    match row.scheme.parse() {
        Ok(Scheme::V1a) => SignatureVersion::V1a,
        _ => SignatureVersion::V1,
    }
}

/// What is shown of stored secrets, any time.
///
/// # Errors
/// When one does not open.
pub(super) fn describe_all(app: &App, stored: &[rows::Secret]) -> Result<Vec<Secret>, Error> {
    stored.iter().map(|row| describe(app, row)).collect()
}

fn describe(app: &App, row: &rows::Secret) -> Result<Secret, Error> {
    let signature = version(row);
    let public_key = match signature {
        SignatureVersion::V1 => None,
        SignatureVersion::V1a => {
            let bytes = app.sealing.open(&rows::Secret::place(row.organization, row.id), &row.secret)?;
            SigningSecret::from_parts(Scheme::V1a, bytes.expose_secret()).ok().and_then(|secret| secret.public_key())
        }
    };
    Ok(Secret {
        id: row.id,
        signature,
        public_key,
        created_at: row.created_at.into(),
        expires_at: row.expires_at.map(Into::into),
    })
}

impl From<SignatureVersion> for Scheme {
    fn from(version: SignatureVersion) -> Self {
        match version {
            SignatureVersion::V1 => Self::V1,
            SignatureVersion::V1a => Self::V1a,
        }
    }
}
