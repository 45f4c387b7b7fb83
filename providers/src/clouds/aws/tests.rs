use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::clouds::account::{Architecture, Headroom, Key, Mark, Needs, Quota, Removal, Thing, Vendor};
use crate::clouds::price::Price;
use crate::clouds::testing::{Asked, Cloud, Reply, suite};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn key() -> Key {
    Key::of(Vendor::Aws, [("access_key_id", "AKIAIOSFODNN7EXAMPLE"), ("secret_access_key", SECRET)]).unwrap()
}

fn xml(action: &str, inner: &str) -> Reply {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>{inner}</{action}Response>"
    );
    Reply::of(200, text)
}

fn refused(status: u16, code: &str) -> Reply {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>No, says {code}.\
         </Message></Error></Errors><RequestID>ea966190</RequestID></Response>"
    );
    Reply::of(status, text)
}

fn form(asked: &Asked) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect()
}

fn product(size: &str, unit: &str, usd: &str) -> Value {
    let written = json!({
        "product": { "attributes": { "instanceType": size }, "sku": "X" },
        "terms": { "OnDemand": { "X.J": { "priceDimensions": { "X.J.6": {
            "unit": unit, "pricePerUnit": { "USD": usd }, "description": "On demand",
        } } } }, "Reserved": {} },
    });
    written.to_string().into()
}

