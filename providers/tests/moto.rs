//! What stands in for AWS here nobody of us wrote: scripts/interop runs it against PyPI's moto, in which
//! tests/interop/aws.py has made a server and everything around it.

use std::sync::Arc;
use std::time::SystemTime;

use gantry_providers::clouds::Vendor;
use gantry_providers::clouds::account::{Account, Headroom, Key, Needs, Reach, Removal, open};

fn account(url: &str) -> Arc<dyn Account> {
    #[expect(
        clippy::disallowed_methods,
        reason = "signatures are good for minutes, and moto's clock is this machine's"
    )]
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.as_secs().cast_signed());
    let members =
        [("access_key_id", "AKIAIOSFODNN7EXAMPLE"), ("secret_access_key", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")];
    let key = Key::of(Vendor::Aws, members).expect("a key");
    let reach = Reach::real(Arc::new(now)).at(url).expect("the address of moto");
    open(key, &reach).expect("a client")
}

#[tokio::test]
#[ignore = "scripts/interop runs it, with what it needs"]
async fn moto_understands_us_and_we_understand_moto() {
    let url = std::env::var("GANTRY_MOTO_URL").expect("where moto is");
    let account = account(&url);
    let region = "us-east-1";
    let identity = account.validate().await.unwrap();
    assert_eq!(identity.account, "123456789012");
    println!("{identity:#?}");

    let catalogue = account.catalogue(Some(region)).await.unwrap();
    assert!(catalogue.regions.iter().any(|it| it.id == region && it.available));
    assert!(catalogue.sizes.len() > 100, "{}", catalogue.sizes.len());
    let size = catalogue.sizes.iter().find(|it| it.id == "t3.micro").unwrap();
    assert_eq!((size.cores, size.memory_mib), (2, 1_024));
    assert!(!size.offers[0].zones.is_empty());
    println!("{} sizes, {} images", catalogue.sizes.len(), catalogue.images.len());

    let needs = Needs { region, size, static_address: true, volume_gib: 1 };
    match account.headroom(&needs).await.unwrap() {
        Headroom::Said(quotas) => println!("{quotas:?}"),
        Headroom::Unsaid => println!("it does not say what may be had"),
    }

    let things = account.tagged(region, "srv_1").await.unwrap();
    println!("{things:#?}");
    let mut left: Vec<_> = things.iter().collect();
    for kind in [
        "instance",
        "elastic-ip",
        "volume",
        "key-pair",
        "subnet",
        "route-table",
        "internet-gateway",
        "security-group",
        "vpc",
    ] {
        assert!(left.iter().any(|it| it.kind == kind), "there is no {kind}");
    }
    for _ in 0..3 {
        let mut held = Vec::new();
        for thing in left {
            match account.remove(thing).await {
                Ok(removal) => println!("{thing}: {removal:?}"),
                Err(error) if error.is_transient() => held.push(thing),
                Err(error) => panic!("{thing}: {}", error.explain()),
            }
        }
        left = held;
    }
    assert!(left.is_empty(), "{left:?}");
    for thing in account.tagged(region, "srv_1").await.unwrap() {
        // moto keeps the tags of what is gone. What is gone is gone, and that is no error.
        println!("{thing} is still told of: {:?}", account.remove(&thing).await.unwrap());
    }
    let vpc = things.iter().find(|it| it.kind == "vpc").unwrap();
    assert_eq!(account.remove(vpc).await.unwrap(), Removal::Gone);
}
