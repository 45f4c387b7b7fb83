//! People, about themselves: who they are, where they belong, and their password.

mod hashing;

use gantry_schema::memberships;
use gantry_schema::messages::templates;
use gantry_schema::people::rules::{self, Weak, Whose};
use gantry_schema::people::{self as rows, Email, PersonChange, Typed, one_time, passwords};
use gantry_schema::sessions::{self, Ended};
use gantry_schema::{OrganizationId, PersonId, TenantTx};
use poem::web::Data;
use poem_openapi::payload::Json;
use poem_openapi::{ApiResponse, Object, OpenApi};
use serde::Deserialize;

use crate::accounts::tell;
use crate::app::App;
use crate::audit::about::About;
use crate::body::Body;
use crate::caller::Me;
use crate::error::{Code, Error};
use crate::example::example;
use crate::field::{Locale, Moment, Name, Secret};
use crate::sessions::verify_own;
use crate::tag::Tag;

pub(crate) use hashing::Passwords;

/// Memberships that are shown; nobody has as many.
const MOST_MEMBERSHIPS: i64 = 1_000;

/// The operations of people on themselves.
#[derive(Debug, Clone, Copy)]
pub struct People;

/// Does something to a person's own account, in one transaction of the platform's own organization that acts for him, and
/// records it there. Whatever people do to their accounts goes through here.
pub(crate) async fn act<T>(
    app: &App,
    about: &About,
    person: PersonId,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?.by(about.himself(person));
    *tx.audit() = about.draft();
    let done = work(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

/// Somebody who signed in.
#[derive(Debug, Object)]
#[oai(example)]
pub(crate) struct Person {
    /// His id.
    id: PersonId,
    /// Where mail reaches him.
    email: String,
    /// What he is called.
    name: String,
    /// The language in which he is written to.
    locale: String,
    /// When his account was made.
    created_at: Moment,
}

example!(Person, {
    "id": "usr_01h455vb4pex5vsknk084sn02q",
    "email": "ada@example.com",
    "name": "Ada Lovelace",
    "locale": "en",
    "created_at": "2026-01-15T12:00:00Z",
});

impl From<rows::Person> for Person {
    fn from(row: rows::Person) -> Self {
        Self { id: row.id, email: row.email, name: row.name, locale: row.locale, created_at: row.created_at.into() }
    }
}

/// Who asks, and what he may do where he acts.
#[derive(Debug, Object)]
#[oai(example)]
struct Myself {
    /// Who.
    person: Person,
    /// For which organization he acts.
    #[oai(skip_serializing_if_is_none)]
    organization_id: Option<OrganizationId>,
    /// What he is there.
    #[oai(skip_serializing_if_is_none)]
    role: Option<String>,
    /// What that allows.
    permissions: Vec<String>,
    /// Where he belongs.
    memberships: Vec<MyMembership>,
}

example!(Myself, {
    "person": {
        "id": "usr_01h455vb4pex5vsknk084sn02q",
        "email": "ada@example.com",
        "name": "Ada Lovelace",
        "locale": "en",
        "created_at": "2026-01-15T12:00:00Z",
    },
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "role": "viewer",
    "permissions": ["events:read", "jobs:read"],
    "memberships": [{
        "organization_id": "org_01h455vb4pex5vsknk084sn02q",
        "role": "viewer",
        "active": true,
        "created_at": "2026-01-15T12:00:00Z",
    }],
});

/// That somebody belongs to an organization.
#[derive(Debug, Object)]
#[oai(example)]
struct MyMembership {
    /// Where.
    organization_id: OrganizationId,
    /// As what.
    role: String,
    /// Whether it counts; if not, it was suspended.
    active: bool,
    /// Since when.
    created_at: Moment,
}

example!(MyMembership, {
    "organization_id": "org_01h455vb4pex5vsknk084sn02q",
    "role": "viewer",
    "active": true,
    "created_at": "2026-01-15T12:00:00Z",
});

/// What to change; what is left out stays as it is.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct MyChange {
    /// What he is called: 1 to 200 characters.
    name: Option<Name>,
    /// The language in which he is written to.
    locale: Option<Locale>,
}

example!(MyChange, { "name": "Ada Lovelace", "locale": "en-GB" });

/// A password in place of another.
///
/// Refused as `weak_password` when the new one is guessed too easily.
#[derive(Debug, Object, Deserialize)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields, example)]
struct PasswordChange {
    /// The one there is.
    current_password: Secret,
    /// The one to be: at least 15 characters of any kind, and none that is tried first by whoever guesses.
    new_password: Secret,
}

example!(PasswordChange, {
    "current_password": "correct horse battery staple",
    "new_password": "a sentence that nobody guesses",
});

/// A password was changed.
#[derive(ApiResponse)]
enum Changed {
    /// It is the password from now on, and every other session has ended.
    #[oai(status = 204)]
    Changed,
}

#[OpenApi(prefix_path = "/me", tag = "Tag::People")]
impl People {
    /// Get myself
    ///
    /// Who asks, where he belongs, and what he may do where he acts.
    #[oai(path = "/", method = "get", operation_id = "getMe")]
    async fn get(&self, me: Me, app: Data<&App>) -> Result<Json<Myself>, Error> {
        let mut tx = app.db.person(me.person()).await?;
        let person = rows::find(&mut tx, me.person()).await?.ok_or_else(|| Error::not_found(me.person()))?;
        let memberships = memberships::of_person(&mut tx, None, MOST_MEMBERSHIPS).await?;
        let known = me.known();
        Ok(Json(Myself {
            person: person.into(),
            organization_id: known.organization,
            role: known.role.map(|role| role.to_string()),
            permissions: me.permissions().words(),
            memberships: memberships
                .into_iter()
                .map(|row| MyMembership {
                    organization_id: row.organization,
                    role: row.role.to_string(),
                    active: row.state == memberships::State::Active,
                    created_at: row.created_at.into(),
                })
                .collect(),
        }))
    }

    /// Change myself
    ///
    /// The name, and the language. The e-mail address is changed with `POST /me/email`.
    #[oai(path = "/", method = "patch", operation_id = "changeMe")]
    async fn change(&self, me: Me, app: Data<&App>, body: Body<MyChange>) -> Result<Json<Person>, Error> {
        let change = PersonChange {
            name: body.0.name.as_ref().map(Name::as_str),
            locale: body.0.locale.as_ref().map(Locale::as_str),
        };
        let changed = act(&app, me.about(), me.person(), async |tx| {
            let fields: Vec<&str> =
                [change.name.map(|_| "name"), change.locale.map(|_| "locale")].into_iter().flatten().collect();
            tx.audit().on(&me.person()).set("fields", fields);
            Ok(rows::change(tx, me.person(), change).await?)
        })
        .await?;
        changed.map(|person| Json(person.into())).ok_or_else(|| Error::not_found(me.person()))
    }

    /// Change the password
    ///
    /// Ends every other session.
    ///
    /// Refused as `wrong_credentials` when the current password is another one.
    #[oai(path = "/password", method = "put", operation_id = "changePassword")]
    async fn change_password(&self, me: Me, app: Data<&App>, body: Body<PasswordChange>) -> Result<Changed, Error> {
        let PasswordChange { current_password, new_password } = body.0;
        verify_own(&app, &me, &current_password).await.map_err(|error| {
            if error.code() == Code::WrongCredentials { error.at("current_password") } else { error }
        })?;
        let person = rows::find(&mut app.db.person(me.person()).await?, me.person()).await?;
        let person = person.ok_or_else(|| Error::not_found(me.person()))?;
        let chosen = choose(&app, &new_password, &person.email, &person.name, "new_password").await?;
        act(&app, me.about(), me.person(), async |tx| {
            tx.audit().on(&me.person());
            passwords::set(tx, me.person(), &chosen.hash, chosen.stands_alone).await?;
            sessions::end_others(tx, me.person(), Some(me.session()), Ended::Changed).await?;
            // Whatever was sent may have been asked for by whoever knew the old one.
            one_time::forget_for(tx, me.person()).await?;
            let (when, address) = (moment(&app), me.address().map(|address| address.to_string()));
            let letter = |brand: &_| templates::password_changed(brand, &when, address.as_deref());
            tell(&app, tx, "password_changed", &person.email, letter).await
        })
        .await?;
        app.sessions.forget();
        Ok(Changed::Changed)
    }
}

/// The present moment, as letters say it.
pub(crate) fn moment(app: &App) -> String {
    app.db.now().format("%Y-%m-%d %H:%M UTC").to_string()
}

/// A password that may be kept.
pub(crate) struct Chosen {
    pub(crate) hash: rows::hashing::Hashed,
    pub(crate) stands_alone: bool,
}

/// Checks a password that somebody chooses, and makes of it what is kept.
pub(crate) async fn choose(
    app: &App,
    password: &Secret,
    email: &str,
    name: &str,
    field: &str,
) -> Result<Chosen, Error> {
    let typed = Typed::new(password.expose());
    let email: Email = email.parse().map_err(|error: rows::InvalidEmail| Error::field("email", error.to_string()))?;
    let whose = Whose { email: &email, name, has_second_factor: false };
    rules::check(&typed, &whose).map_err(|weak: Weak| Error::new(Code::WeakPassword, weak.to_string()).at(field))?;
    let stands_alone = typed.stands_alone();
    let hash = app.passwords.run(move |hasher| hasher.hash(&typed, &mut rand::rng())).await?;
    Ok(Chosen { hash, stands_alone })
}
