use std::time::Duration;

use jiff::Timestamp;
use serde_json::{from_str, from_value, json, to_value};

use super::*;

mod oracle;
mod zones;

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::new(expression).unwrap().in_zone(zone.parse().unwrap())
}

/// What is due between two times in RFC 3339, in UTC.
fn due(expression: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let cron = cron(expression, zone);
    let time =
        |text: &str| system_time(text.parse::<Timestamp>().unwrap().as_second() * 1_000_000_000);
    let [from, until] = [from, until].map(time);
    let next = |time: &SystemTime| cron.next_after(*time).filter(|next| *next <= until);
    let all = std::iter::successors(next(&from), next);
    all.map(|time| Timestamp::from_second(unix_seconds(time)).unwrap().to_string()).collect()
}

fn message(text: &str) -> String {
    let error = Cron::new(text).expect_err("is not an expression");
    assert_eq!(text.parse::<Cron>(), Err(error));
    error.to_string()
}

#[test]
fn a_night_without_half_past_two_has_no_tick() {
    let spring = ("2025-03-28T12:00:00Z", "2025-03-31T12:00:00Z");
    let all = due("30 2 * * * *", "Europe/Berlin", spring.0, spring.1);
    assert_eq!(all, ["2025-03-29T01:30:00Z", "2025-03-31T00:30:00Z"]);
    let all =
        due("0,30 * 30 3 * 2025", "Europe/Berlin", "2025-03-30T00:00:00Z", "2025-03-30T02:00:00Z");
    assert_eq!(
        all,
        [
            "2025-03-30T00:30:00Z",
            "2025-03-30T01:00:00Z",
            "2025-03-30T01:30:00Z",
            "2025-03-30T02:00:00Z"
        ]
    );
    // The only one that there would be.
    assert_eq!(cron("30 2 30 3 * 2025", "Europe/Berlin").next_after(UNIX_EPOCH), None);
}

#[test]
fn an_hour_that_comes_twice_counts_once_if_it_is_named() {
    let autumn = |expression| {
        due(expression, "Europe/Berlin", "2025-10-25T23:59:59Z", "2025-10-26T02:00:00Z")
    };
    assert_eq!(autumn("30 2 * * * *"), ["2025-10-26T00:30:00Z"]);
    let once = ["2025-10-26T00:00:00Z", "2025-10-26T00:30:00Z", "2025-10-26T02:00:00Z"];
    let twice = ["2025-10-26T01:00:00Z", "2025-10-26T01:30:00Z"];
    for named in
        ["0,30 0-23 * * * *", "*/30 2,3 * * * *", "*/30 *,1 * * * *", "*/30 0-23/1 * * * *"]
    {
        assert_eq!(autumn(named), once, "{named}");
    }
    for all in ["*/30 * * * * *", "0,30 */1 * * * *", "0,30 *,*/2 * * * *"] {
        let both = [&once[..2], &twice, &once[2..]].concat();
        assert_eq!(autumn(all), both, "{all}");
    }
    assert_eq!(autumn("*/30 */2 * * * *"), [&once[..2], &twice].concat());
    // From within the hour that is shown again.
    let again = |expression| {
        due(expression, "Europe/Berlin", "2025-10-26T01:10:00Z", "2025-10-26T02:00:00Z")
    };
    assert_eq!(again("30 2 * * * *"), [] as [&str; 0]);
    assert_eq!(again("30 * * * * *"), ["2025-10-26T01:30:00Z"]);
}

