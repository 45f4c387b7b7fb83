//! What people are entitled to: a copy of what is known of them (GDPR, Art. 15 and 20), and to be forgotten (Art. 17). Both are
//! jobs, and of both there is a signed receipt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_jobs::personal::{ErasePerson, ExportPerson};
use gantry_jobs::{By, Job as _};
use gantry_schema::audit::keys;
use gantry_schema::audit::receipts::Receipt as Signed;
use gantry_schema::messages::templates;
use gantry_schema::people as rows;
use gantry_schema::personal::{erasing, erasures, exports};
use gantry_schema::sessions::{self, Ended};
use gantry_schema::{AuditKeyId, ErasureId, ExportId, JobId, OrganizationId, PersonId};
use poem::http::{StatusCode, header};
use poem::web::Data;
use poem::{IntoResponse, Response};
use poem_openapi::param::Path;
use poem_openapi::payload::Json;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Enum, Object, OpenApi};
use serde_json::json;

use crate::accounts::tell;
use crate::app::App;
use crate::caller::Me;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::Moment;
use crate::people::{act, moment};
use crate::tag::Tag;

/// Organizations that a refusal names.
const NAMED: usize = 5;

/// The operations of people on what is known of them.
#[derive(Debug, Clone, Copy)]
pub struct PersonalData;

/// A statement that the installation signed. Whoever has it can show it to anybody.
#[derive(Debug, Object)]
#[oai(rename = "SignedReceipt", example)]
struct Receipt {
    /// The text that was signed; its first line says what it is of.
    statement: String,
    /// The key that signed it: `GET /audit-keys` lists it.
    key_id: AuditKeyId,
    /// Its public half: Ed25519 (RFC 8032), in base64.
    public_key: String,
    /// The signature of the statement, in base64.
    signature: String,
}

example!(Receipt, {
    "statement": "gantry erasure 1\nera_01h455vb4pex5vsknk084sn02q\nusr_01h455vb4pex5vsknk084sn02q\n2026-01-15T12:00:00Z\n2026-01-15T12:00:02Z\norg_01h455vb4pex5vsknk084sn02q\n",
    "key_id": "auk_01h455vb4pex5vsknk084sn02q",
    "public_key": "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=",
    "signature": "Ya1LNlVOiG8bEJ4Qy0LWJwYqgj3SpZbR9lYdrWPt5S5Rk0dZJz7LnS1vLw0m1f1KRjxT0cVJ3TwP5Q9zq3yqDA==",
});

impl From<Signed> for Receipt {
    fn from(signed: Signed) -> Self {
        Self {
            statement: signed.statement,
            key_id: signed.key,
            public_key: STANDARD.encode(signed.public_key),
            signature: STANDARD.encode(signed.signature),
        }
    }
}

/// A copy of what is known of somebody.
#[derive(Debug, Object)]
#[oai(example)]
struct PersonalExport {
    /// Its id.
    id: ExportId,
    /// The job that makes it.
    job_id: JobId,
    /// When it was asked for.
    asked_at: Moment,
    /// Until when it can be fetched.
    expires_at: Moment,
    /// When it was made; left out: it is being made.
    #[oai(skip_serializing_if_is_none)]
    made_at: Option<Moment>,
    /// Its length.
    #[oai(skip_serializing_if_is_none)]
    bytes: Option<i64>,
    /// Signed: its id, whose it is, the SHA-256 and the length of it, and when it was made, each in a line.
    #[oai(skip_serializing_if_is_none)]
    receipt: Option<Receipt>,
}

impl Example for PersonalExport {
    fn example() -> Self {
        let id = uuid::uuid!("01890a5d-ac96-774b-bcce-b302099a8057");
        let at: Moment = crate::example::read(json!("2026-01-15T12:00:00Z"));
        Self {
            id: ExportId::from_uuid(id),
            job_id: JobId::from_uuid(id),
            asked_at: at,
            expires_at: crate::example::read(json!("2026-01-22T12:00:00Z")),
            made_at: None,
            bytes: None,
            receipt: None,
        }
    }
}

