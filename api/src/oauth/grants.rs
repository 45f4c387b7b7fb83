//! What people let applications do: each sees and takes back his own, an organization that of its members.

use gantry_schema::memberships;
use gantry_schema::oauth::clients;
use gantry_schema::oauth::grants::{self as rows};
use gantry_schema::organizations::needed::{ManageOauthClients, ReadOauthClients};
use gantry_schema::{OauthClientId, OauthGrantId, OrganizationId, PersonId};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::app::App;
use crate::body::Body;
use crate::caller::{May, Me};
use crate::error::Error;
use crate::example::example;
use crate::field::Moment;
use crate::once::{Answered, Once};
use crate::page::Place;
use crate::paging::{Paged, Paging};
use crate::people::act;
use crate::sort::Newest;
use crate::tag::Tag;

/// What is shown to a person; nobody lets as many do something.
const MOST: i64 = 1_000;

/// The operations on what people let applications do.
#[derive(Debug, Clone, Copy)]
pub struct OauthGrants;

/// What a person lets an application do in one of his organizations.
#[derive(Debug, Object)]
#[oai(example)]
struct OauthGrant {
    /// Its id.
    id: OauthGrantId,
    /// Where.
    organization_id: OrganizationId,
    /// Which application.
    client_id: OauthClientId,
    /// What that is called.
    client_name: String,
    /// Where it is described.
    #[oai(skip_serializing_if_is_none)]
    client_homepage: Option<String>,
    /// Who lets it.
    person_id: PersonId,
    /// What: scopes, and what each means.
    scopes: Vec<GrantedScope>,
    /// Since when.
    created_at: Moment,
    /// When he last said so.
    updated_at: Moment,
}

/// Something that an application may do.
#[derive(Debug, Object)]
struct GrantedScope {
    /// The word.
    scope: String,
    /// What it means.
    description: String,
}

example!(OauthGrant, {
    "id": "ogr_01h455vb4pex5vsknk084sn02q",
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "client_id": "ocl_01h455vb4pex5vsknk084sn02q",
    "client_name": "Books",
    "client_homepage": "https://books.example/",
    "person_id": "usr_01h455vb4pex5vsknk084sn02q",
    "scopes": [{ "scope": "jobs:read", "description": "See jobs." }],
    "created_at": "2026-01-15T12:00:00Z",
    "updated_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Granted> for OauthGrant {
    fn from(row: rows::Granted) -> Self {
        let scope = |scope: gantry_schema::oauth::scope::Scope| GrantedScope {
            scope: scope.to_string(),
            description: scope.describe().to_owned(),
        };
        Self {
            id: row.id,
            organization_id: row.organization,
            client_id: row.client,
            client_name: row.client_name,
            client_homepage: row.client_homepage,
            person_id: row.person,
            scopes: row.scopes.iter().map(scope).collect(),
            created_at: row.created_at.into(),
            updated_at: row.updated_at.into(),
        }
    }
}

/// What the person lets applications do.
#[derive(Debug, Object)]
#[oai(example)]
struct OauthGrantList {
    /// Newest first; at most a thousand.
    items: Vec<OauthGrant>,
}

impl Example for OauthGrantList {
    fn example() -> Self {
        Self { items: vec![OauthGrant::example()] }
    }
}

/// Whose tokens are to be worth nothing.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct OauthGrantRevocation {
    /// Which application.
    client_id: OauthClientId,
    /// Who let it; left out: everybody.
    person_id: Option<PersonId>,
}

example!(OauthGrantRevocation, { "client_id": "ocl_01h455vb4pex5vsknk084sn02q" });

/// What was taken back.
#[derive(Debug, Object)]
#[oai(example)]
struct RevokedOauthGrants {
    /// How many people had let the application do something.
    count: u64,
}

example!(RevokedOauthGrants, { "count": 2 });

/// Something was taken back.
#[derive(ApiResponse)]
enum TakenBack {
    /// Whatever came of it stops working within a second.
    #[oai(status = 204)]
    TakenBack,
}

#[OpenApi(tag = "Tag::OauthClients")]
impl OauthGrants {
    /// List what I let applications do
    ///
    /// In all organizations of the person, newest first.
    #[oai(path = "/me/oauth-grants", method = "get", operation_id = "listMyOauthGrants")]
    async fn mine(&self, me: Me, app: Data<&App>) -> Result<Json<OauthGrantList>, Error> {
        let mut tx = app.db.person(me.person()).await?;
        let found = rows::of_person(&mut tx, MOST).await?;
        Ok(Json(OauthGrantList { items: found.into_iter().map(OauthGrant::from).collect() }))
    }

    /// Take back what I let an application do
    ///
    /// Its tokens for the person stop working within a second; it has to ask him again.
    #[oai(path = "/me/oauth-grants/:grant", method = "delete", operation_id = "revokeMyOauthGrant")]
    async fn take_back(
        &self,
        me: Me,
        app: Data<&App>,
        /// What he lets it do.
        grant: Path<OauthGrantId>,
    ) -> Result<TakenBack, Error> {
        act(&app, me.about(), me.person(), async |tx| {
            let taken_back = rows::take_back(tx, me.person(), grant.0).await?;
            taken_back.then_some(()).ok_or_else(|| Error::not_found(grant.0))
        })
        .await?;
        app.grantees.forget();
        Ok(TakenBack::TakenBack)
    }

    /// List what members let applications do
    ///
    /// In the organization, newest first unless told otherwise.
    #[oai(path = "/oauth-grants", method = "get", operation_id = "listOauthGrants")]
    async fn list(
        &self,
        caller: May<ReadOauthClients>,
        app: Data<&App>,
        /// Only to this application.
        client_id: Query<Option<OauthClientId>>,
        /// Only by this person.
        person_id: Query<Option<PersonId>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<OauthGrant>, Error> {
        let organization = caller.organization();
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = rows::list(&mut tx, client_id.0, person_id.0, window).await?;
        Ok(paging.page(organization, found, |grant| Place::id(grant.id), OauthGrant::from))
    }

    /// Take back what members let an application do
    ///
    /// In the organization, everybody or one of them. Its tokens stop working within a second; it has to ask again.
    ///
    /// Refused as `not_found` when the organization neither registered the application nor has a member who let it do
    /// something, and when the person is no member of it.
    #[oai(path = "/oauth-grants/revoke", method = "post", operation_id = "revokeOauthGrants")]
    async fn revoke(
        &self,
        caller: May<ManageOauthClients>,
        app: Data<&App>,
        once: Once,
        body: Body<OauthGrantRevocation>,
    ) -> Result<Answered<Json<RevokedOauthGrants>>, Error> {
        let (client, person) = (body.0.client_id, body.0.person_id);
        let revoke = once.run(&caller, caller.organization(), async |tx| {
            let count = rows::revoke(tx, client, person).await?;
            if count == 0 && clients::find(tx, client).await?.is_none() {
                return Err(Error::not_found(client).at("client_id"));
            }
            if let Some(person) = person.filter(|_| count == 0)
                && memberships::find(tx, person).await?.is_none()
            {
                return Err(Error::not_found(person).at("person_id"));
            }
            tx.audit().on(&client).set("count", count).set("person_id", person);
            Ok(Json(RevokedOauthGrants { count }))
        });
        let revoked = revoke.await?;
        app.grantees.forget();
        Ok(revoked)
    }
}