#[test]
fn zones_that_are_like_no_other() {
    // Samoa had no 30th of December in 2011.
    let all = due("0 12 * * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z");
    assert_eq!(all, ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z", "2011-12-31T22:00:00Z"]);
    assert_eq!(cron("* * 30 12 * 2011", "Pacific/Apia").next_after(UNIX_EPOCH), None);
    // Half an hour: at 02:00 it is 02:30, and 01:30.
    let all = |expression, from, until| due(expression, "Australia/Lord_Howe", from, until);
    let spring = ("2025-10-04T15:00:00Z", "2025-10-04T16:00:00Z");
    assert_eq!(all("15 2 5 * * *", spring.0, spring.1), [] as [&str; 0]);
    assert_eq!(
        all("45 * * * * *", spring.0, spring.1),
        ["2025-10-04T15:15:00Z", "2025-10-04T15:45:00Z"]
    );
    let autumn = ("2025-04-05T14:00:00Z", "2025-04-05T16:00:00Z");
    assert_eq!(all("45 1 * * * *", autumn.0, autumn.1), ["2025-04-05T14:45:00Z"]);
    assert_eq!(
        all("45 * * * * *", autumn.0, autumn.1),
        ["2025-04-05T14:45:00Z", "2025-04-05T15:15:00Z"]
    );
    // 44 minutes and 30 seconds behind, until the midnight in which 1972's 7th of January began. Of
    // 00:44 there was only the second half.
    let all = due(
        "44,45,59 23,0 6,7 1 * 1972",
        "Africa/Monrovia",
        "1972-01-07T00:00:00Z",
        "1972-01-07T12:00:00Z",
    );
    assert_eq!(
        all,
        [
            "1972-01-07T00:28:30Z",
            "1972-01-07T00:29:30Z",
            "1972-01-07T00:43:30Z",
            "1972-01-07T00:45:00Z",
            "1972-01-07T00:59:00Z"
        ]
    );
    // Midnight comes twice.
    let all = due("0 0 * * * *", "America/Havana", "2024-11-02T12:00:00Z", "2024-11-04T12:00:00Z");
    assert_eq!(all, ["2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"]);
    // The time zone's latest change so far is not one of the rule that it has since.
    let all = due(
        "20 23 * * * *",
        "America/Ciudad_Juarez",
        "2022-11-30T00:00:00Z",
        "2022-12-01T12:00:00Z",
    );
    assert_eq!(all, ["2022-11-30T05:20:00Z", "2022-12-01T06:20:00Z"]);
}

#[test]
fn the_rarest_day_is_found() {
    let all = due("0 0 29 2 1 *", "UTC", "2044-03-01T00:00:00Z", "2100-12-31T00:00:00Z");
    assert_eq!(all, ["2072-02-29T00:00:00Z"]);
    let all = due("0 0 29 2 * *", "UTC", "2096-01-01T00:00:00Z", "2102-01-01T00:00:00Z");
    assert_eq!(all, ["2096-02-29T00:00:00Z"], "2100 is not a leap year");
}

#[test]
fn any_time_has_an_answer() {
    let minutely = Cron::new("* * * * * *").unwrap();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(minutely.next_after(UNIX_EPOCH), Some(at(60)), "later than the time");
    assert_eq!(minutely.next_after(UNIX_EPOCH + Duration::from_nanos(1)), Some(at(60)));
    for before in [1, 1_000_000_000, 60_000_000_000, i64::MAX.unsigned_abs()] {
        let before = UNIX_EPOCH - Duration::from_nanos(before);
        assert_eq!(minutely.next_after(before), Some(UNIX_EPOCH));
    }
    let until_59 = at(60) - Duration::from_nanos(1);
    assert_eq!(minutely.next_after(until_59), Some(at(60)));
    // The last minute of 2100.
    assert_eq!(minutely.next_after(at(4_133_980_679)), Some(at(4_133_980_740 - 60)));
    assert_eq!(minutely.next_after(at(4_133_980_740)), None);
    for zone in ["UTC", "Europe/Berlin", "Pacific/Apia"] {
        let minutely = cron("* * * * * *", zone);
        for years in [135, 1000, 10_000, 1_000_000, 200_000_000_000] {
            if let Some(far) = UNIX_EPOCH.checked_add(Duration::from_secs(years * 366 * 24 * 3600))
            {
                assert_eq!(minutely.next_after(far), None, "{years}");
            }
            if let Some(far) = UNIX_EPOCH.checked_sub(Duration::from_secs(years * 366 * 24 * 3600))
            {
                assert!(minutely.next_after(far).is_some(), "{years}");
            }
        }
    }
    // The first minute of 1970 was in 1969 in UTC.
    assert_eq!(
        cron("* * * * * *", "Asia/Tokyo").next_after(at(0) - Duration::from_secs(1 << 30)),
        Some(at(0) - Duration::from_secs(9 * 3600))
    );
    // What is past is not an error.
    let past = Cron::new("0 0 1 1 * 2020").unwrap();
    assert_eq!(past.next_after(at(1_577_836_799)), Some(at(1_577_836_800)));
    assert_eq!(past.next_after(at(1_577_836_800)), None);
}

#[test]
fn the_text_is_one_of_the_same_meaning() {
    let cases = [
        ("* * * * * *", "* * * * * *"),
        (" \t30  02\n* *\r * * ", "30 2 * * * *"),
        ("*/15 */6 */10 */3 */2 */10", "*/15 */6 */10 */3 */2 */10"),
        ("0,15,30,45 * * * * *", "*/15 * * * * *"),
        ("*/30 */23 * * * *", "0,30 */23 * * * *"),
        ("0-59 0-23 1-31 1-12 0-6 1970-2100", "* 0-23 * * * *"),
        ("1-5,7 0,6,12,18 3,1,2 1-12/5 1-5,6 2024,2025", "1-5,7 0,6,12,18 1-3 */5 1-6 2024,2025"),
        ("5 */2,*/3 * * * *", "5 */2,*/3 * * * *"),
        ("5 */4,*/2,*/8 * * * *", "5 */2 * * * *"),
        ("5 *,*/5 * * * *", "5 * * * * *"),
        ("5 *,6 * * * *", "5 0-23 * * * *"),
        ("5 *,*/24 * * * *", ""),
        ("10-50/15 * * * * 2000-2100/50", "10,25,40 * * * * 2000,2050,2100"),
    ];
    for (text, printed) in cases {
        let Ok(cron) = Cron::new(text) else {
            assert_eq!(printed, "", "{text}");
            continue;
        };
        assert_eq!(cron.to_string(), printed);
        assert_eq!(printed.parse(), Ok(cron), "{text}");
    }
    let cron = cron("0 9 * * 1-5 *", "europe/berlin");
    assert_eq!(format!("{cron:?}"), "Cron(0 9 * * 1-5 * in Europe/Berlin)");
    assert_eq!(format!("{cron:>15}"), "  0 9 * * 1-5 *");
    assert_eq!(cron.zone().to_string(), "Europe/Berlin");
    assert_ne!(cron, Cron::new("0 9 * * 1-5 *").unwrap(), "in another zone");
}

#[test]
fn an_error_names_the_field_and_says_what_would_be_right() {
    const FIELDS: &str = "minute, hour, day of the month, month, day of the week, year";
    assert_eq!(
        message(" \t"),
        format!("is empty: write six fields, such as `30 2 * * * *`: {FIELDS}")
    );
    assert_eq!(
        message("30 2 * * *"),
        format!("has five fields and needs six: {FIELDS}; end it with ` *` for every year")
    );
    assert_eq!(
        message("0 30 2 * * * *"),
        format!("has seven fields and needs six, none of them for seconds: {FIELDS}")
    );
    for text in ["@daily", "5", "* * * * * * * *"] {
        assert_eq!(message(text), format!("needs six fields with spaces between: {FIELDS}"));
    }
    assert_eq!(message(&"* ".repeat(600)), "is too long: at most 1024 bytes are read");

    let cases = [
        ("60 * * * * *", "the minute must be 0 to 59"),
        ("99999999999999999999999999 * * * * *", "the minute must be 0 to 59"),
        ("* 24 * * * *", "the hour must be 0 to 23"),
        ("* 20-24 * * * *", "the hour must be 0 to 23"),
        ("* * 0 * * *", "the day of the month must be 1 to 31"),
        ("* * 1,32 * * *", "the day of the month must be 1 to 31"),
        ("* * * 13 * *", "the month must be 1 to 12"),
        ("* * * * 7 *", "the day of the week must be 0 to 6: Sunday is 0, not 7"),
        ("* * * * * 1969", "the year must be 1970 to 2100"),
        ("* * * * * 25", "the year must be 1970 to 2100"),
        ("* * * JAN *  *", "the month must be a number, 1 to 12, not a name"),
        ("* * L * *  *", "the day of the month must be a number, 1 to 31, not a name"),
        (
            "* * * * MON-FRI *",
            "the day of the week must be a number, not a name: 0 is Sunday, 6 Saturday",
        ),
        (
            "* 22-2 * * * *",
            "the hour has a range that ends before it begins: write the lower number first, or two \
             ranges with a comma between, up to 23 and from 0",
        ),
        ("*/0 * * * * *", "the step of the minute must be 1 to 59"),
        ("*/60 * * * * *", "the step of the minute must be 1 to 59"),
        ("* */24 * * * *", "the step of the hour must be 1 to 23"),
        ("* * * 1-5/99 * *", "the step of the month must be 1 to 11"),
        (
            "* * * * * 2024/4",
            "the year has a step after a number: write `*` or a range before the `/`",
        ),
    ];
    for (text, right) in cases {
        assert_eq!(message(text), right, "{text}");
    }
    let malformed = [
        "", "-", "1-", "-1", "1-2-3", "**", "*-5", "5-*", "/5", "*/", "*/5/5", ",", "1,", ",1",
        "1,,2", "+1", "1.5", "?", "1#2", "5L", "0x1", "١", "*5", "1–5", "*\u{a0}",
    ];
    for part in malformed.into_iter().filter(|part| !part.is_empty()) {
        assert_eq!(
            message(&format!("* {part} * * * *")),
            "the hour must be `*`, a number, a range such as `1-5`, a step such as `*/15`, or several \
             of these with commas between",
            "{part}"
        );
    }
    let never = "never matches: no day of the years 1970 to 2100 has that day of the month, month, day \
                 of the week and year";
    for text in ["0 0 30 2 * *", "0 0 31 2,4,6,9,11 * *", "0 0 29 2 * 2023", "0 0 29 2 1 2017-2043"]
    {
        assert_eq!(message(text), never, "{text}");
    }
    assert!(Cron::new("0 0 29 2 4 2024").is_ok());
}

#[test]
fn no_text_makes_it_panic_or_repeat_it() {
    let mut random = fastrand::Rng::with_seed(3);
    let pieces = [
        "*",
        "/",
        "-",
        ",",
        " ",
        "\t",
        "0",
        "1",
        "7",
        "59",
        "60",
        "2100",
        "777777",
        "hunter",
        "MON",
        "é",
        "\u{3000}",
        "\0",
        "* * * * * ",
        "18446744073709551616",
        "*/2",
    ];
    for _ in 0..20_000 {
        let text: String =
            (0..random.usize(..14)).map(|_| *random.choice(&pieces).unwrap()).collect();
        match Cron::new(&text) {
            Ok(cron) => assert_eq!(cron.to_string().parse(), Ok(cron)),
            Err(error) => {
                let error = error.to_string();
                assert!(!error.contains("hunter") && !error.contains("777"), "{error}");
            }
        }
    }
}

#[test]
fn ten_thousand_are_cheap() {
    assert!(size_of::<Cron>() <= 96, "{}", size_of::<Cron>());
    assert!(size_of::<ParseCronError>() <= 16);
}

#[test]
fn is_a_string_in_json() {
    let cron = Cron::new("30 2 * * * *").unwrap();
    assert_eq!(to_value(&cron).unwrap(), json!("30 2 * * * *"));
    assert_eq!(from_value::<Cron>(json!("30 2 * * * *")).unwrap(), cron);
    // Written with an escape, so that serde hands over an owned string.
    assert_eq!(from_str::<Cron>(r#""30 2 * * * \u002a""#).unwrap(), cron);
    let error = from_value::<Cron>(json!("30 24 * * * *")).unwrap_err();
    assert_eq!(error.to_string(), "the hour must be 0 to 23");
    let error = from_value::<Cron>(json!(null)).unwrap_err();
    assert!(error.to_string().contains("a cron expression such as `30 2 * * * *`"), "{error}");
}

#[test]
fn the_schema_is_inline_and_has_a_description_for_fields_without_one() {
    #[derive(schemars::JsonSchema)]
    #[allow(dead_code, reason = "only its schema is of interest")]
    struct Params {
        /// When to run.
        at: Cron,
        or: Cron,
    }
    let schema = to_value(schemars::schema_for!(Params)).unwrap();
    let expected =
        json!({ "type": "string", "format": "gofer-cron", "description": "When to run." });
    assert_eq!(schema["properties"]["at"], expected);
    let description = schema["properties"]["or"]["description"].as_str().unwrap();
    assert!(description.starts_with("Six fields"), "{description}");
    assert!(schema.get("$defs").is_none());
}
