use serde_json::{from_value, json, to_value};

use super::*;

fn zone(name: &str) -> TimeZone {
    name.parse().expect(name)
}

#[test]
fn each_name_of_the_database_is_a_time_zone() {
    let database = TimeZoneDatabase::bundled();
    let names: Vec<_> = database.available().map(|name| name.as_str().to_owned()).collect();
    assert!(names.len() > 500, "{}", names.len());
    for name in names.iter().filter(|name| *name != "Factory") {
        assert_eq!(zone(name).to_string(), *name);
        assert_eq!(zone(&name.to_lowercase()), zone(name));
        assert_eq!(zone(&name.to_uppercase()).to_string(), *name);
    }
}

#[test]
fn nothing_else_is_a_time_zone() {
    let right = "is not a time zone: write an IANA name such as `Europe/Berlin`, or `UTC`";
    let long = "Europe/Berlin".repeat(10_000);
    for text in [
        "",
        " ",
        "Berlin",
        "Europe",
        "Europe/",
        "Europe/hunter2",
        " UTC",
        "UTC ",
        "CEST",
        "+02:00",
        "UTC+2",
        "Factory",
        "factory",
        "Etc/Unknown",
        "etc/unknown",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "<+03>-3",
        ":UTC",
        "/usr/share/zoneinfo/Europe/Berlin",
        "../zoneinfo/UTC",
        "localtime",
        "/etc/localtime",
        "UTC\0",
        "é",
        &long,
    ] {
        let error = text.parse::<TimeZone>().expect_err(text);
        assert_eq!(error.to_string(), right);
    }
}

#[test]
fn the_default_is_utc() {
    assert_eq!(TimeZone::default(), TimeZone::UTC);
    assert_eq!(zone("utc"), TimeZone::UTC);
    assert_eq!(TimeZone::UTC.to_string(), "UTC");
    assert_eq!(format!("{:?}", zone("asia/tokyo")), "Asia/Tokyo");
    assert_ne!(zone("Asia/Tokyo"), zone("Japan"), "another name");
}

#[test]
fn is_small() {
    assert_eq!(size_of::<TimeZone>(), size_of::<usize>());
}

#[test]
fn is_a_string_in_json() {
    assert_eq!(to_value(zone("Europe/Berlin")).unwrap(), json!("Europe/Berlin"));
    assert_eq!(from_value::<TimeZone>(json!("europe/berlin")).unwrap(), zone("Europe/Berlin"));
    let error = from_value::<TimeZone>(json!("hunter2")).unwrap_err();
    assert!(error.to_string().starts_with("is not a time zone"), "{error}");
    let error = from_value::<TimeZone>(json!(null)).unwrap_err();
    assert!(error.to_string().contains("a time zone such as `Europe/Berlin`"), "{error}");
}

#[test]
fn the_schema_is_inline_and_leaves_the_description_to_the_field() {
    #[derive(schemars::JsonSchema)]
    #[allow(dead_code, reason = "only its schema is of interest")]
    struct Params {
        /// Where.
        zone: TimeZone,
    }
    let schema = to_value(schemars::schema_for!(Params)).unwrap();
    let expected = json!({ "type": "string", "format": "time-zone", "description": "Where." });
    assert_eq!(schema["properties"]["zone"], expected);
    assert!(schema.get("$defs").is_none());
}