fn cloud(asked: &Asked) -> Reply {
    let authorization = &asked.headers["authorization"];
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20150830/"), "{authorization}");
    assert_eq!(asked.headers["x-amz-date"], "20150830T123600Z");
    if let Some(target) = asked.headers.get("x-amz-target") {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        return match target.as_str() {
            "AWSPriceListService.GetProducts" if body["ServiceCode"] == "AmazonVPC" => {
                Reply::of(200, json!({ "PriceList": [product("", "Hrs", "0.0050000000")] }).to_string())
            }
            "AWSPriceListService.GetProducts" if body["Filters"].to_string().contains("gp3") => {
                Reply::of(200, json!({ "PriceList": [product("", "GB-Mo", "0.0880000000")] }).to_string())
            }
            "AWSPriceListService.GetProducts" if body.get("NextToken").is_none() => Reply::of(
                200,
                json!({ "PriceList": [product("t3.small", "Hrs", "0.0228000000"), "garbage"], "NextToken": "two" })
                    .to_string(),
            ),
            "AWSPriceListService.GetProducts" => {
                Reply::of(200, json!({ "PriceList": [product("t4g.small", "Hrs", "0.0184000000")] }).to_string())
            }
            "AWSPriceListService.DescribeServices" => {
                Reply::of(400, json!({ "__type": "AccessDeniedException", "Message": "not yours" }).to_string())
            }
            "ServiceQuotasV20190624.GetServiceQuota" if body["QuotaCode"] == "L-F678F1CE" => {
                Reply::of(200, json!({ "Quota": { "Value": 5.0, "QuotaCode": "L-F678F1CE" } }).to_string())
            }
            "ServiceQuotasV20190624.GetServiceQuota" if body["QuotaCode"] == "L-1216C47A" => {
                Reply::of(200, json!({ "Quota": { "Value": 8.0 } }).to_string())
            }
            _ => Reply::of(
                400,
                json!({ "__type": "com.amazonaws#NoSuchResourceException", "message": "no quota" }).to_string(),
            ),
        };
    }
    let form = form(asked);
    let member = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let action = member("Action");
    if member("DryRun") == "true" {
        return match action {
            "CreateVpc" => refused(403, "UnauthorizedOperation"),
            "RunInstances" => refused(400, "InvalidAMIID.NotFound"),
            _ => refused(412, "DryRunOperation"),
        };
    }
    let item = |inner: &str| format!("<item>{inner}</item>");
    match action {
        "GetCallerIdentity" => xml(
            action,
            "<GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ci</Arn>\
             <UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult>",
        ),
        "DescribeRegions" => xml(
            action,
            "<regionInfo>\
             <item><regionName>eu-central-1</regionName><optInStatus>opt-in-not-required</optInStatus></item>\
             <item><regionName>af-south-1</regionName><optInStatus>not-opted-in</optInStatus></item></regionInfo>",
        ),
        "DescribeInstanceTypeOfferings" => {
            let of = |size: &str, zone: &str| {
                item(&format!(
                    "<instanceType>{size}</instanceType><locationType>availability-zone</locationType><location>{zone}</location>"
                ))
            };
            let all =
                [of("t3.small", "eu-central-1b"), of("t3.small", "eu-central-1a"), of("t4g.small", "eu-central-1c")];
            xml(action, &format!("<instanceTypeOfferingSet>{}</instanceTypeOfferingSet>", all.concat()))
        }
        "DescribeInstanceTypes" => {
            let of = |size: &str, architecture: &str| {
                item(&format!(
                    "<instanceType>{size}</instanceType><currentGeneration>true</currentGeneration>\
                 <processorInfo><supportedArchitectures><item>{architecture}</item></supportedArchitectures></processorInfo>\
                 <vCpuInfo><defaultVCpus>2</defaultVCpus></vCpuInfo><memoryInfo><sizeInMiB>2048</sizeInMiB></memoryInfo>"
                ))
            };
            match member("NextToken") {
                "" => xml(
                    action,
                    &format!(
                        "<instanceTypeSet>{}</instanceTypeSet><nextToken>two</nextToken>",
                        of("t3.small", "x86_64")
                    ),
                ),
                _ => xml(
                    action,
                    &format!(
                        "<instanceTypeSet>{}{}</instanceTypeSet>",
                        of("t4g.small", "arm64"),
                        of("mac1", "x86_64_mac")
                    ),
                ),
            }
        }
        "DescribeImages" => xml(
            action,
            "<imagesSet><item><name>debian-12-amd64-20260101-1234</name><architecture>x86_64</architecture>\
             </item><item><name>ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-20260101</name><architecture>arm64\
             </architecture></item></imagesSet>",
        ),
        "DescribeInstances" if member("Filter.1.Name") == "tag:gantry-server" => xml(
            action,
            "<reservationSet><item><instancesSet><item><instanceId>i-1</instanceId></item></instancesSet></item></reservationSet>",
        ),
        "DescribeInstances" => xml(
            action,
            "<reservationSet><item><instancesSet>\
             <item><instanceType>t3.small</instanceType><cpuOptions><coreCount>2</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions></item>\
             <item><instanceType>g5.xlarge</instanceType><cpuOptions><coreCount>4</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions></item>\
             <item><instanceType>m5.large</instanceType><cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions></item>\
             </instancesSet></item></reservationSet>",
        ),
        "DescribeVpcs" => xml(action, &format!("<vpcSet>{}</vpcSet>", item("<vpcId>vpc-1</vpcId>").repeat(5))),
        "DescribeTags" => {
            assert_eq!((member("Filter.1.Value.1"), member("Filter.2.Value.1")), ("gantry-server", "srv_1"));
            let of = |kind: &str, id: &str| {
                item(&format!("<resourceId>{id}</resourceId><resourceType>{kind}</resourceType>"))
            };
            let all = [
                of("vpc", "vpc-1"),
                of("security-group-rule", "sgr-1"),
                of("security-group", "sg-1"),
                of("instance", "i-1"),
                of("instance", "i-ended"),
                of("internet-gateway", "igw-1"),
                of("elastic-ip", "eipalloc-1"),
            ];
            xml(action, &format!("<tagSet>{}</tagSet>", all.concat()))
        }
        "DescribeInternetGateways" => xml(
            action,
            "<internetGatewaySet><item><attachmentSet><item><vpcId>vpc-1</vpcId></item></attachmentSet></item></internetGatewaySet>",
        ),
        "DetachInternetGateway" => {
            assert_eq!(member("VpcId"), "vpc-1");
            xml(action, "<return>true</return>")
        }
        "DeleteVpc" => refused(400, "DependencyViolation"),
        "DeleteSecurityGroup" => refused(400, "InvalidGroup.NotFound"),
        "ReleaseAddress" => refused(400, "AuthFailure"),
        _ => xml(action, "<return>true</return>"),
    }
}

