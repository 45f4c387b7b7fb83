
#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_claim_code_puts_its_license_in_force_once_and_for_whom_it_was_made(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, other) = (platform.organization("acme").await, platform.organization("other").await);
    let operator = platform.operator().await;
    let codes = format!("{}/claim-codes", place(&acme));
    let new = json!({ "tier": "professional", "type": "subscription", "expires_at": "2027-01-15T12:00:00Z" });
    let made = operator.post(&codes, &new).await.expect(200);
    assert_eq!(acme.get("/license").await.expect(200)["state"], "unlicensed", "nobody has claimed it");
    let code = made["code"].as_str().unwrap();
    // As somebody reads it out, and types it.
    let typed = json!({ "code": code.to_lowercase().replace('-', " ") });
    other.post("/license/claim", &typed).await.problem(422, "invalid_field", Some("code"));
    let mut wrong = code.to_owned();
    wrong.replace_range(0..1, if code.starts_with('7') { "8" } else { "7" });
    let problem = acme.post("/license/claim", &json!({ "code": wrong })).await.problem(422, "invalid_field", Some("code"));
    assert!(problem["detail"].as_str().unwrap().contains("typing mistake"), "{problem}");
    let claimed = acme.post("/license/claim", &typed).await.expect(200);
    assert_eq!((&claimed["state"], &claimed["tier"]), (&json!("valid"), &json!("professional")));
    acme.post("/license/claim", &typed).await.problem(422, "invalid_field", Some("code"));
    // One that nobody used in time is good no more, and one that came too late is refused.
    let late = operator.post(&codes, &new).await.expect(200);
    give(&platform, &acme, new.clone()).await;
    acme.post("/license/claim", &json!({ "code": late["code"] })).await.problem(409, "wrong_state", None);
    let forgotten = operator.post(&codes, &new).await.expect(200);
    platform.clock.advance(Duration::days(30));
    acme.post("/license/claim", &json!({ "code": forgotten["code"] })).await.problem(422, "invalid_field", Some("code"));
    acme.post(&codes, &new).await.problem(403, "forbidden", None);
}
