//! What `gantry-api migrate` does.

use gantry_schema::setup::{self, Login, SetupError};
use sqlx::PgPool;

use crate::support::Platform;

#[sqlx::test]
async fn a_database_is_brought_up_to_date_as_often_as_one_likes(pool: PgPool) {
    let owner = (*pool.connect_options()).clone();
    let login = |role: &str, may| Login { role: role.to_owned(), password: None, may };
    let logins = [login("gantry_app", "gantry_app"), login("gantry_engine", "gantry_engine")];
    for _ in 0..2 {
        setup::migrate(&owner, &logins).await.unwrap();
    }
    let platform = Platform::new(pool).await;
    assert!(setup::is_migrated(&platform.app.db).await.unwrap());

    let as_owner = [login(owner.get_username(), "gantry_app")];
    let refused = setup::migrate(&owner, &as_owner).await.unwrap_err();
    assert!(matches!(refused, SetupError::Owner(_)), "{refused}");

    sqlx::query("update _sqlx_migrations set checksum = 'edited' where version = 3")
        .execute(&platform.pool)
        .await
        .unwrap();
    assert!(!setup::is_migrated(&platform.app.db).await.unwrap(), "a migration that differs is not this release's");
}