#[tokio::test]
async fn aws_keeps_what_accounts_keep() {
    suite(&key(), SECRET).await;
}

#[tokio::test]
async fn a_key_says_whose_it_is_and_what_it_may() {
    let cloud = Cloud::start(cloud).await;
    let identity = cloud.account(key()).validate().await.unwrap();
    assert_eq!(
        (identity.account.as_str(), identity.name.as_str()),
        ("123456789012", "arn:aws:iam::123456789012:user/ci")
    );
    assert_eq!(identity.missing().collect::<Vec<_>>(), ["ec2:CreateVpc", "pricing:DescribeServices"]);
    let unsaid: Vec<&str> = identity.permissions.iter().filter(|it| it.held.is_none()).map(|it| &*it.name).collect();
    assert_eq!(unsaid, ["ec2:RunInstances"]);
    for (status, code, name) in [
        (403, "InvalidClientTokenId", "credential_refused"),
        (403, "SignatureDoesNotMatch", "credential_refused"),
        (503, "RequestLimitExceeded", "put_off"),
        (400, "Throttling", "put_off"),
        (403, "AccessDenied", "rejected"),
    ] {
        let error = Cloud::always(refused(status, code)).await.account(key()).validate().await.unwrap_err();
        assert!(error.code() == name && error.to_string().contains(code), "{error}");
    }
    let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbbbbbbbb\"><!ENTITY c \"&b;&b;&b;\">]><GetCallerIdentityResponse>&c;</GetCallerIdentityResponse>";
    let error = Cloud::always(Reply::of(200, bomb)).await.account(key()).validate().await.unwrap_err();
    assert_eq!(error.code(), "protocol");
}

#[tokio::test]
async fn a_region_has_sizes_with_zones_and_prices_from_three_services() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let without = account.catalogue(None).await.unwrap();
    assert_eq!((without.regions.len(), without.sizes.len()), (2, 0));
    assert_eq!(account.catalogue(Some("af-south-1")).await.unwrap().sizes.len(), 0);
    let catalogue = account.catalogue(Some("eu-central-1")).await.unwrap();
    let sizes: Vec<(&str, Architecture)> = catalogue.sizes.iter().map(|it| (&*it.id, it.architecture)).collect();
    assert_eq!(sizes, [("t3.small", Architecture::X86), ("t4g.small", Architecture::Arm)]);
    let offer = catalogue.sizes[0].offer("eu-central-1").unwrap();
    assert_eq!(offer.zones, ["eu-central-1a", "eu-central-1b"]);
    assert_eq!((offer.hourly, offer.monthly), (Price::read("0.0228"), Price::read("16.644")));
    let images: Vec<(&str, Option<Architecture>)> =
        catalogue.images.iter().map(|it| (&*it.id, it.architecture)).collect();
    assert_eq!(images, [("ubuntu-24.04", Some(Architecture::Arm)), ("debian-12", Some(Architecture::X86))]);
    assert_eq!(catalogue.extras.volume_gib, Price::read("0.088"));
    assert_eq!(catalogue.extras.address, Price::read("3.65"));
}

#[tokio::test]
async fn who_may_not_ask_for_prices_has_none_and_everything_else() {
    let cloud = Cloud::start(|asked| match asked.headers.get("x-amz-target") {
        Some(_) => Reply::of(400, json!({ "__type": "AccessDeniedException", "Message": "no" }).to_string()),
        None => cloud(asked),
    });
    let catalogue = cloud.await.account(key()).catalogue(Some("eu-central-1")).await.unwrap();
    assert_eq!(catalogue.sizes[0].offers[0].hourly, None);
    assert_eq!(catalogue.images.len(), 2);
}

