//! What was used under licenses, day by day, and signed statements of it.

use std::str::FromStr as _;

use gantry_schema::audit::keys::{self as signing, KeyError};
use gantry_schema::licenses::history::{self, Used, Wanted};
use gantry_schema::licenses::stated::{self, Stated};
use gantry_schema::organizations::needed::ReadUsage;
use gantry_schema::{LicenseId, LicenseStatementId, OrganizationId};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::app::App;
use crate::caller::May;
use crate::during::During;
use crate::error::Error;
use crate::example::example;
use crate::field::{Moment, Word};
use crate::once::{Answered, Once};
use crate::page::{Place, foreign};
use crate::paging::{Paged, Paging};
use crate::sort::Newest;
use crate::tag::Tag;

/// The operations on what was used under licenses.
#[derive(Debug, Clone, Copy)]
pub struct LicenseRecords;

/// The most there was of something on a day.
#[derive(Debug, Object)]
#[oai(example)]
struct LicenseUsage {
    /// When the day began, UTC.
    day: Moment,
    /// The license that was in force.
    license_id: LicenseId,
    /// Of what.
    name: String,
    /// How many there were at most, in the organization and below it.
    used: u64,
    /// How many there might be; absent: any number.
    #[oai(skip_serializing_if_is_none)]
    most: Option<u64>,
}

example!(LicenseUsage, {
    "day": "2026-01-15T00:00:00Z",
    "license_id": "lic_01h455vb4pex5vsknk084sn02q",
    "name": "users",
    "used": 7,
    "most": 10,
});

impl From<Used> for LicenseUsage {
    fn from(row: Used) -> Self {
        Self {
            day: row.day.and_time(chrono::NaiveTime::MIN).and_utc().into(),
            license_id: row.license,
            name: row.limit,
            used: row.used.unsigned_abs(),
            most: row.most.map(i64::unsigned_abs),
        }
    }
}

/// A signed statement of what was used.
#[derive(Debug, Object)]
#[oai(example)]
struct LicenseStatement {
    /// Its id.
    id: LicenseStatementId,
    /// Counts the organization's statements, from 1.
    number: i64,
    /// The statement: a PASETO v4.public token with the implicit assertion `gantry usage statement`.
    statement: String,
    /// Its SHA-256, which the next one names.
    sha256: String,
    /// When the first day began that it tells of, UTC.
    first_day: Moment,
    /// When the last one did, which was not over.
    last_day: Moment,
    /// When it was made.
    created_at: Moment,
}

example!(LicenseStatement, {
    "id": "lst_01h455vb4pex5vsknk084sn02q",
    "number": 1,
    "statement": "v4.public.eyJ2ZXIiOjEsIm51bSI6MX0.eyJraWQiOiJrNC5waWQuIn0",
    "sha256": "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    "first_day": "2026-01-01T00:00:00Z",
    "last_day": "2026-01-15T00:00:00Z",
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<Stated> for LicenseStatement {
    fn from(row: Stated) -> Self {
        let begins = |day: chrono::NaiveDate| Moment(day.and_time(chrono::NaiveTime::MIN).and_utc());
        Self {
            id: row.id,
            number: row.number,
            sha256: gantry_schema::digest::hex(&row.digest),
            statement: row.statement,
            first_day: begins(row.first_day),
            last_day: begins(row.last_day),
            created_at: row.made_at.into(),
        }
    }
}

/// A statement was made.
#[derive(ApiResponse)]
enum Made {
    /// It is kept as well.
    #[oai(status = 201)]
    Made(Json<LicenseStatement>),
}

#[OpenApi(tag = "Tag::Licenses")]
impl LicenseRecords {
    /// List what was used under licenses
    ///
    /// Of each day and limit the most there was, however short, newest first unless told otherwise. It is looked at every hour, and
    /// kept for two years.
    #[oai(path = "/organizations/:organization/license/usage", method = "get", operation_id = "listLicenseUsage")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the operation")]
    async fn usage(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        during: During,
        /// Only of this limit.
        name: Query<Option<Word>>,
        /// Only under this license.
        license_id: Query<Option<LicenseId>>,
        paging: Paging<Newest>,
    ) -> Result<Paged<LicenseUsage>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let wanted = Wanted {
            since: during.since,
            until: during.until,
            limit: name.0.map(String::from),
            license: license_id.0,
            after: paging.after(organization)?.as_ref().map(read_place).transpose()?,
        };
        let mut tx = app.db.tenant(organization).await?;
        let found = history::list(&mut tx, &wanted, paging.order(), paging.and_one()).await?;
        Ok(paging.page(organization, found, place_of, LicenseUsage::from))
    }

    /// State what was used
    ///
    /// Since the last statement, signed with the key that signs the record's checkpoints, for whoever cannot look: `gantry-api
    /// license statement verify` reads it without asking anybody. Each names the digest of the one before, so none can be left
    /// out or changed later. A statement begins with the last day of the one before, which was not over, and has at most
    /// 366 days; the newest 1000 are kept.
    #[oai(
        path = "/organizations/:organization/license/statements",
        method = "post",
        operation_id = "createLicenseStatement"
    )]
    async fn state(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        once: Once,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
    ) -> Result<Answered<Made>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let mut tx = app.db.tenant(OrganizationId::PLATFORM).await?;
        let key = signing::signing(&mut tx, &app.sealing).await.map_err(|error| match error {
            KeyError::Database(error) => error.into(),
            error @ KeyError::Seal(_) => Error::internal(error),
        })?;
        tx.commit().await?;
        once.run(&caller, organization, async |tx| {
            let made = stated::make(tx, &key).await?;
            tx.audit()
                .on(&made.id)
                .set("number", made.number)
                .set("sha256", gantry_schema::digest::hex(&made.digest))
                .set("first_day", made.first_day)
                .set("last_day", made.last_day);
            Ok(Made::Made(Json(made.into())))
        })
        .await
    }

    /// List statements of what was used
    ///
    /// Newest first unless told otherwise.
    #[oai(
        path = "/organizations/:organization/license/statements",
        method = "get",
        operation_id = "listLicenseStatements"
    )]
    async fn statements(
        &self,
        caller: May<ReadUsage>,
        app: Data<&App>,
        /// The organization: the caller's, or one below it.
        organization: Path<OrganizationId>,
        paging: Paging<Newest>,
    ) -> Result<Paged<LicenseStatement>, Error> {
        let organization = caller.may_for(&app.db, Some(organization.0)).await?;
        let window = paging.window(organization)?;
        let mut tx = app.db.tenant(organization).await?;
        let found = stated::page(&mut tx, window).await?;
        Ok(paging.page(organization, found, |found| Place::id(found.id), LicenseStatement::from))
    }
}

fn place_of(used: &Used) -> Place {
    Place::name(&format!("{} {} {}", used.day, used.license, used.limit))
}

fn read_place(place: &Place) -> Result<history::Place, Error> {
    let mut words = place.to_name()?.splitn(3, ' ');
    let mut word = || words.next().ok_or_else(foreign);
    let (day, license, limit) = (word()?, word()?, word()?);
    Ok(history::Place {
        day: chrono::NaiveDate::from_str(day).map_err(|_| foreign())?,
        license: license.parse().map_err(|_| foreign())?,
        limit: limit.to_owned(),
    })
}