impl From<exports::Export> for PersonalExport {
    fn from(row: exports::Export) -> Self {
        let (made_at, bytes, receipt) = match row.made {
            Some(made) => (Some(made.at.into()), Some(made.bytes), Some(made.receipt.into())),
            None => (None, None, None),
        };
        Self {
            id: row.id,
            job_id: row.job,
            asked_at: row.asked_at.into(),
            expires_at: row.expires_at.into(),
            made_at,
            bytes,
            receipt,
        }
    }
}

/// What became of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
enum ErasureState {
    /// It is being done.
    Pending,
    /// Meanwhile he had become the last owner of an organization, and nothing was done.
    Refused,
    /// Nothing of him is left.
    Done,
}

impl From<erasures::State> for ErasureState {
    fn from(state: erasures::State) -> Self {
        match state {
            erasures::State::Pending => Self::Pending,
            erasures::State::Refused => Self::Refused,
            erasures::State::Done => Self::Done,
        }
    }
}

/// That somebody is to be forgotten.
#[derive(Debug, Object)]
#[oai(example)]
struct Erasure {
    /// Its id.
    id: ErasureId,
    /// Who. Of somebody who was forgotten nothing but this id is left.
    person_id: PersonId,
    /// The job that does it.
    job_id: JobId,
    /// When he asked for it.
    asked_at: Moment,
    /// What became of it.
    state: ErasureState,
    /// When.
    #[oai(skip_serializing_if_is_none)]
    ended_at: Option<Moment>,
    /// The certificate, when it was done: its id, who, when he asked, when it was done, and the organizations in whose records his
    /// key was shredded, each in a line.
    #[oai(skip_serializing_if_is_none)]
    certificate: Option<Receipt>,
}

impl Example for Erasure {
    fn example() -> Self {
        let id = uuid::uuid!("01890a5d-ac96-774b-bcce-b302099a8057");
        Self {
            id: ErasureId::from_uuid(id),
            person_id: PersonId::from_uuid(id),
            job_id: JobId::from_uuid(id),
            asked_at: crate::example::read(json!("2026-01-15T12:00:00Z")),
            state: ErasureState::Pending,
            ended_at: None,
            certificate: None,
        }
    }
}

impl From<erasures::Erasure> for Erasure {
    fn from(row: erasures::Erasure) -> Self {
        Self {
            id: row.id,
            person_id: row.person,
            job_id: row.job,
            asked_at: row.asked_at.into(),
            state: row.state.into(),
            ended_at: row.ended_at.map(Into::into),
            certificate: row.certificate.map(Into::into),
        }
    }
}

/// A public key that signs checkpoints of records, and receipts.
#[derive(Debug, Object)]
#[oai(example)]
struct AuditKey {
    /// Its id.
    id: AuditKeyId,
    /// Ed25519 (RFC 8032), in base64.
    public_key: String,
}

example!(AuditKey, {
    "id": "auk_01h455vb4pex5vsknk084sn02q",
    "public_key": "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=",
});

/// What the installation signs with.
#[derive(Debug, Object)]
struct AuditKeyList {
    /// Every key that it has, or had.
    items: Vec<AuditKey>,
}

/// A copy was asked for.
#[derive(ApiResponse)]
enum ExportAsked {
    /// It is being made.
    #[oai(status = 202)]
    Accepted(
        Json<PersonalExport>,
        /// Where to look for it.
        #[oai(header = "Location")]
        String,
    ),
}

/// Somebody is to be forgotten.
#[derive(ApiResponse)]
enum ErasureAsked {
    /// It is being done, and his sessions have ended.
    #[oai(status = 202)]
    Accepted(
        Json<Erasure>,
        /// Where anybody who knows this can look what became of it.
        #[oai(header = "Location")]
        String,
    ),
}

/// The copy itself.
struct Content {
    id: ExportId,
    bytes: Vec<u8>,
}

impl IntoResponse for Content {
    fn into_response(self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.json\"", self.id))
            .header(header::CACHE_CONTROL, "no-store")
            .body(self.bytes)
    }
}