#[tokio::test]
async fn what_is_needed_is_compared_with_what_is_used_and_allowed() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let catalogue = account.catalogue(Some("eu-central-1")).await.unwrap();
    let needs = Needs { region: "eu-central-1", size: &catalogue.sizes[0], static_address: true, volume_gib: 0 };
    let headroom = account.headroom(&needs).await.unwrap();
    let Headroom::Said(quotas) = &headroom else { panic!() };
    let quota = |name: &str, needed, used, allowed| Quota { name: name.to_owned(), needed, used, allowed };
    assert_eq!(*quotas, [quota("vCPUs of standard instances", 2, 6, 8), quota("VPCs", 1, 5, 5)]);
    assert_eq!(headroom.refusal().unwrap().said, "1 more of VPCs are needed, and 5 of 5 are used");
    let elsewhere = Needs { region: "eu-central-1/../x", ..needs };
    assert_eq!(account.headroom(&elsewhere).await.unwrap_err().code(), "rejected");
}

#[tokio::test]
async fn what_is_left_is_found_by_its_tag_and_removed_in_order() {
    let cloud = Cloud::start(cloud).await;
    let account = cloud.account(key());
    let things = account.tagged("eu-central-1", "srv_1").await.unwrap();
    let kinds: Vec<&str> = things.iter().map(|it| &*it.kind).collect();
    assert_eq!(kinds, ["instance", "elastic-ip", "internet-gateway", "security-group", "vpc"]);
    let results = [Some(Removal::Removed), None, Some(Removal::Removed), Some(Removal::Gone), None];
    for (thing, expected) in things.iter().zip(results) {
        assert_eq!(account.remove(thing).await.ok(), expected, "{thing}");
    }
    assert_eq!(account.remove(&things[1]).await.unwrap_err().code(), "credential_refused");
    assert!(account.remove(&things[4]).await.unwrap_err().is_transient());
    let other = Thing { kind: "user".to_owned(), ..things[0].clone() };
    assert_eq!(account.remove(&other).await.unwrap_err().code(), "configuration");
}

#[tokio::test]
async fn what_was_made_for_an_organization_is_put_together_of_its_tags() {
    let cloud = Cloud::start(|asked| {
        let members = form(asked);
        let action = members["Action"].as_str();
        let item = |inner: &str| format!("<item>{inner}</item>");
        let of = |kind: &str, id: &str, value: &str| {
            item(&format!("<resourceId>{id}</resourceId><resourceType>{kind}</resourceType><value>{value}</value>"))
        };
        match (action, members.get("Filter.1.Value.1").map(String::as_str)) {
            ("DescribeInstances", _) => xml(
                action,
                &format!(
                    "<reservationSet>{}</reservationSet>",
                    item(&format!("<instancesSet>{}</instancesSet>", item("<instanceId>i-1</instanceId>")))
                ),
            ),
            (_, Some("gantry-server")) => xml(
                action,
                &format!(
                    "<tagSet>{}</tagSet>",
                    ["vpc-1", "i-1", "i-ended", "vpc-2", "vpc-3"].map(|id| of("x", id, "srv_1")).concat()
                ),
            ),
            (_, Some("gantry-organization")) => xml(
                action,
                &format!(
                    "<tagSet>{}{}</tagSet>",
                    ["vpc-1", "i-1", "i-ended", "vpc-3"].map(|id| of("x", id, "org_1")).concat(),
                    of("vpc", "vpc-2", "org_2")
                ),
            ),
            (_, Some("gantry-installation")) => {
                assert_eq!(members["Filter.2.Value.1"], "ins-1");
                let all = [
                    of("vpc", "vpc-1", "ins-1"),
                    of("instance", "i-1", "ins-1"),
                    of("instance", "i-ended", "ins-1"),
                    of("vpc", "vpc-2", "ins-1"),
                ];
                xml(action, &format!("<tagSet>{}</tagSet>", all.concat()))
            }
            other => panic!("{other:?}"),
        }
    });
    let mark = Mark { installation: "ins-1", organization: "org_1" };
    let marked = cloud.await.account(key()).marked("eu-central-1", mark).await.unwrap();
    let found: Vec<(&str, &str)> = marked.iter().map(|it| (&*it.thing.id, &*it.server)).collect();
    assert_eq!(found, [("i-1", "srv_1"), ("vpc-1", "srv_1")]);
}