impl ApiResponse for Content {
    fn meta() -> MetaResponses {
        let mut schema = MetaSchema::new("object");
        schema.example = Some(json!({ "format": "gantry personal export 1", "person": { "name": "Ada Lovelace" } }));
        MetaResponses {
            responses: vec![MetaResponse {
                description: "Everything that is known of him.",
                status: Some(StatusCode::OK.as_u16()),
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/json",
                    schema: MetaSchemaRef::Inline(Box::new(schema)),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(_: &mut Registry) {}
}

#[OpenApi(tag = "Tag::People")]
impl PersonalData {
    /// Ask for a copy of what is known of me
    ///
    /// Everything (GDPR, Art. 15 and 20), as JSON: the account, memberships, invitations, sessions, sign-ins, second factors
    /// without what they prove, applications that act for him, API keys and what was called, what was written to him, and what was
    /// recorded of him in every organization. A job makes it; it can be fetched for seven days. There is one: another takes its
    /// place, and while one is being made that one is answered. Needs a proof of the last minutes of who one is.
    ///
    /// Refused as `insufficient_user_authentication` when that proof is older.
    #[oai(path = "/me/export", method = "post", operation_id = "exportMe")]
    async fn export(&self, me: Me, app: Data<&App>) -> Result<ExportAsked, Error> {
        me.proven_lately(app.db.now())?;
        let person = me.person();
        let asked = act(&app, me.about(), person, async |tx| {
            let before = exports::latest(tx, person).await?.filter(|before| before.made.is_none());
            let id: ExportId = before.as_ref().map_or_else(|| app.db.ids().mint(), |before| before.id);
            tx.audit().on(&id);
            // The one that makes it, unless that was given up.
            let job = ExportPerson { export: id, person }.request().enqueue(tx, &By::person(person)).await?;
            match before {
                Some(before) => Ok(before),
                None => Ok(exports::ask(tx, person, id, job.id).await?),
            }
        });
        Ok(ExportAsked::Accepted(Json(asked.await?.into()), "/me/export".to_owned()))
    }

    /// Get the copy of what is known of me
    ///
    /// Whether it was made, until when it can be fetched with `GET /me/export/data`, and the receipt.
    ///
    /// Refused as `not_found` when none was asked for in the last seven days.
    #[oai(path = "/me/export", method = "get", operation_id = "getMyExport")]
    async fn exported(&self, me: Me, app: Data<&App>) -> Result<Json<PersonalExport>, Error> {
        Ok(Json(latest(&app, &me).await?.into()))
    }

    /// Fetch the copy of what is known of me
    ///
    /// JSON. Needs a proof of the last minutes of who one is.
    ///
    /// Refused as `insufficient_user_authentication` when that proof is older, as `wrong_state` while it is being made, as
    /// `not_found` when none was asked for in the last seven days.
    #[oai(path = "/me/export/data", method = "get", operation_id = "downloadMyExport")]
    async fn download(&self, me: Me, app: Data<&App>) -> Result<Content, Error> {
        me.proven_lately(app.db.now())?;
        let id = latest(&app, &me).await?.id;
        let mut tx = app.db.person(me.person()).await?;
        let bytes =
            exports::content(&mut tx, &app.sealing, me.person(), id).await.map_err(|trouble| match trouble {
                exports::ExportError::Database(trouble) => trouble.into(),
                other @ exports::ExportError::Seal(_) => Error::internal(other),
            })?;
        let bytes =
            bytes.ok_or_else(|| Error::new(Code::WrongState, "it is being made; look again in a few seconds"))?;
        Ok(Content { id, bytes })
    }

    /// Have me forgotten
    ///
    /// All that is known of the person is erased (GDPR, Art. 17), and cannot be had back: the account, memberships, second
    /// factors, sign-ins, messages and applications that act for him are removed, his API keys are revoked, and the keys are
    /// shredded under which records hold what identifies him: entries stay, and say nothing of who he was. His organizations are
    /// told. A job does it; every session of his ends at once. What became of it, and the signed certificate, is at
    /// `GET /erasures/{erasure}` for whoever knows its id. Needs a proof of the last minutes of who one is.
    ///
    /// Refused as `last_owner` while he is the last owner of an organization, which `detail` names: make somebody else one, or
    /// delete it; as `insufficient_user_authentication` when that proof is older.
    #[oai(path = "/me/erasure", method = "post", operation_id = "eraseMe")]
    async fn erase(&self, me: Me, app: Data<&App>) -> Result<ErasureAsked, Error> {
        me.proven_lately(app.db.now())?;
        let person = me.person();
        refuse_last_owner(&app, person).await?;
        let asked = act(&app, me.about(), person, async |tx| {
            let before = erasures::pending(tx, person).await?;
            let id: ErasureId = before.as_ref().map_or_else(|| app.db.ids().mint(), |before| before.id);
            tx.audit().on(&id);
            let found = rows::find(tx, person).await?.ok_or_else(|| Error::not_found(person))?;
            let when = moment(&app);
            let letter = |brand: &_| templates::erasure_begun(brand, &id.to_string(), &when);
            tell(&app, tx, "erasure_begun", &found.email, letter).await?;
            // The one that does it, unless that was given up.
            let job = ErasePerson { erasure: id, person }.request().enqueue(tx, &By::person(person)).await?;
            sessions::end_others(tx, person, None, Ended::Erased).await?;
            match before {
                Some(before) => Ok(before),
                None => Ok(erasures::ask(tx, person, id, job.id).await?),
            }
        });
        let asked = asked.await?;
        app.sessions.forget();
        let location = format!("/erasures/{}", asked.id);
        Ok(ErasureAsked::Accepted(Json(asked.into()), location))
    }

    /// Get what became of an erasure
    ///
    /// For whoever knows its id, and whoever he showed it to: there is nobody left who could sign in and look.
    #[oai(path = "/erasures/:erasure", method = "get", operation_id = "getErasure")]
    async fn erasure(
        &self,
        app: Data<&App>,
        /// The erasure.
        erasure: Path<ErasureId>,
    ) -> Result<Json<Erasure>, Error> {
        let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
        let found = erasures::find(&mut tx, erasure.0).await?.ok_or_else(|| Error::not_found(erasure.0))?;
        Ok(Json(found.into()))
    }

    /// List the keys that sign
    ///
    /// The public keys of the installation with which checkpoints of records and receipts are signed, so that anybody can verify
    /// what he was shown.
    #[oai(path = "/audit-keys", method = "get", operation_id = "listAuditKeys")]
    async fn keys(&self, app: Data<&App>) -> Result<Json<AuditKeyList>, Error> {
        let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
        let mut found: Vec<_> = keys::believed(&mut tx, &app.sealing).await?.into_iter().collect();
        found.sort_unstable();
        let key = |(id, public): (AuditKeyId, Vec<u8>)| AuditKey { id, public_key: STANDARD.encode(public) };
        Ok(Json(AuditKeyList { items: found.into_iter().map(key).collect() }))
    }
}

async fn latest(app: &App, me: &Me) -> Result<exports::Export, Error> {
    let found = exports::latest(&mut app.db.person(me.person()).await?, me.person()).await?;
    found.ok_or_else(|| {
        Error::new(Code::NotFound, "there is no copy; ask for one with POST /me/export: it is kept for seven days")
    })
}

/// Refuses to forget somebody without whom an organization would have no owner.
async fn refuse_last_owner(app: &App, person: PersonId) -> Result<(), Error> {
    let mut tx = app.db.person(person).await?;
    let owned = gantry_schema::memberships::of_person(&mut tx, None, 1_000).await?.into_iter();
    let owned: Vec<_> = owned.filter(|member| member.role == gantry_schema::memberships::Role::Owner).collect();
    drop(tx);
    let mut last = Vec::new();
    for membership in owned {
        let mut tx = app.db.tenant_for(membership.organization, person).await?;
        if erasing::is_last_owner(&mut tx, person).await? {
            last.push(membership.organization.to_string());
        }
        if last.len() == NAMED {
            break;
        }
    }
    if last.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "you are the last owner of {}; make somebody else an owner there, or delete it, and then ask again",
        last.join(", ")
    );
    Err(Error::new(Code::LastOwner, detail))
}
